"""`vlcomp push FOLDER OWNER/NAME`: publish a model, or generated negatives, on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Publish a trained model with its card and results, or generated negatives, on the Hugging Face Hub."

_EPILOG = """examples:
  vlcomp push runs/imc-cmr your-name/imc-cmr-clip --dry-run to-look-at/
  vlcomp push runs/imc-cmr your-name/imc-cmr-clip --license apache-2.0 --private
  vlcomp push runs/imc-cmr your-name/imc-cmr-clip --report runs/scores --base-report runs/scores-of-the-start
  vlcomp push photos-with-negatives your-name/negatives --dataset --license cc-by-4.0

A model is published as safetensors weights, processor, README.md (card), train.yaml (settings),
evaluation/results.json and, for models of vlcomp, their code, so that trust_remote_code=True loads them elsewhere.
What else lies in the folder (checkpoints, pickles, items of benchmarks) stays where it is and is listed. Secrets and
absolute paths are refused.

Token, address and proxies are those of the Hub's own client: `hf auth login`, HF_TOKEN, HF_ENDPOINT."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = _EPILOG
    parser.add_argument("folder", metavar="FOLDER", help="checkpoint with its processor, as `vlcomp train` writes it")
    parser.add_argument("name", metavar="OWNER/NAME", help="repository; made if it does not exist")
    parser.add_argument("--dataset", action="store_true", help="FOLDER holds negatives of `vlcomp negatives`")
    parser.add_argument(
        "--report", metavar="RUN", help="evaluation for the card (default: the folder evaluation in FOLDER, if any)"
    )
    parser.add_argument(
        "--base-report", metavar="RUN", help="the same tasks on the model it was trained from: shows what got worse"
    )
    parser.add_argument("--license", metavar="ID", help="licence, such as apache-2.0 (a data set needs one)")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to write to, made if missing (default: main)")
    parser.add_argument("--message", metavar="TEXT", default="Upload with vlcomp", help="message of the commit")
    parser.add_argument(
        "--dry-run", type=Path, metavar="OUT", help="write exactly what would be published to OUT; no network"
    )


def run(args: argparse.Namespace) -> int:
    """Publish, or write the folder of a dry run.

    Args:
        args (`argparse.Namespace`):
            From the parser of [`add_arguments`].

    Returns:
        `int`: 0.

    Raises:
        VlcompError: for a folder that cannot be published, without a token or network, or if the Hub refuses.
    """
    from ..hub.push import push_folder

    done = push_folder(
        args.folder,
        args.name,
        dataset=args.dataset,
        report=args.report,
        base_report=args.base_report,
        license=args.license,
        private=args.private or None,
        revision=args.revision,
        commit_message=args.message,
        dry_run=args.dry_run,
    )
    shown = [name for name in done.files if "/" not in name or not name.startswith("images/")]
    more = len(done.files) - len(shown)
    print("published:" if args.dry_run is None else "would be published:")
    print("".join(f"  {name}\n" for name in shown) + (f"  and {more} pictures\n" if more else ""), end="")
    if done.left_out:
        print(f"left out: {', '.join(done.left_out[:12])}{' ...' if len(done.left_out) > 12 else ''}")
    if args.license is None:
        print("no licence is stated; --license names one")
    print(done.address)
    return 0
