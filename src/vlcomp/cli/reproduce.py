"""`vlcomp reproduce METHOD`: run a method's study and print its table."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Run a method's study: configurations x seeds, one result file a run, and a table with 95 % intervals."

_EPILOG = """examples:
  vlcomp reproduce clip --output runs/reproduce-clip
  vlcomp reproduce clip --output runs/reproduce-clip --seeds 0 --configurations clip
  vlcomp reproduce clip --output runs/reproduce-clip --table

A run that has its result file is not run again: start the same command again to continue."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = _EPILOG
    parser.add_argument("method", help="name of the method, as in `vlcomp train METHOD`")
    parser.add_argument("--output", type=Path, help="folder of the result files (default: runs/reproduce-METHOD)")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds (default: those of the study)")
    parser.add_argument("--configurations", nargs="+", metavar="NAME", help="only these configurations")
    parser.add_argument("--table", action="store_true", help="only print the table of the runs there are")
    parser.add_argument(
        "--part", metavar="NAME", help="another study of the method, such as selection: how the settings were chosen"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch chooses)")


def run(args: argparse.Namespace) -> int:
    """Run the study, or print its table.

    Args:
        args (`argparse.Namespace`):
            From the parser of [`add_arguments`].

    Returns:
        `int`: 0.

    Raises:
        VlcompError: for an unknown method or configuration, or a result file of another study.
    """
    from ..errors import ArgumentError, DataError
    from ..methods import get_method

    method = get_method(args.method)
    if method.study is None:
        raise ArgumentError(f"method={method.name!r} has no study")
    if args.threads is not None and args.threads < 1:
        raise ArgumentError(f"--threads {args.threads} must be at least 1")
    if any(seed < 0 for seed in args.seeds or ()):
        raise ArgumentError(f"--seeds {min(args.seeds)} must be 0 or more")
    if args.table and (args.seeds or args.configurations):
        raise ArgumentError("--table prints all runs there are; leave out --seeds and --configurations")
    output = args.output or Path("runs") / f"reproduce-{method.name}"

    import torch

    from ..analysis import write_figure
    from ..files import check_output
    from ..studies.frame import load_runs, run_study, study_table

    if args.threads:
        torch.set_num_threads(args.threads)
    study = method.load("study")
    if args.part:
        if args.part not in study.parts:
            known = ", ".join(study.parts) or "none"
            raise ArgumentError(f"--part {args.part!r} is not part of the study of {method.name}; its parts: {known}")
        study, output = study.parts[args.part], output / args.part
    if args.table:
        runs = load_runs(study, output)
        if not runs:
            raise DataError(f"{output} holds no result file of the study; leave out --table to run it")
    else:
        check_output(output)
        run_study(study, output, configurations=args.configurations, seeds=args.seeds)
        # The table is of all runs there are, not only of those asked for now.
        runs = load_runs(study, output)
    table = f"# {study.title}\n\n{study_table(study, runs)}\n\n{study.notes}\n"
    if study.details is not None:
        table += "\n" + study.details(runs)
    if not args.table:
        figures = study.figures(runs) if study.figures is not None else {}
        for name, figure in figures.items():
            write_figure(figure, output / name)
        shown = "".join(f"\n![{Path(name).stem}]({name})\n" for name in figures)
        (output / "README.md").write_text(table + shown, encoding="utf-8")
    print(table)
    return 0
