"""`vlcomp tasks`: list the benchmark tasks."""

from __future__ import annotations

import argparse
import json
import textwrap
from difflib import get_close_matches

HELP = "List the benchmark tasks: what each measures, the data that it needs, and the licence."

_EPILOG = """examples:
  vlcomp tasks
  vlcomp tasks scenes/systematic
  vlcomp tasks caption --long"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help="name, group, pattern with * or a word")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--long", action="store_true", help="also source, convention, citation and options")
    form.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    """Run the verb.

    Args:
        args (`argparse.Namespace`):
            Parsed arguments.

    Returns:
        `int`: 0.
    """
    from vlcomp.errors import ArgumentError
    from vlcomp.evaluation import list_tasks

    infos = list_tasks(args.pattern)
    if not infos:
        close = get_close_matches(args.pattern, [info.name for info in list_tasks()], 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`vlcomp tasks` lists all"
        raise ArgumentError(f"no task matches {args.pattern!r}; {hint}")
    fields = ("name", "description", "data", "licence", "source", "convention", "citation", "version", "options")
    if args.json:
        print(json.dumps([{field: getattr(info, field) for field in fields} for info in infos], indent=2))
        return 0
    if args.long:
        for info in infos:
            print(info.name)
            for field in fields[1:]:
                value = getattr(info, field)
                value = ", ".join(value) if field == "options" else value
                if field == "data" and not value:
                    value = "none needed"
                if value:
                    text = f"{field + ':':12} {value}"
                    print(textwrap.fill(text, 118, initial_indent="  ", subsequent_indent=" " * 15))
            print()
        return 0
    width = max(len(info.name) for info in infos)
    for info in infos:
        print(f"{info.name:{width}}  {info.description}")
        if info.data:
            print(f"{'':{width}}  {'reads' if info.facts else 'needs --data'}: {info.data}")
        print(f"{'':{width}}  licence: {info.licence}")
    return 0
