"""Converting checkpoints between the layouts of other projects and that of transformers, with a check of the outputs.

What a file is shows in the names of its weights: a CLIP of OpenAI or open_clip, a codebook-CLIP of the Iterated-CLIP
authors, or prompts of MaPLe or COMMA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPModel

from ..errors import ArgumentError, CheckpointError
from ..models.from_scratch import new_processor
from . import codebook, prompts
from .architecture import Architecture, model_weights, open_clip_settings, read_architecture
from .open_clip import ACTIVATIONS, build_clip, compare_clip, to_open_clip
from .weights_files import Weights, read_weights

TARGETS = ("transformers", "open_clip")
TOLERANCE = 1e-4
# The vocabulary of OpenAI's CLIP and of every open_clip model with its text tower, and who has its tokenizer.
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch32"
_VOCABULARIES = (49408, 49409)
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_INTERPOLATIONS = {"bicubic": 3, "bilinear": 2}  # as PIL counts
_DTYPES = ("float32", "float16", "bfloat16")


@dataclass
class Conversion:
    """What was converted, and how it was checked.

    Args:
        what (`str`):
            What the source is.
        output (`Path`):
            Where the result is.
        difference (`float`):
            Largest difference between L2-normalised embeddings of the result and of the source, on random inputs.
        notes (`list[str]`):
            What to know about it, a sentence each.
    """

    what: str
    output: Path
    difference: float
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Options:
    activation: str | None
    vision_heads: int | None
    text_heads: int | None
    tokenizer: str | Path | None
    with_tokenizer: bool
    clip: str | Path | None
    template: str
    temperature: float
    dtype: torch.dtype
    preprocess: Mapping[str, Any] = field(default_factory=dict)


def convert(
    source: str | Path,
    output: str | Path,
    *,
    to: str = "transformers",
    activation: str | None = None,
    vision_heads: int | None = None,
    text_heads: int | None = None,
    tokenizer: str | Path | None = None,
    with_tokenizer: bool = True,
    clip: str | Path | None = None,
    template: str = "a photo of a {}.",
    temperature: float = 1000.0,
    dtype: str = "float32",
    ignore_objects: bool = False,
) -> Conversion:
    """Convert a checkpoint, and compare what both compute on random inputs before anything is written.

    Args:
        source (`str` or `Path`):
            A `.pt`, `.pth`, `.bin`, `.pth.tar` or `.safetensors` file, an open_clip folder, or with `to="open_clip"` a
            folder of a transformers CLIP.
        output (`str` or `Path`):
            A new folder; with `to="open_clip"` a new `.pt` or `.safetensors` file.
        to (`str`, defaults to `"transformers"`):
            `"transformers"` or `"open_clip"`.
        activation (`str`, *optional*):
            `"quick_gelu"` or `"gelu"`. Needed where neither the file, nor `open_clip_config.json` beside it, nor its
            name tells.
        vision_heads, text_heads (`int`, *optional*):
            Attention heads, where the widths are not those of known models and no multiples of 64.
        tokenizer (`str` or `Path`, *optional*):
            Folder or Hub repository of the tokenizer; by default OpenAI's for its vocabulary.
        with_tokenizer (`bool`, defaults to `True`):
            Whether to write a processor beside the model.
        clip (`str` or `Path`, *optional*):
            Folder or Hub repository of the CLIP that prompts belong to.
        template (`str`, defaults to `"a photo of a {}."`):
            Text of a class that prompts were trained with.
        temperature (`float`, defaults to 1000.0):
            Temperature of a codebook.
        dtype (`str`, defaults to `"float32"`):
            Type of the weights that are written.
        ignore_objects (`bool`, defaults to `False`):
            Whether to read files that hold Python objects beside their tensors; the objects are not built.

    Returns:
        [`Conversion`]

    Raises:
        CheckpointError: if the source cannot be converted, or results differ by more than 1e-4.
        ArgumentError: if an option is wrong, or needed and not given.

    Example:
        >>> import tempfile
        >>> from vlcomp.hub.conversion import convert
        >>> from vlcomp.testing import save_tiny_checkpoint
        >>> folder = tempfile.mkdtemp()
        >>> clip = save_tiny_checkpoint(folder + "/clip")
        >>> there = convert(clip, folder + "/clip.pt", to="open_clip").output
        >>> heads = {"vision_heads": 4, "text_heads": 4}
        >>> back = convert(there, folder + "/back", activation="quick_gelu", tokenizer=clip, **heads)
        >>> back.difference < 1e-5
        True
    """
    if to not in TARGETS:
        raise ArgumentError(f"to={to!r} is not one of {', '.join(map(repr, TARGETS))}")
    if activation is not None and activation not in ACTIVATIONS:
        raise ArgumentError(f"activation={activation!r} is not one of {', '.join(map(repr, ACTIVATIONS))}")
    if dtype not in _DTYPES:
        raise ArgumentError(f"dtype={dtype!r} is not one of {', '.join(map(repr, _DTYPES))}")
    if not 0 < temperature < float("inf"):
        raise ArgumentError(f"temperature={temperature} must be above 0")
    if template.count("{}") != 1:
        raise ArgumentError(f"template={template!r} needs one {{}} for the class name, as in 'a photo of a {{}}.'")
    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ArgumentError(f"output={str(output)!r} exists; name a new {'file' if to == 'open_clip' else 'folder'}")
    if to == "open_clip":
        return _to_open_clip(source, output, getattr(torch, dtype))
    weights = read_weights(source, ignore_objects=ignore_objects)
    beside = open_clip_settings(weights.path.parent)
    options = _Options(
        activation=activation or weights.activation or beside.get("activation") or _named_activation(weights.path),
        vision_heads=vision_heads or beside.get("vision_heads"),
        text_heads=text_heads or beside.get("text_heads"),
        tokenizer=tokenizer,
        with_tokenizer=with_tokenizer,
        clip=clip,
        template=template,
        temperature=temperature,
        dtype=getattr(torch, dtype),
        preprocess=beside.get("preprocess", {}),
    )
    if prompts.SIGN in weights.tensors:
        result = _convert_prompts(weights, output, options)
    elif codebook.SIGN in weights.tensors:
        result = _convert_codebook(weights, output, options)
    else:
        result = _convert_clip(weights, output, options, activation)
    if weights.ignored:
        result.notes.append(f"Objects of {', '.join(weights.ignored[:3])} in the file were not built.")
    return result


# -- a CLIP of OpenAI or open_clip


def _convert_clip(weights: Weights, output: Path, options: _Options, asked: str | None) -> Conversion:
    source = str(weights.path)
    tensors = model_weights(weights.tensors)
    found = read_architecture(tensors, vision_heads=options.vision_heads, text_heads=options.text_heads, source=source)
    if options.activation is None:
        raise ArgumentError(
            f"--activation is needed: the weights of {source} do not tell whether the model computes quick_gelu (all "
            "that started from OpenAI's weights, as fine-tuned models mostly did) or gelu (those that open_clip "
            "trained itself, as on LAION or DataComp); the wrong one lowers scores without any error"
        )
    loaded = _tokenizer(options, found.vocab_size)
    ids = {}
    if loaded is not None:
        _require_tokens(loaded, found.vocab_size, found.vocab_size - 1)
        ids = {"bos_token_id": loaded.bos_token_id, "pad_token_id": loaded.pad_token_id}
    model = build_clip(tensors, found, options.activation, **ids)
    difference = _close_enough(compare_clip(model, tensors, found, options.activation), source)
    processor = None if loaded is None else _processor(loaded, found, options.preprocess)
    _write(model, processor, output, options)
    notes = [f"Activation: {options.activation} ({_origin(asked, weights, options)}). No comparison can tell it."]
    notes += _head_note(found) + _tokenizer_note(options, output)
    return Conversion(f"CLIP ({found.describe()})", output, difference, notes)


def _origin(asked: str | None, weights: Weights, options: _Options) -> str:
    if asked:
        return "as asked for"
    if weights.activation:
        return "read in the program of the archive"
    named = _named_activation(weights.path) == options.activation
    beside = (weights.path.parent / "open_clip_config.json").is_file()
    return "from open_clip_config.json" if beside or not named else "from the name of the file"


def _named_activation(path: Path) -> str | None:
    """What the name of a file or its folder says: open_clip writes `ViT-B-32-quickgelu`."""
    name = f"{path.parent.name}/{path.name}".lower().replace("_", "").replace("-", "")
    return "quick_gelu" if "quickgelu" in name else None


def _head_note(found: Architecture) -> list[str]:
    if found.name:
        return []
    return [
        f"Attention heads: {found.vision_heads} and {found.text_heads}, which no comparison can tell either; "
        "--vision-heads and --text-heads set them."
    ]


# -- a codebook-CLIP


def _convert_codebook(weights: Weights, output: Path, options: _Options) -> Conversion:
    source = str(weights.path)
    if options.activation not in (None, codebook.ACTIVATION):
        raise ArgumentError("--activation gelu: the towers of the Iterated-CLIP authors compute quick_gelu; leave it")
    loaded = _tokenizer(options, len(weights.tensors.get("encode_text.token_embedding.weight", ())))
    model, found, unused = codebook.read_codebook(
        weights.tensors,
        temperature=options.temperature,
        vision_heads=options.vision_heads,
        text_heads=options.text_heads,
        tokens=None if loaded is None else len(loaded),
        source=source,
    )
    if loaded is not None:
        _require_tokens(loaded, found.vocab_size, model.config.text_config.eos_token_id, spare=1)
    difference, padded = codebook.compare_codebook(model, weights.tensors, found)
    _close_enough(difference, source)
    # Their test pictures: the shorter edge to 256 for 224, bilinear, ImageNet's mean and deviation.
    resize = {"size": {"shortest_edge": round(found.image_size * 256 / 224)}, "resample": 2, **_IMAGENET}
    processor = None if loaded is None else _processor(loaded, found, {}, resize)
    _write(model, processor, output, options)
    notes = [
        f"Temperature: {options.temperature:g}, which weights do not tell; --temperature sets it.",
        "The authors' code counts padding of a text as a score of 0, this model leaves it out; on the random texts "
        f"their way changes embeddings by up to {padded:.1e}.",
    ]
    if unused:
        notes.append(f"Not used by the codebook, and left out: {', '.join(unused)}.")
    if loaded is not None and found.vocab_size == len(loaded) + 1:
        notes.append("The embedding of the authors' mask token was moved behind the end token.")
    notes += _tokenizer_note(options, output)
    codes, size = model.codebook.weight.shape
    return Conversion(f"codebook-CLIP ({found.describe()}; {codes} codes of {size})", output, difference, notes)


# -- prompts


def _convert_prompts(weights: Weights, output: Path, options: _Options) -> Conversion:
    source = str(weights.path)
    kind, own = prompts.read_prompt_file(weights.tensors, source)
    if options.clip is None:
        raise ArgumentError(
            "--clip is needed: the file holds prompts; name the CLIP that they were trained on, for instance --clip "
            "openai/clip-vit-base-patch16"
        )
    try:
        clip = CLIPModel.from_pretrained(options.clip).float().eval()
    except (OSError, ValueError) as error:
        raise ArgumentError(f"--clip {str(options.clip)!r} cannot be loaded: {_first_line(error)}") from error
    loaded = _load_tokenizer(options.tokenizer or options.clip)
    compared = prompts.require_same_clip(weights.tensors, clip, str(options.clip), source)
    prompts.check_template(weights.tensors, clip, options.template, len(own["ctx"]), loaded, source)
    named = {"template": options.template, "tokenizer": loaded}
    model = prompts.build_prompted(options.clip, kind, own, source=source, **named)
    difference = _close_enough(prompts.compare_prompted(model, clip, kind, own, **named), source)
    size = clip.config.vision_config.image_size
    _write(model, _beside_clip(options.clip, loaded, size) if options.with_tokenizer else None, output, options)
    notes = []
    if kind == "comma":
        notes.append(
            "The vision prompts that COMMA's generator makes are stored as such (prompt_variant='independent'): the "
            "same embeddings, but no generator to train on."
        )
    if not compared:
        notes.append(f"The file holds no CLIP: that --clip {options.clip} is the right one was not checked.")
    notes += _tokenizer_note(options, output)
    title = "COMMA" if kind == "comma" else "MaPLe"
    text = f"{title} prompts ({len(own['ctx'])} vectors in {1 + len(own['text'])} layers, {options.template!r})"
    return Conversion(text, output, difference, notes)


def _beside_clip(clip: str | Path, tokenizer: Any, image_size: int) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(clip)
    except (OSError, ValueError):
        return new_processor(tokenizer, image_size, fit="crop")


# -- to open_clip


def _to_open_clip(source: str | Path, output: Path, dtype: torch.dtype) -> Conversion:
    if output.suffix not in (".pt", ".pth", ".bin", ".safetensors"):
        raise ArgumentError(f"output={str(output)!r} must be a file that ends in .pt or .safetensors")
    from ..checkpoints import load_dual_encoder

    if Path(source).is_file():
        raise CheckpointError(f"{source} is a file; --to open_clip takes the folder of a transformers CLIP")
    model, _ = load_dual_encoder(source)
    tensors = to_open_clip(model.state_dict())
    text, vision = model.config.text_config, model.config.vision_config
    heads = {"vision_heads": vision.num_attention_heads, "text_heads": text.num_attention_heads}
    found = read_architecture(tensors, **heads, source=str(source))
    activation = text.hidden_act
    if activation != vision.hidden_act or activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{source}: computes {text.hidden_act} and {vision.hidden_act}; open_clip knows quick_gelu or gelu, the "
            "same in both towers"
        )
    for tower, config in (("text", text), ("vision", vision)):
        if config.layer_norm_eps != 1e-5:
            raise CheckpointError(
                f"{source}: layer_norm_eps of the {tower} tower is {config.layer_norm_eps}, not 1e-5"
            )
    difference = _close_enough(compare_clip(model.float(), tensors, found, activation), str(source))
    tensors = {name: value.to(dtype).contiguous() for name, value in tensors.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".safetensors":
        save_file(tensors, output)
    else:
        torch.save(tensors, output)
    notes = []
    if found.name:
        name = found.name + ("-quickgelu" if activation == "quick_gelu" else "")
        notes.append(f"In open_clip: create_model_and_transforms({name!r}, pretrained={str(output)!r})")
    else:
        notes.append("open_clip has no architecture of these sizes by name; it needs a configuration of them.")
    return Conversion(f"CLIP ({found.describe()}, {activation})", output, difference, notes)


# -- shared


def _close_enough(difference: float, source: str) -> float:
    if not difference <= TOLERANCE:  # NaN too
        raise CheckpointError(
            f"{source}: the converted model gives other embeddings than the weights in their own layout (largest "
            f"difference {difference:.1e}, allowed {TOLERANCE:g}); nothing was written"
        )
    return difference


def _write(model: Any, processor: Any, output: Path, options: _Options) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        model.to(options.dtype).save_pretrained(output)
        if processor is not None:
            processor.save_pretrained(output)
    except OSError as error:
        raise ArgumentError(f"output={str(output)!r} cannot be written: {error.strerror or error}") from error


def _tokenizer(options: _Options, vocabulary: int) -> Any:
    if not options.with_tokenizer:
        return None
    if options.tokenizer is None and vocabulary not in _VOCABULARIES:
        raise ArgumentError(
            f"--tokenizer is needed: the model has {vocabulary} tokens, OpenAI's tokenizer {_VOCABULARIES[0]}; name a "
            "folder or Hub repository, or write the model alone with --no-tokenizer"
        )
    return _load_tokenizer(options.tokenizer or DEFAULT_TOKENIZER)


def _load_tokenizer(name: str | Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name)
    # Loaders raise many kinds of errors for a folder without a tokenizer, a name that is not there, no network.
    except Exception as error:
        raise ArgumentError(
            f"the tokenizer {str(name)!r} cannot be loaded ({_first_line(error)}); name a folder that holds OpenAI's "
            "tokenizer with --tokenizer, or write the model alone with --no-tokenizer"
        ) from error


def _require_tokens(tokenizer: Any, vocabulary: int, end: int, spare: int = 0) -> None:
    if not vocabulary - spare <= len(tokenizer) <= vocabulary or tokenizer.eos_token_id != end:
        raise ArgumentError(
            f"--tokenizer {tokenizer.name_or_path!r} has {len(tokenizer)} tokens and ends texts with token "
            f"{tokenizer.eos_token_id}; the model has {vocabulary} tokens and pools at token {end}"
        )


def _processor(tokenizer: Any, found: Architecture, preprocess: Mapping[str, Any], own: Any = None) -> Any:
    if tokenizer.model_max_length > found.positions:
        tokenizer.model_max_length = found.positions
    squash = preprocess.get("resize_mode") == "squash"
    processor = new_processor(tokenizer, found.image_size, fit="squash" if squash else "crop")
    settings = {}
    if "mean" in preprocess and "std" in preprocess:
        settings = {"image_mean": list(preprocess["mean"]), "image_std": list(preprocess["std"])}
    if preprocess.get("interpolation") in _INTERPOLATIONS:
        settings["resample"] = _INTERPOLATIONS[preprocess["interpolation"]]
    image_processor = type(processor.image_processor)(
        **{**processor.image_processor.to_dict(), **settings, **(own or {})}
    )
    return type(processor)(image_processor=image_processor, tokenizer=tokenizer)


def _tokenizer_note(options: _Options, output: Path) -> list[str]:
    if options.with_tokenizer:
        name = options.tokenizer or options.clip or DEFAULT_TOKENIZER
        return [f"Tokenizer: from {name}, written to {output} with the settings for pictures."]
    return ["No tokenizer was written; evaluate and train need a processor in the folder."]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
