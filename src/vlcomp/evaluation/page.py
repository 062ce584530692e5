"""Style sheet and script of the HTML report, as text so that the page can hold them."""

STYLE = """
:root {
  color-scheme: light;
  --paper: #fdfdfb; --panel: #f4f4f0; --ink: #1d2125; --quiet: #646c73; --line: #dcdcd5; --grid: #e6e6e0;
  --run0: #3b6ea5; --run1: #c8763c; --run2: #5a8f69; --run3: #8d6aa8; --run4: #a3873a; --run5: #7a7f85;
  --good: #2f7a4d; --bad: #b3403a; --mark: #1d2125; --mark-fill: #fdfdfb;
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; overflow-wrap: anywhere; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header { padding-bottom: 1.25rem; border-bottom: 1px solid var(--line); }
header p { margin: .15rem 0; color: var(--quiet); font-size: .9rem; }
header b { color: var(--ink); font-weight: 600; }
.kicker { text-transform: uppercase; letter-spacing: .09em; font-size: .75rem !important; }
h1 { margin: .1rem 0 .4rem; font-size: clamp(1.6rem, 5vw, 2.2rem); line-height: 1.15; font-weight: 650;
  letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 .5rem; font-size: 1.2rem; font-weight: 620; letter-spacing: -.005em; }
h3 { margin: 0 0 .35rem; font-size: .8rem; line-height: 1.3; font-weight: 500; color: var(--quiet); }
section { margin-top: 2.5rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.6rem, 1fr)); gap: .75rem;
  margin-top: 1.5rem; }
.card { background: var(--panel); border-radius: 6px; padding: .75rem .85rem; display: flex; flex-direction: column;
  justify-content: space-between; }
.figure { display: grid; grid-template-columns: auto 1fr; align-items: baseline; column-gap: .45rem; }
.figure b { font-size: 1.45rem; font-weight: 620; font-variant-numeric: tabular-nums; line-height: 1.25;
  grid-column: 2; }
.figure .key { grid-row: 1; }
.figure span:not(.key) { grid-column: 2; color: var(--quiet); font-size: .75rem; font-variant-numeric: tabular-nums; }
.figure + .figure { margin-top: .35rem; }
.card .figure:only-of-type b, .card .figure:only-of-type span:not(.key) { grid-column: 1 / -1; }
.key { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin-right: .4rem; }
.figure .key { margin-right: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0 0 .5rem; color: var(--quiet);
  font-size: .82rem; }
.legend > span { display: inline-flex; align-items: center; white-space: nowrap; }
.sign { height: .95rem; margin-right: .35rem; overflow: visible; }
.scroll { overflow-x: auto; }
.bars { margin: .5rem 0 .75rem; }
.row { display: grid; grid-template-columns: minmax(7rem, 15rem) 1fr; column-gap: .9rem; align-items: center;
  padding: .28rem 0; break-inside: avoid; }
.row .name { text-align: right; font-size: .85rem; line-height: 1.25; overflow-wrap: anywhere; }
.track { position: relative; margin-right: 3.5rem; padding: 2px 0;
  background: repeating-linear-gradient(to right, var(--grid) 0 1px, transparent 1px 25%);
  border-right: 1px solid var(--grid); }
.bar { position: relative; height: .9rem; }
.bar .fill { display: block; height: calc(100% - 2px); border-radius: 0 2px 2px 0; }
.bar b { position: absolute; left: calc(100% + .95rem); top: -.14rem; font-size: .8rem; font-weight: 500;
  font-variant-numeric: tabular-nums; line-height: 1.15rem; white-space: nowrap; }
.bar .whisker { position: absolute; top: calc(50% - 4px); height: 6px; border: solid var(--ink); border-width: 0 1.3px;
  opacity: .8; z-index: 1; }
.bar .whisker::after { content: ""; position: absolute; left: 0; right: 0; top: 2.4px;
  border-top: 1.3px solid var(--ink); }
i.chance { position: absolute; top: -3px; bottom: -3px; border-left: 2px dashed var(--bad); margin-left: -1px; }
svg.at { position: absolute; top: calc(50% - .5rem); width: 1rem; height: 1rem; margin-left: -.5rem;
  overflow: visible; }
.axis .track { height: 1.1rem; background: none; border: 0; }
.axis span { position: absolute; white-space: nowrap; transform: translateX(-50%); color: var(--quiet);
  font-size: .74rem; }
line.chance { stroke: var(--bad); stroke-width: 2; stroke-dasharray: 3 2.5; }
path.whisker { stroke: var(--ink); stroke-width: 1.2; fill: none; }
.mark { fill: var(--mark-fill); stroke: var(--mark); stroke-width: 1.5; }
.planes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem; }
.plane { max-width: 30rem; }
.plane h3 { color: var(--ink); font-size: .9rem; }
.scatter { display: block; width: 100%; height: auto; }
.scatter text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink);
  text-anchor: middle; }
.scatter .tick { fill: var(--quiet); font-size: 12px; } .scatter .end { text-anchor: end; }
path.grid { stroke: var(--grid); }
.point { stroke: var(--paper); stroke-width: 1; }
.point.run0 { fill: var(--run0); } .point.run1 { fill: var(--run1); } .point.run2 { fill: var(--run2); }
.point.run3 { fill: var(--run3); } .point.run4 { fill: var(--run4); } .point.run5 { fill: var(--run5); }
.difference { width: 8.5rem; height: 1.1rem; vertical-align: middle; }
.difference path { stroke: var(--ink); stroke-width: 1.2; fill: none; }
.difference .zero { stroke: var(--quiet); stroke-dasharray: 2 2; stroke-width: 1; }
.difference.sure circle { fill: var(--ink); }
.difference circle { fill: var(--paper); stroke: var(--ink); stroke-width: 1.3; }
.fill.run0 { background: var(--run0); } .fill.run1 { background: var(--run1); } .fill.run2 { background: var(--run2); }
.fill.run3 { background: var(--run3); } .fill.run4 { background: var(--run4); } .fill.run5 { background: var(--run5); }
.key.run0 { background: var(--run0); } .key.run1 { background: var(--run1); } .key.run2 { background: var(--run2); }
.key.run3 { background: var(--run3); } .key.run4 { background: var(--run4); } .key.run5 { background: var(--run5); }
details { margin-top: .5rem; }
summary { cursor: pointer; color: var(--quiet); font-size: .85rem; padding: .3rem 0; width: fit-content; }
summary:hover { color: var(--ink); }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .38rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  overflow-wrap: normal; }
th { font-weight: 500; } td { white-space: nowrap; }
thead th { color: var(--quiet); font-size: .78rem; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; color: var(--ink); }
td small { display: block; color: var(--quiet); font-size: .74rem; }
table.settings td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.settings thead th { color: var(--ink); font-size: inherit; vertical-align: top; }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; align-items: center; margin: 1rem 0; font-size: .85rem; }
.filters label { color: var(--quiet); }
select { font: inherit; color: var(--ink); background: var(--panel); border: 1px solid var(--line); border-radius: 5px;
  padding: .3rem .45rem; max-width: 15rem; }
output { color: var(--quiet); }
div.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); gap: 1rem;
  align-items: start; }
figure { margin: 0; background: var(--panel); border-radius: 6px; overflow: hidden;
  border-top: 3px solid var(--line); }
figure.wrong { border-top-color: var(--bad); }
figure.right { border-top-color: var(--good); }
figure[hidden] { display: none; }
.pictures { display: flex; gap: 2px; height: 9.5rem; padding: .6rem .6rem 0; justify-content: center; }
.pictures img { height: 100%; width: 100%; min-width: 0; object-fit: contain; }
.pictures.two img { width: 50%; }
.pictures.stack { flex-direction: column; }
.pictures.stack img { width: 100%; height: 50%; min-height: 0; }
figcaption { padding: .55rem .8rem .75rem; font-size: .85rem; line-height: 1.4; }
figcaption p { margin: .25rem 0 0; overflow-wrap: anywhere; }
figcaption i { font-style: normal; color: var(--quiet); font-size: .75rem; margin-right: .4rem; }
.badge { font-size: .78rem; font-weight: 600; color: var(--bad); }
.right .badge, .good { color: var(--good); }
.bad { color: var(--bad); }
.verdicts { list-style: none; margin: 0 0 .4rem; padding: 0; font-size: .8rem; }
.verdicts b { font-weight: 600; }
.sources { color: var(--quiet); font-size: .8rem; } .sources p { margin: .4rem 0; }
.sources ul { margin: .4rem 0; padding-left: 1.1rem; }
.false { color: var(--quiet); }
.quiet { color: var(--quiet); font-size: .75rem; }
.notes { border-top: 1px solid var(--line); padding-top: 1.5rem; font-size: .9rem; }
.notes ul { padding-left: 1.2rem; }
.warnings { border-left: 4px solid var(--bad); padding: .6rem 1rem; background: var(--panel); font-size: .88rem;
  margin-top: 1.25rem; }
.warnings h2 { font-size: .95rem; margin: 0; } .warnings ul { margin: .3rem 0 0; padding-left: 1.1rem; }
:focus-visible { outline: 3px solid var(--run0); outline-offset: 2px; border-radius: 3px; }
@media (max-width: 34rem) {
  main { padding: 1.5rem 1rem 3rem; }
  .cards { grid-template-columns: repeat(2, 1fr); }
  div.grid { grid-template-columns: 1fr; }
  .row { grid-template-columns: 1fr; row-gap: .1rem; padding: .4rem 0; }
  .row .name { text-align: left; }
  select { max-width: 100%; }
  .filters label { display: block; width: 100%; } .filters select { display: block; width: 100%; }
}
@media print {
  :root { --paper: #fff; --panel: #f6f6f4; --ink: #000; --quiet: #444; --line: #ccc; --grid: #ddd;
    --mark: #000; --mark-fill: #fff; }
  html { font-size: 11px; }
  body { font-size: 1rem; }
  main { max-width: none; padding: 0; }
  .filters, .notes details { display: none; }
  summary { list-style: none; color: var(--ink); font-weight: 600; break-after: avoid; }
  summary::-webkit-details-marker { display: none; }
  figure, .card, .plane, tr { break-inside: avoid; }
  h2, h3, .legend { break-after: avoid; }
  .scroll { overflow: visible; }
  .key, .fill, .track, .point, figure, .card { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  div.grid { grid-template-columns: repeat(4, 1fr); gap: .5rem; }
  .pictures { height: 6rem; }
}
"""

SCRIPT = """
(function () {
  "use strict";
  var figures = Array.prototype.slice.call(document.querySelectorAll("figure[data-task]"));
  var task = document.getElementById("f-task"), outcome = document.getElementById("f-outcome");
  var count = document.getElementById("f-count"), none = document.getElementById("f-none");
  function apply() {
    var place = task.value.split("|"), shown = 0;
    // "0+1-": the first model is right, the second is wrong.
    var wanted = outcome.value.match(/\\d+[+-]/g) || [];
    figures.forEach(function (figure) {
      var visible = (!place[0] || figure.dataset.task === place[0]) &&
        (place.length < 2 || figure.dataset.subset === place[1]) &&
        wanted.every(function (w) {
          return figure.dataset["c" + w.slice(0, -1)] === (w.slice(-1) === "+" ? "1" : "0");
        });
      figure.hidden = !visible;
      shown += visible ? 1 : 0;
    });
    count.textContent = shown + " of " + figures.length;
    none.hidden = shown > 0;
  }
  if (figures.length) {
    task.addEventListener("change", apply);
    outcome.addEventListener("change", apply);
    apply();
  }
  // A printed page has no way to open what is folded.
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll(".task details").forEach(function (fold) { fold.open = true; });
  });
})();
"""
