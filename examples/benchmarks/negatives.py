"""Measure the generator of hard-negative captions, and have its output rated by two readers.

Speed, coverage, and how well a text-only classifier tells generated captions from true ones, on the true captions of
SugarCrepe (a folder with its seven files) and on those of Scenes. Ends within ten minutes on two cores:

    python examples/benchmarks/negatives.py measure --sugarcrepe data/sugarcrepe --output negatives.json

Draw 100 outputs of each type, rate them by model_cards/results/negatives/RUBRIC.md, and merge the ratings:

    python examples/benchmarks/negatives.py sheet --sugarcrepe data/sugarcrepe --reading reading --sheet sheet.csv
    python examples/benchmarks/negatives.py sheet --merge reading1 reading2 --sheet sheet.csv --output ratings.json

The first writes reading/<type>.csv, with captions that belong to others: share the sheet, not these. A reader copies
the folder and fills in the columns `grammatical` and `contradicts` with yes or no.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vlcomp
from vlcomp.data import NegativeGenerator, generate_negatives
from vlcomp.data.negatives import RULES_VERSION, TYPE_SETS
from vlcomp.errors import ArgumentError, DataError, VlcompError
from vlcomp.evaluation.reference import cross_validated_scores

TYPES = TYPE_SETS["all"]
QUESTIONS = ("grammatical", "contradicts")
READING_COLUMNS = ("row", "id", "caption", "negative", *QUESTIONS)
SHEET_COLUMNS = ("type", "row", "id", "rule", "from", "to", "half", "words")
RATING_COLUMNS = tuple(f"reading_{number}_{question}" for number in (1, 2) for question in QUESTIONS)
# One process, from nothing to the negatives: what a user who starts a script waits for.
_FRESH = """
import json, sys
captions = json.load(open(sys.argv[1], encoding="utf-8"))
from vlcomp.data import generate_negatives
generate_negatives(captions, num_proc=2)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    measure = verbs.add_parser("measure", help="speed, coverage and text-only classifier")
    measure.add_argument("--sugarcrepe", type=Path, required=True, help="folder of SugarCrepe's seven JSON files")
    measure.add_argument("--scenes", type=int, default=4000, help="captions of Scenes; 0: none (default: 4000)")
    measure.add_argument("--repeats", type=int, default=5, help="runs that are timed (default: 5)")
    measure.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    sheet = verbs.add_parser("sheet", help="draw outputs for two readers, or merge their ratings")
    sheet.add_argument("--sugarcrepe", type=Path, help="folder of SugarCrepe's seven JSON files")
    sheet.add_argument("--reading", type=Path, help="folder to write for the readers, with source captions")
    sheet.add_argument("--sheet", type=Path, required=True, help="CSV file without source captions")
    sheet.add_argument("--per-type", type=int, default=100, help="outputs of each type (default: 100)")
    sheet.add_argument("--seed", type=int, default=2026, help="seed of the draw (default: 2026)")
    sheet.add_argument("--leave-out", type=Path, metavar="FOLDER", help="of an earlier draw: take other captions")
    sheet.add_argument("--merge", type=Path, nargs=2, metavar="FOLDER", help="folders of the two readers, filled in")
    sheet.add_argument("--output", type=Path, help="with --merge: write percentages and agreement to this JSON file")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "measure":
            run_measure(arguments)
        elif arguments.merge:
            merge(arguments.merge, arguments.sheet, arguments.output)
        else:
            draw(arguments)
    except VlcompError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def load_sugarcrepe(folder: Path) -> list[str]:
    """True captions of all items, in the order of the files; a caption may occur several times."""
    files = sorted(folder.glob("*.json"))
    if len(files) != 7:
        raise DataError(
            f"--sugarcrepe {folder} holds {len(files)} JSON files; expected SugarCrepe's seven (add_att.json, ...)"
        )
    return [item["caption"] for file in files for item in json.loads(file.read_text(encoding="utf-8")).values()]


