"""`vlcomp doctor`: what is installed, and what of each benchmark is there."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlcomp.evaluation.benchmarks import Benchmark

HELP = "Tell what is installed: versions, device, cache, and what of each benchmark is there, missing or damaged."

_EPILOG = """A benchmark is `ready`; `changed` (it can be measured, but a file is not the official one, byte by byte);
`images missing`; `incomplete` (some of the official files are missing); `damaged` (a file cannot be read, or holds
another number of items); `found` (with --quick, which reads nothing); or `not installed`. Images are looked for, not
opened. --strict fails for what is changed or damaged.

examples:
  vlcomp doctor
  vlcomp doctor sugarcrepe --data benchmarks --images coco/val2017
  vlcomp doctor --quick --json"""
_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "accelerate",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "evaluate",
    "numpy",
    "pyarrow",
    "pillow",
    "textblob",
)
# Not needed, but they change which image processors transformers uses.
_OTHERS = ("torchvision", "bitsandbytes", "flash-attn")
_FAILURES = ("changed", "damaged")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("task", nargs="*", metavar="TASK", help="only these benchmarks, in detail (groups and * work)")
    parser.add_argument("--data", metavar="FOLDER", help="folder with the benchmarks' folders (default: $VLCOMP_DATA)")
    parser.add_argument("--images", metavar="FOLDER", help="folder of the images")
    parser.add_argument("--quick", action="store_true", help="do not read files: no checksums, no counts, no images")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if a file is damaged or not the official one"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    """Run the verb.

    Args:
        args (`argparse.Namespace`):
            Parsed arguments.

    Returns:
        `int`: 0; 1 with `--strict` if a benchmark is damaged or changed.
    """
    from vlcomp.evaluation.benchmarks import DATA_VARIABLE

    chosen = _chosen(args.task)
    _check_folders(args)
    environment = _environment()
    benchmarks = [_inspect(task, args.data, args.images, quick=args.quick) for task in chosen]
    if args.json:
        print(json.dumps({"environment": environment, "benchmarks": benchmarks}, indent=2, ensure_ascii=False))
    else:
        _print_environment(environment)
        root = args.data or os.environ.get(DATA_VARIABLE)
        print(f"\nbenchmarks ({DATA_VARIABLE}: {os.environ.get(DATA_VARIABLE) or 'not set'})")
        if not root:
            print(f"  nothing says where they are: set {DATA_VARIABLE} to a folder that holds theirs, or pass --data")
        for line in _lines(benchmarks, detailed=bool(args.task)):
            print(line)
    failed = any(entry["state"] in _FAILURES for entry in benchmarks)
    return 1 if args.strict and failed else 0


def _chosen(names: Sequence[str]) -> list[Any]:
    from vlcomp.errors import ArgumentError
    from vlcomp.evaluation import resolve_tasks
    from vlcomp.evaluation.benchmarks import BENCHMARKS

    if not names:
        return list(BENCHMARKS)
    by_name = {task.facts.name: task for task in BENCHMARKS}
    wanted = resolve_tasks(names)
    lacking = [name for name in wanted if name not in by_name]
    if lacking:
        raise ArgumentError(
            f"task {lacking[0]!r} has no official files to look for; `vlcomp doctor` lists those that do"
        )
    return [by_name[name] for name in wanted]


def _check_folders(args: argparse.Namespace) -> None:
    from vlcomp.errors import ArgumentError

    for option, folder in (("--data", args.data), ("--images", args.images)):
        if folder is not None and not Path(folder).is_dir():
            raise ArgumentError(f"{option} {folder!r} is not a folder")


# -- environment -------------------------------------------------------------------------------------------


def _environment() -> dict[str, Any]:
    import torch

    from vlcomp import __version__
    from vlcomp.evaluation.results import source_commit

    folder = _cache_folder()
    return {
        "vlcomp": __version__,
        "commit": source_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in (*_PACKAGES, *_OTHERS)},
        "devices": list(_devices(torch)),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cache": {"folder": str(folder), "bytes": _size(folder) if folder.is_dir() else None},
        "variables": {
            name: os.environ[name] for name in ("VLCOMP_DATA", "VLCOMP_CACHE", "HF_HOME") if name in os.environ
        },
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(torch: Any) -> Iterator[str]:
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        driver = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        yield f"cuda:{index}: {properties.name}, {_human(properties.total_memory)}, {driver}"
    if torch.backends.mps.is_available():
        yield "mps: Apple GPU"
    yield f"cpu: {platform.processor() or platform.machine()}"


def _cache_folder() -> Path:
    if "VLCOMP_CACHE" in os.environ:
        return Path(os.environ["VLCOMP_CACHE"])
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "vlcomp"


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue  # removed since it was listed
    return total


def _human(size: int) -> str:
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _print_environment(environment: dict[str, Any]) -> None:
    commit = f" (commit {environment['commit']})" if environment["commit"] else ""
    print(f"vlcomp {environment['vlcomp']}{commit}, Python {environment['python']}, {environment['platform']}")
    versions = environment["packages"]
    print("packages: " + ", ".join(f"{name} {versions[name] or 'NOT INSTALLED'}" for name in _PACKAGES))
    print("optional: " + ", ".join(f"{name} {versions[name] or 'not installed'}" for name in _OTHERS))
    print(
        "devices:  " + "; ".join(environment["devices"]) + f"; {environment['cpus']} cores, "
        f"{environment['threads']} threads"
    )
    cache = environment["cache"]
    print(f"cache:    {cache['folder']}, {'empty' if cache['bytes'] is None else _human(cache['bytes'])}")


# -- benchmarks --------------------------------------------------------------------------------------------


def _inspect(task: Any, data: str | None, images: str | None, *, quick: bool) -> dict[str, Any]:
    """What there is of a benchmark, and whether it can be measured."""
    from vlcomp.evaluation.benchmarks import DATA_VARIABLE, find_installed

    facts: Benchmark = task.facts
    installed = find_installed(facts, data, images, checksums=not quick)
    files = [
        {
            "name": status.file.name,
            "path": str(status.path),
            "bytes": status.size,
            "items": status.file.items,
            "official": status.official,
        }
        for status in installed.files
    ]
    there = [file for file in files if file["bytes"] is not None]
    state, problem = "not installed", ""
    sources: list[Any] = []
    if there:
        state, problem = "incomplete", f"{len(files) - len(there)} of {len(files)} official files are missing"
    if there and not installed.missing:
        state, problem, sources = ("found", "", []) if quick else _load(task, data, images)
        changed = [status.file.name for status in installed.changed]
        if changed and state != "damaged":
            also = f"; {problem}" if problem else ""
            state, problem = "changed", f"not the official file, byte by byte: {', '.join(changed)}{also}"
    elif there and not quick:
        # What is there may be damaged too.
        changed = [status.file.name for status in installed.changed]
        if changed:
            state, problem = "changed", f"{problem}; not the official file, byte by byte: {', '.join(changed)}"
    source = facts.images
    return {
        "name": facts.name,
        "title": facts.title,
        "state": state,
        "problem": problem,
        "licence": facts.licence,
        "gated": facts.gated or None,
        "url": facts.url,
        "default_folder": f"${DATA_VARIABLE}/{facts.folder}",
        "looked_in": [str(folder) for folder in installed.looked_in],
        "files": files,
        "bytes": sum(file["bytes"] for file in there),
        "items": facts.items,
        "images": {
            "what": source.what,
            "url": source.url,
            "licence": source.licence,
            "download": source.size or None,
            "count": source.count,
            "folders": [str(folder) for folder in installed.image_folders],
            "found": len(sources),
            "bytes": _size_of_images(sources),
        },
        "notes": facts.notes or None,
    }


def _load(task: Any, data: str | None, images: str | None) -> tuple[str, str, list[Any]]:
    """Load the items as an evaluation would, and find their images without opening them: state, problem, images."""
    from vlcomp.errors import ArgumentError, VlcompError

    try:
        made = task(data, images=images)
    except VlcompError as error:
        text = " ".join(str(error).split())
        absent = (" images are missing, first ", "there are no images; ", " images, the official set ")
        if any(words in text for words in absent):
            return "images missing", text, []
        return ("incomplete" if isinstance(error, ArgumentError) else "damaged"), text, []
    except Exception as error:  # a damaged file may fail in whichever library reads it
        return "damaged", f"{type(error).__name__}: {' '.join(str(error).split())}", []
    if hasattr(made, "prepared"):
        return "ready", "", made.prepared.sources
    return "ready", "", made.pairs.images if hasattr(made, "pairs") else made.labelled.images


def _size_of_images(sources: Sequence[Any]) -> int:
    """Bytes of the files; an image may be a path, a part of a file, or the content of a table."""
    paths = {str(source if isinstance(source, str) else source.get("path") or "") for source in sources}
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


def _lines(benchmarks: Sequence[dict[str, Any]], *, detailed: bool) -> Iterator[str]:
    name_width = max(len(entry["name"]) for entry in benchmarks)
    state_width = max(len(entry["state"]) for entry in benchmarks)
    for entry in benchmarks:
        there = [file for file in entry["files"] if file["bytes"] is not None]
        size = f"{len(there)}/{len(entry['files'])} files" + (f", {_human(entry['bytes'])}" if there else "")
        gate = f"; gated: {entry['gated']}" if entry["gated"] else ""
        yield f"  {entry['name']:{name_width}}  {entry['state']:{state_width}}  {size:18}  {entry['licence']}{gate}"
        indent = " " * (name_width + 4)
        places = [there[0]["path"].removesuffix(there[0]["name"]).rstrip("/")] if there else entry["looked_in"]
        yield f"{indent}in {' and '.join(places) or entry['default_folder']}"
        images = entry["images"]
        if images["found"]:
            yield f"{indent}{images['found']:,} images, {_human(images['bytes'])}"
        if entry["problem"]:
            # Where to get what is missing is a long story, for one benchmark at a time.
            yield indent + (entry["problem"] if detailed else entry["problem"].partition("; looked in ")[0])
        if detailed:
            yield from (indent + line for line in _details(entry))
    counts: dict[str, int] = {}
    for entry in benchmarks:
        counts[entry["state"]] = counts.get(entry["state"], 0) + 1
    yield "  " + ", ".join(f"{count} {state}" for state, count in counts.items())
    if not detailed:
        yield "  `vlcomp doctor TASK` tells where the files and images of a benchmark are to be had"


def _details(entry: dict[str, Any]) -> Iterator[str]:
    yield f"official files: {entry['url']}"
    for file in entry["files"]:
        if file["bytes"] is None:
            said = "missing"
        else:
            known = {True: "official", False: "NOT the official file", None: "no checksum is compared"}
            said = f"{_human(file['bytes'])}, {known[file['official']]}"
        items = f"{file['items']:,} items, " if file["items"] is not None else ""
        yield f"  {file['name']}: {items}{said}"
    images = entry["images"]
    size = f", {images['download']}" if images["download"] else ""
    yield f"images: {images['what']} ({images['url']}{size}; licence: {images['licence']})"
    yield (
        f"        looked in {', '.join(images['folders'])}"
        if images["folders"]
        else "        no folder of them is there"
    )
    if entry["notes"]:
        yield f"note: {entry['notes']}"
