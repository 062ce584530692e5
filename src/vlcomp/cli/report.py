"""`vlcomp report`: one page from the results of one or more evaluations."""

from __future__ import annotations

import argparse

HELP = "Write one self-contained HTML page from the results of one or more evaluations."

_EPILOG = """examples:
  vlcomp report results/clip --output report.html
  vlcomp report results/clip results/ce-clip --output comparison.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder that `vlcomp evaluate --output` wrote")
    parser.add_argument("--output", default="report.html", metavar="FILE", help="the page (default: report.html)")
    parser.add_argument("--no-gallery", action="store_true", help="leave out the example pictures")


def run(args: argparse.Namespace) -> int:
    """Run the verb.

    Args:
        args (`argparse.Namespace`):
            Parsed arguments.

    Returns:
        `int`: 0.
    """
    from vlcomp.evaluation import Report
    from vlcomp.evaluation.html import write_html

    reports = [Report.load(run) for run in args.runs]
    print(write_html(reports, args.output, gallery=not args.no_gallery))
    return 0