def run_measure(arguments: argparse.Namespace) -> None:
    captions = load_sugarcrepe(arguments.sugarcrepe)
    result: dict[str, Any] = {
        "captions": len(captions),
        "distinct_captions": len(set(captions)),
        "rules_version": RULES_VERSION,
        "types": list(TYPE_SETS["default"]),
        "coverage": coverage(captions),
        "speed": speed(captions, arguments.repeats),
        "text_only_accuracy": {"sugarcrepe": text_only(list(dict.fromkeys(captions)))},
        "environment": {
            "vlcomp": vlcomp.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        },
    }
    if arguments.scenes:
        scenes = vlcomp.load_scenes("train", size=arguments.scenes)
        result["text_only_accuracy"]["scenes"] = text_only(list(scenes["caption"]))
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def coverage(captions: Sequence[str]) -> dict[str, Any]:
    """Shares of the captions with a negative, with negatives of two types, and with each type."""
    rows = generate_negatives(captions)
    counts = Counter(negative.type for row in rows for negative in row)
    return {
        "one": sum(len(row) > 0 for row in rows) / len(rows),
        "two_types": sum(len(row) > 1 for row in rows) / len(rows),
        "types": {name: counts[name] / len(rows) for name in TYPE_SETS["default"]},
    }


def speed(captions: Sequence[str], repeats: int) -> dict[str, Any]:
    """Captions per second of learning the corpus and generating; processor time beside it, for busy machines."""
    wall, processor = [], {1: [], 2: []}
    generate_negatives(captions[:50])  # reads the lexicon of the tagger
    for _ in range(repeats):
        for processes in (2, 1):
            start, used = time.perf_counter(), processor_seconds()
            generate_negatives(captions, num_proc=processes)
            if processes == 2:
                wall.append(time.perf_counter() - start)
            processor[processes].append(processor_seconds() - used)
    count = len(captions)
    return {
        "what": "generate_negatives(captions, num_proc=2), default types, learning the corpus included",
        "captions_per_second": {"median": count / statistics.median(wall), "best": count / min(wall)},
        "processor_seconds": {f"{n} processes": sorted(round(t, 3) for t in times) for n, times in processor.items()},
        "captions_per_processor_second_times_2": {
            f"{n} processes": {"median": 2 * count / statistics.median(times), "best": 2 * count / min(times)}
            for n, times in processor.items()
        },
        "seconds_with_start_and_imports": fresh_seconds(captions),
    }


def processor_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def fresh_seconds(captions: Sequence[str]) -> float:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.json"
        path.write_text(json.dumps(list(captions)), encoding="utf-8")
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", _FRESH, str(path)], check=True)
        return time.perf_counter() - start


def text_only(captions: Sequence[str]) -> dict[str, Any]:
    """Accuracy of a classifier of texts that learned from other captions; one half is chance."""
    out = {}
    for name in TYPES:
        rows = generate_negatives(captions, types=[name])
        pairs = [(caption, row[0].text) for caption, row in zip(captions, rows, strict=True) if row]
        if len(pairs) < 100:
            out[name] = {"pairs": len(pairs), "accuracy": None}
            continue
        true, false = zip(*pairs, strict=True)
        good, bad = cross_validated_scores(true, false, true)
        accuracy = float(((good > bad) + 0.5 * (good == bad)).mean())
        out[name] = {"pairs": len(pairs), "accuracy": accuracy}
    return out


