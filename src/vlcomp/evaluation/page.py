"""Style sheet and script of the HTML report, as text so that the page can hold them."""

STYLE = """
:root {
  --paper: #fdfdfb; --panel: #f4f4f0; --ink: #1d2125; --quiet: #646c73; --line: #dcdcd5; --grid: #e6e6e0;
  --run0: #3b6ea5; --run1: #c8763c; --run2: #5a8f69; --run3: #8d6aa8; --run4: #a3873a; --run5: #7a7f85;
  --good: #2f7a4d; --bad: #b3403a; --mark: #1d2125; --mark-fill: #fdfdfb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16191c; --panel: #1f2327; --ink: #e6e6e2; --quiet: #9aa2a9; --line: #353b41; --grid: #2a3036;
    --run0: #6b9bd1; --run1: #dc9560; --run2: #7db58d; --run3: #b294cc; --run4: #c9ab5b; --run5: #a0a6ac;
    --good: #6dc08c; --bad: #e4807a; --mark: #f2f2ee; --mark-fill: #16191c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
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
.chart { display: block; width: 100%; min-width: 21rem; height: auto; }
.chart text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink); }
.chart .label { text-anchor: end; }
.chart .tick { text-anchor: middle; fill: var(--quiet); font-size: 11.5px; }
.chart .value { font-variant-numeric: tabular-nums; }
.grid { stroke: var(--grid); }
.chance { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 3 2.5; }
.whisker { stroke: var(--ink); stroke-width: 1.2; fill: none; opacity: .75; }
.mark { fill: var(--mark-fill); stroke: var(--mark); stroke-width: 1.5; }
rect.run0 { fill: var(--run0); } rect.run1 { fill: var(--run1); } rect.run2 { fill: var(--run2); }
rect.run3 { fill: var(--run3); } rect.run4 { fill: var(--run4); } rect.run5 { fill: var(--run5); }
.key.run0 { background: var(--run0); } .key.run1 { background: var(--run1); } .key.run2 { background: var(--run2); }
.key.run3 { background: var(--run3); } .key.run4 { background: var(--run4); } .key.run5 { background: var(--run5); }
details { margin-top: .5rem; }
summary { cursor: pointer; color: var(--quiet); font-size: .85rem; padding: .3rem 0; width: fit-content; }
summary:hover { color: var(--ink); }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .38rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 500; } td { white-space: nowrap; }
tr:first-child th { color: var(--quiet); font-size: .78rem; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; color: var(--ink); }
td small { display: block; color: var(--quiet); font-size: .74rem; }
table.settings td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.settings tr:first-child th { color: var(--ink); font-size: inherit; vertical-align: top; }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; align-items: center; margin: 1rem 0; font-size: .85rem; }
.filters label { color: var(--quiet); }
select { font: inherit; color: var(--ink); background: var(--panel); border: 1px solid var(--line); border-radius: 5px;
  padding: .3rem .45rem; max-width: 15rem; }
output { color: var(--quiet); }
div.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); gap: 1rem;
  align-items: start; }
figure { margin: 0; background: var(--panel); border-radius: 6px; overflow: hidden; border-top: 3px solid var(--bad); }
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
.right .badge { color: var(--good); }
.false { color: var(--quiet); }
.quiet { color: var(--quiet); font-size: .75rem; }
.notes { border-top: 1px solid var(--line); padding-top: 1.5rem; font-size: .9rem; }
.notes ul { padding-left: 1.2rem; }
.warnings { border-left: 3px solid var(--bad); padding: .4rem 0 .4rem 1.6rem !important; background: var(--panel); }
@media (max-width: 34rem) {
  main { padding: 1.5rem 1rem 3rem; }
  .cards { grid-template-columns: repeat(2, 1fr); }
  div.grid { grid-template-columns: 1fr; }
  .chart text { font-size: 20px; } .chart .tick { font-size: 17px; } .chart .dense { font-size: 15px; }
}
@media print {
  :root { --paper: #fff; --panel: #f6f6f4; --ink: #000; --quiet: #444; --line: #ccc; --grid: #ddd;
    --mark: #000; --mark-fill: #fff; }
  body { font-size: 11px; }
  main { max-width: none; padding: 0; }
  .filters, summary { display: none; }
  .task, figure, .card { break-inside: avoid; }
  .rect, .key, rect, figure, .card { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  div.grid { grid-template-columns: repeat(4, 1fr); gap: .5rem; }
  .pictures { height: 6rem; }
}
"""

SCRIPT = """
(function () {
  "use strict";
  var ids = { task: "f-task", outcome: "f-outcome", run: "f-run" };
  var figures = Array.prototype.slice.call(document.querySelectorAll("figure[data-task]"));
  var count = document.getElementById("f-count");
  function apply() {
    var shown = 0;
    figures.forEach(function (figure) {
      var visible = Object.keys(ids).every(function (key) {
        var control = document.getElementById(ids[key]);
        return !control || !control.value || figure.dataset[key] === control.value;
      });
      figure.hidden = !visible;
      shown += visible ? 1 : 0;
    });
    if (count) { count.textContent = shown + " of " + figures.length; }
  }
  Object.keys(ids).forEach(function (key) {
    var control = document.getElementById(ids[key]);
    if (control) { control.addEventListener("change", apply); }
  });
  // A printed page has no way to open what is folded.
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (fold) { fold.open = true; });
  });
  if (figures.length) { apply(); }
})();
"""
