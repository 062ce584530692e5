"""Entry point of the `vlcomp` command.

It lives beside the package and not in it: importing `vlcomp` registers the models and so pays for transformers, which
takes seconds, and `vlcomp --help` or a mistyped verb must answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

# One line a verb: the module `vlcomp.cli.<verb>` gives its arguments and runs it.
VERBS = {
    "demo": "make the built-in world, train a small CLIP on it, measure it and write a report (minutes)",
    "train": "fine-tune or pre-train a model on image-caption data",
    "evaluate": "measure a model on benchmark tasks",
    "classify": "zero-shot classification of pictures",
    "analyze": "ease of learning, smoothness, codebook and topography of a model or a run",
    "negatives": "make hard-negative captions for a data set",
    "report": "one page from the results of one or more evaluations",
    "reproduce": "run a method's study (configurations x seeds) and print its table",
    "push": "publish a model or generated negatives on the Hugging Face Hub",
    "cards": "write a model card for each method from its study's results",
    "convert": "checkpoints of OpenAI, open_clip, Iterated-CLIP, MaPLe, COMMA to our layout, or back",
    "tasks": "list the benchmark tasks",
    "doctor": "what is installed: versions, device, cache, benchmark files and images",
}


def _help() -> str:
    width = max(map(len, VERBS))
    lines = ["usage: vlcomp [--version] VERB ...", "", "Compositional vision-language models.", "", "verbs:"]
    lines += [f"  {verb:{width}}  {text}" for verb, text in VERBS.items()]
    lines += ["", "`vlcomp VERB --help` shows the arguments of a verb and an example.", "Start with: vlcomp demo"]
    return "\n".join(lines)


def _version() -> str:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vlcomp", "_version.py")
    scope: dict[str, str] = {}
    with open(path, encoding="utf-8") as stream:
        exec(stream.read(), scope)
    return scope["__version__"]


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, with the option that was likely meant; argparse alone prints the whole usage."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):
        self._given = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return parsed

    def error(self, message: str) -> NoReturn:
        if "required" in message:
            # What is missing may have been given under a mistyped name.
            typed = [word for word in self._given if word.startswith("--") and word.split("=")[0] not in self._known()]
            message = self._unknown(typed[0]) if typed and not self._passes_on() else message
        self.exit(2, f"error: {message} (`{self.prog} --help` shows the arguments)\n")

    def _known(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def _passes_on(self) -> bool:
        return any(isinstance(action, argparse._SubParsersAction) for action in self._actions)

    def _unknown(self, word: str) -> str:
        from difflib import get_close_matches

        close = get_close_matches(word.split("=")[0], self._known(), 2) if word.startswith("-") else []
        return f"argument {word!r} is not known" + (f"; did you mean {' or '.join(close)}?" if close else "")


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv (`list[str]`, *optional*):
            Arguments; `sys.argv[1:]` if not given.

    Returns:
        `int`: 0 on success, 2 for input that a person can fix, 130 when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"vlcomp {_version()}")
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        from difflib import get_close_matches

        close = get_close_matches(verb, VERBS, 2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"verbs: {', '.join(VERBS)}"
        print(f"error: vlcomp has no verb {verb!r}; {hint}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"vlcomp.cli.{verb}")
    parser = Parser(
        prog=f"vlcomp {verb}",
        description=module.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    # A verb that passes unknown options on (training arguments) has `parse`; all others refuse them.
    args = module.parse(parser, rest) if hasattr(module, "parse") else parser.parse_args(rest)
    errors = importlib.import_module("vlcomp.errors")
    _leave_out_noise()
    try:
        return int(module.run(args) or 0)
    except errors.VlcompError as error:
        _close_bars()
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        _close_bars()
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _leave_out_noise() -> None:
    """Leave out announcements of libraries to each other's authors, which whoever runs a command cannot act on."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate|datasets)(\.|$)")


def _close_bars() -> None:
    """End the lines of progress bars, so that what follows has a line of its own."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    for bar in list(getattr(bars, "_instances", ())):
        bar.close()


if __name__ == "__main__":
    sys.exit(main())