def draw(arguments: argparse.Namespace) -> None:
    """Write the files for the readers and the sheet."""
    if arguments.sugarcrepe is None or arguments.reading is None:
        raise ArgumentError("sheet needs --sugarcrepe and --reading, or --merge")
    captions = load_sugarcrepe(arguments.sugarcrepe)
    seen = set(captions[::2])  # the rules were made while looking at these
    halves = {"held out": sorted(set(captions) - seen), "seen": sorted(seen)}
    earlier = set()
    if arguments.leave_out:
        for name in TYPES:
            rows = read_csv(arguments.leave_out / f"{name}.csv", ("caption",))
            earlier |= {(name, row["caption"]) for row in rows}
    generator = NegativeGenerator("all", seed=arguments.seed).fit(captions)
    arguments.reading.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in TYPES:
        generator.types = (name,)
        chosen = []
        # The other half, and captions that were drawn before, only fill up what a rare type lacks.
        for drawn in (False, True) if earlier else (False,):
            for half, members in halves.items():
                for caption in random.Random(f"{arguments.seed} {name} {half}").sample(members, len(members)):
                    if len(chosen) == arguments.per_type:
                        break
                    if ((name, caption.strip()) in earlier) == drawn:
                        where = f"{half}, drawn before" if drawn else half
                        chosen += [(caption, negative, where) for negative in generator(caption)]
        if len(chosen) < arguments.per_type:
            raise DataError(f"type {name} has only {len(chosen)} outputs; --per-type {arguments.per_type} is too many")
        rows = []
        for number, (caption, negative, half) in enumerate(chosen, 1):
            code = hashlib.sha256(f"{caption}\0{negative.text}".encode()).hexdigest()[:8]
            rows.append({"row": number, "id": code, "caption": caption.strip(), "negative": negative.text.strip()})
            source = negative.source
            changed = {"rule": source["rule"], "from": source["from"], "to": source["to"]}
            sizes = {"half": half, "words": len(caption.split())}
            lines.append({"type": name, "row": number, "id": code, **changed, **sizes})
        write_csv(arguments.reading / f"{name}.csv", READING_COLUMNS, rows)
    write_csv(arguments.sheet, (*SHEET_COLUMNS, *RATING_COLUMNS), lines)
    print(f"{len(lines)} outputs: {arguments.sheet}, and with captions in {arguments.reading}")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} has no column {missing[0]!r}; it has {', '.join(reader.fieldnames or ())}")
        return list(reader)


def merge(folders: Sequence[Path], sheet: Path, output: Path | None) -> None:
    """Write the ratings of two readers into the sheet, and percentages and agreement to a file."""
    lines = read_csv(sheet, SHEET_COLUMNS)
    by_place = {(line["type"], line["row"]): line for line in lines}
    types = list(dict.fromkeys(line["type"] for line in lines))
    for number, folder in enumerate(folders, 1):
        rated = set()
        for name in types:
            path = folder / f"{name}.csv"
            for row in read_csv(path, ("row", "id", *QUESTIONS)):
                line = by_place.get((name, row["row"]))
                if line is None or line["id"] != row["id"]:
                    raise DataError(f"{path} has row {row['row']} with id {row['id']}, which {sheet} does not have")
                for question in QUESTIONS:
                    answer = row[question].strip().lower()
                    if answer not in ("yes", "no"):
                        raise DataError(
                            f"{path} row {row['row']}: {question} is {row[question]!r}; expected yes or no"
                        )
                    line[f"reading_{number}_{question}"] = answer
                rated.add((name, row["row"]))
        missing = [place for place in by_place if place not in rated]
        if missing:
            raise DataError(
                f"{folder} has no rating of {missing[0][0]} row {missing[0][1]} and {len(missing) - 1} more"
            )
    write_csv(sheet, (*SHEET_COLUMNS, *RATING_COLUMNS), lines)
    result = {name: summary([line for line in lines if line["type"] == name]) for name in types}
    result["all"] = summary(lines)
    print(f"{'type':20}{'outputs':>8}  {'grammatical 1, 2':>18}{'agree':>7}{'kappa':>7}  "
          f"{'contradicts 1, 2':>18}{'agree':>7}{'kappa':>7}")  # fmt: skip
    for name, entry in result.items():
        cells = ""
        for question in QUESTIONS:
            part = entry[question]
            kappa = "   -  " if part["kappa"] is None else f"{part['kappa']:6.2f}"
            shares = f"{part['reading_1']:.1%}, {part['reading_2']:.1%}"
            cells += f"  {shares:>18}{part['agreement']:7.1%} {kappa}"
        print(f"{name:20}{entry['outputs']:8}{cells}")
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def summary(lines: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Share of "yes" in each reading, raw agreement and Cohen's kappa (`None` if all answers are one and the same)."""
    out: dict[str, Any] = {"outputs": len(lines)}
    for question in QUESTIONS:
        first, second = ([line[f"reading_{n}_{question}"] == "yes" for line in lines] for n in (1, 2))
        p, q = (sum(answers) / len(lines) for answers in (first, second))
        agreement = sum(a == b for a, b in zip(first, second, strict=True)) / len(lines)
        chance = p * q + (1 - p) * (1 - q)
        kappa = (agreement - chance) / (1 - chance) if chance < 1 else None
        out[question] = {"reading_1": p, "reading_2": q, "agreement": agreement, "kappa": kappa}
    return out


if __name__ == "__main__":
    raise SystemExit(main())
