"""`vlcomp convert`: checkpoints of other projects to folders that vlcomp and transformers read, and back."""

from __future__ import annotations

import argparse

HELP = "Convert a checkpoint of OpenAI, open_clip, Iterated-CLIP, MaPLe or COMMA to a transformers folder, or back."

_EPILOG = """What a file is shows in its weights. Embeddings of random inputs are compared before anything is written.
Nothing in a file is run: one that holds Python objects beside its weights is refused (--ignore-objects reads the
weights alone).

examples:
  vlcomp convert negclip.pth --activation quick_gelu --output negclip
  vlcomp convert ViT-B-32.pt --output clip --tokenizer openai/clip-vit-base-patch32
  vlcomp convert open_clip_folder --output clip
  vlcomp convert iterated_clip.pth.tar --output iterated-clip
  vlcomp convert model.pth.tar-5 --clip openai/clip-vit-base-patch16 --ignore-objects --output comma
  vlcomp convert runs/imc-cmr --to open_clip --output imc-cmr.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = _EPILOG
    parser.add_argument("source", metavar="SOURCE", help=".pt, .pth, .bin, .pth.tar or .safetensors file, or a folder")
    parser.add_argument("--output", required=True, metavar="PATH", help="new folder; with --to open_clip a new file")
    parser.add_argument("--to", default="transformers", metavar="LAYOUT", help="transformers (default) or open_clip")
    parser.add_argument(
        "--activation",
        metavar="NAME",
        help="quick_gelu (models that started from OpenAI's weights) or gelu, where the file does not tell",
    )
    parser.add_argument("--vision-heads", type=int, metavar="N", help="attention heads, for towers of unusual width")
    parser.add_argument("--text-heads", type=int, metavar="N", help="attention heads of the text tower")
    parser.add_argument(
        "--tokenizer", metavar="NAME", help="folder or Hub repository (default: OpenAI's, for its vocabulary)"
    )
    parser.add_argument("--no-tokenizer", action="store_true", help="write the model alone")
    parser.add_argument("--clip", metavar="NAME", help="for prompts: folder or Hub repository of the CLIP")
    parser.add_argument(
        "--template", default="a photo of a {}.", help="for prompts: text of a class (default: a photo of a {}.)"
    )
    parser.add_argument(
        "--temperature", type=float, default=1000.0, metavar="T", help="for codebooks: sd_temperature (default: 1000)"
    )
    parser.add_argument("--dtype", default="float32", help="type of the weights that are written (default: float32)")
    parser.add_argument(
        "--ignore-objects",
        action="store_true",
        help="read the weights of a file that also holds Python objects, without building these",
    )


def run(args: argparse.Namespace) -> int:
    """Run the verb.

    Args:
        args (`argparse.Namespace`):
            Parsed arguments.

    Returns:
        `int`: 0.
    """
    from ..errors import ArgumentError
    from ..hub.conversion import convert

    for name in ("vision_heads", "text_heads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ArgumentError(f"--{name.replace('_', '-')} {getattr(args, name)} must be at least 1")
    if args.no_tokenizer and args.tokenizer:
        raise ArgumentError("--tokenizer and --no-tokenizer exclude each other")
    names = ("to", "activation", "vision_heads", "text_heads", "tokenizer", "clip", "template", "temperature", "dtype")
    result = convert(
        args.source,
        args.output,
        with_tokenizer=not args.no_tokenizer,
        ignore_objects=args.ignore_objects,
        **{name: getattr(args, name) for name in names},
    )
    print(f"source: {result.what}")
    print(f"check:  largest difference between embeddings of random inputs {result.difference:.1e}")
    for note in result.notes:
        print(f"note:   {note}")
    print(f"wrote:  {result.output}")
    return 0
