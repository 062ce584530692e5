"""Prompts that the code of MaPLe and COMMA saved (`.pth.tar` files of Dassl), as a [`CommaModel`]."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPModel

from ..errors import ArgumentError, CheckpointError
from ..models.comma import CommaModel
from .architecture import Architecture, Tensors, read_architecture, some
from .layout_forward import encode_image, encode_text
from .open_clip import largest_difference, random_inputs, to_open_clip

SIGN = "prompt_learner.ctx"
_PREFIX = "prompt_learner."
# Embeddings of the class names of the training run, which their code ignores when it loads a file.
_CLASS_TOKENS = ("token_prefix", "token_suffix")
_ATTENTION = {"fc": "fc", "ln": "ln", "mlp.0": "down", "mlp.2": "up"}
_CLASSES = ("cat", "car", "dog", "house")


def read_prompt_file(tensors: Tensors, source: str) -> tuple[str, dict[str, torch.Tensor]]:
    """The learned tensors of a file, and the method that it belongs to.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            What the file holds; beside the prompts it may be the whole CLIP.
        source (`str`):
            What to call it in messages.

    Returns:
        `tuple[str, dict[str, torch.Tensor]]`: `"maple"` or `"comma"`, and float32 tensors without their prefix; the
        prompts of deeper layers are stacked as `"text"` `(layers, n_ctx, width)`.

    Raises:
        CheckpointError: if it is neither, or tensors are missing or do not fit each other.
    """
    own = {name[len(_PREFIX) :]: value.float() for name, value in tensors.items() if name.startswith(_PREFIX)}
    own = {name: value for name, value in own.items() if name not in _CLASS_TOKENS}
    kind = "comma" if "compound_prompt_projections_image_base.fc.weight" in own else "maple"
    if kind == "comma":
        deeper = own.get("compound_prompts_text", torch.empty(0, 0, 0))
        depth = 1 + len(deeper)
        # compound_prompts_image is no parameter of its own: their code overwrites it in every step.
        wanted = ["ctx", "proj.weight", "proj.bias", "compound_prompts_text", "compound_prompts_image"]
        steps = ["_base", *(f".{index}" for index in range(depth - 2))]
        wanted += [
            f"compound_prompt_projections_image{step}.{layer}.{part}"
            for step in steps
            for layer in _ATTENTION
            for part in ("weight", "bias")
        ]
    else:
        found = sorted(
            int(name.rsplit(".", 1)[1]) for name in own if re.fullmatch(r"compound_prompts_text\.\d+", name)
        )
        wanted = ["ctx", "proj.weight", "proj.bias"]
        for index in range(1 + max(found, default=-1)):
            wanted += [f"compound_prompts_text.{index}"]
            wanted += [f"compound_prompt_projections.{index}.{part}" for part in ("weight", "bias")]
    missing, extra = [name for name in wanted if name not in own], [name for name in own if name not in wanted]
    if missing or extra:
        parts = [f"lacks {some(missing)}"] * bool(missing) + [f"has {some(extra)}"] * bool(extra)
        raise CheckpointError(
            f"{source}: its prompt_learner {' and '.join(parts)}; these are no prompts of MaPLe or COMMA"
        )
    if own["ctx"].ndim != 2:
        raise CheckpointError(
            f"{source}: prompt_learner.ctx has shape {list(own['ctx'].shape)}: prompts of single classes cannot be "
            "converted; expected [n_ctx, width]"
        )
    if kind == "maple":
        layers = [own.pop(f"compound_prompts_text.{index}") for index in range((len(wanted) - 3) // 3)]
        own["text"] = torch.stack(layers) if layers else own["ctx"].new_empty(0, *own["ctx"].shape)
    else:
        own["text"] = own.pop("compound_prompts_text")
    if own["text"].shape[1:] != own["ctx"].shape:
        raise CheckpointError(f"{source}: prompts of deeper layers have another shape than prompt_learner.ctx")
    return kind, own


def text_and_vision_prompts(kind: str, own: Tensors) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The prompts of every layer, as the authors' code computes them for testing.

    Args:
        kind (`str`):
            `"maple"` or `"comma"`.
        own (`Mapping[str, torch.Tensor]`):
            From [`read_prompt_file`].

    Returns:
        `tuple[list[torch.Tensor], list[torch.Tensor]]`: text prompts and vision prompts.
    """
    text = [own["ctx"], *own["text"]]
    vision = [_linear(own, "proj", own["ctx"])]
    for index, prompt in enumerate(text[1:]):
        if kind == "maple":
            vision.append(_linear(own, f"compound_prompt_projections.{index}", prompt))
            continue
        step = f"compound_prompt_projections_image{'_base' if index == 0 else f'.{index - 1}'}"
        keys = _linear(own, f"{step}.fc", text[index])  # of the layer before
        weights = (vision[-1] @ keys.T / keys.shape[-1] ** 0.5).softmax(dim=-1)
        mixed = torch.nn.functional.layer_norm(
            weights @ keys, keys.shape[-1:], own[f"{step}.ln.weight"], own[f"{step}.ln.bias"]
        )
        vision.append(_linear(own, f"{step}.mlp.2", _linear(own, f"{step}.mlp.0", mixed).relu()))
    return text, vision


def build_prompted(
    clip: str | Path, kind: str, own: Tensors, *, template: str, tokenizer: Any, source: str
) -> CommaModel:
    """Put prompts of a file into a CLIP.

    MaPLe's become a model of the variant `"maple"`. COMMA's become one of the variant `"independent"`, which holds the
    vision prompts that their generator makes: it maps the first layer's prompts by another matrix than the later ones,
    for which [`CommaModel`] has no place. What the model computes is the same; a generator to train on is not there.

    Args:
        clip (`str` or `Path`):
            Folder or Hub repository of the CLIP that the prompts were trained on.
        kind (`str`):
            `"maple"` or `"comma"`.
        own (`Mapping[str, torch.Tensor]`):
            From [`read_prompt_file`].
        template (`str`):
            Text of a class with one `{}`; prompts take the place of its first words.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer of the CLIP.
        source (`str`):
            What to call the file in messages.

    Returns:
        [`CommaModel`]

    Raises:
        CheckpointError: if the prompts do not fit the CLIP.
    """
    text, vision = text_and_vision_prompts(kind, own)
    try:
        model = CommaModel.from_clip(
            clip,
            prompt_variant="maple" if kind == "maple" else "independent",
            n_ctx=len(own["ctx"]),
            prompt_depth=len(text),
            template=template,
            ctx_init="random",
            tokenizer=tokenizer,
        ).float()
    except (ValueError, OSError) as error:
        raise CheckpointError(f"--clip {str(clip)!r} does not take the prompts of {source}: {error}") from error
    parts = {f"text.{index}": prompt for index, prompt in enumerate(text)}
    if kind == "maple":
        names = ["proj", *(f"compound_prompt_projections.{index}" for index in range(len(text) - 1))]
        for index, name in enumerate(names):
            parts |= {f"projections.{index}.{part}": own[f"{name}.{part}"] for part in ("weight", "bias")}
    else:
        parts |= {f"vision.{index}": prompt for index, prompt in enumerate(vision)}
    shapes = {name: tuple(value.shape) for name, value in model.prompts.state_dict().items()}
    wrong = [name for name, shape in shapes.items() if name not in parts or tuple(parts[name].shape) != shape]
    if wrong:
        raise CheckpointError(
            f"{source}: its prompts belong to a CLIP of other widths than --clip {str(clip)!r} ({some(wrong)})"
        )
    model.prompts.load_state_dict(parts)
    return model.eval()


def require_same_clip(tensors: Tensors, clip: CLIPModel, clip_name: str, source: str) -> bool:
    """See that a file that holds the CLIP beside the prompts holds the same one.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            What the file holds.
        clip (`CLIPModel`):
            The CLIP that was named.
        clip_name (`str`):
            Its name.
        source (`str`):
            What to call the file in messages.

    Returns:
        `bool`: whether there was anything to compare.

    Raises:
        CheckpointError: if weights differ by more than half precision explains.
    """
    mine = to_open_clip(clip.state_dict())
    compared = False
    for name, value in tensors.items():
        for theirs, layout in (("image_encoder.", "visual."), ("text_encoder.", "")):
            own = mine.get(layout + name[len(theirs) :]) if name.startswith(theirs) else None
            if own is None:
                continue
            compared = True
            fits = own.shape == value.shape
            if not fits or not torch.allclose(own.float(), value.float(), rtol=2e-3, atol=1e-4):
                raise CheckpointError(
                    f"{source} holds prompts trained on another CLIP than --clip {clip_name!r}: {name} differs"
                )
    return compared


def compare_prompted(
    model: CommaModel, clip: CLIPModel, kind: str, own: Tensors, *, template: str, tokenizer: Any, seed: int = 0
) -> float:
    """Compare a converted model with what the weights of CLIP and file compute, on images and class names.

    Args:
        model ([`CommaModel`]):
            The converted model.
        clip (`CLIPModel`):
            The CLIP without prompts.
        kind (`str`):
            `"maple"` or `"comma"`.
        own (`Mapping[str, torch.Tensor]`):
            From [`read_prompt_file`].
        template (`str`):
            Text of a class.
        tokenizer (`PreTrainedTokenizerBase`):
            Of the CLIP.
        seed (`int`, defaults to 0):
            Seed of the images.

    Returns:
        `float`: the largest difference between L2-normalised embeddings.
    """
    tensors = {name: value.float() for name, value in to_open_clip(clip.state_dict()).items()}
    found = _sizes(clip, tensors)
    activation = clip.config.text_config.hidden_act
    text, vision = text_and_vision_prompts(kind, own)
    pixels, _, _ = random_inputs(found, clip.config.text_config, seed=seed)
    # Their code tokenizes the whole sentence and puts prompts over its first tokens.
    sentences = [template.format(name) for name in _CLASSES]
    rows = tokenizer(sentences, padding="max_length", max_length=found.positions, truncation=True)["input_ids"]
    ids = torch.tensor(rows)
    ends = (ids == tokenizer.eos_token_id).int().argmax(dim=1, keepdim=True)
    ids = torch.where(torch.arange(ids.shape[1]) <= ends, ids, 0)
    with torch.no_grad():
        theirs = [
            encode_image(tensors, pixels, found.vision_heads, activation, vision),
            encode_text(tensors, ids, found.text_heads, activation, text),
        ]
        model.set_classes(list(_CLASSES), template=template, tokenizer=tokenizer)
        ours = [
            model.get_image_features(pixel_values=pixels).pooler_output,
            model.encode_classes().text_embeds,
        ]
    return largest_difference(ours, theirs)


def check_template(tensors: Tensors, clip: CLIPModel, template: str, n_ctx: int, tokenizer: Any, source: str) -> None:
    """See that the class texts that a file holds are those of the template.

    The file holds the embeddings of what followed the prompts in training, so that their tokens can be told.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            What the file holds.
        clip (`CLIPModel`):
            The CLIP that the prompts were trained on.
        template (`str`):
            Text of a class.
        n_ctx (`int`):
            How many tokens the prompts replace.
        tokenizer (`PreTrainedTokenizerBase`):
            Of the CLIP.
        source (`str`):
            What to call the file in messages.

    Raises:
        ArgumentError: if the template does not begin and end as the texts in the file.
    """
    suffix = tensors.get(f"{_PREFIX}token_suffix")
    words = clip.text_model.embeddings.token_embedding.weight.detach().float()
    if suffix is None or suffix.ndim != 3 or suffix.shape[-1] != words.shape[-1]:
        return
    near = torch.cdist(suffix[0].float(), words).argmin(dim=1).tolist()
    near = near[: near.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in near else near
    before, after = (tokenizer(part.strip(), add_special_tokens=False)["input_ids"] for part in template.split("{}"))
    before = before[n_ctx:]
    if near[: len(before)] != before or (after and near[-len(after) :] != after):
        raise ArgumentError(
            f"--template {template!r} is not what the prompts of {source} were trained with: after them stood "
            f"{tokenizer.decode(near)!r}; name the whole text of a class, with {{}} for its name"
        )


def _sizes(clip: CLIPModel, tensors: Tensors) -> Architecture:
    config = clip.config
    return read_architecture(
        tensors,
        vision_heads=config.vision_config.num_attention_heads,
        text_heads=config.text_config.num_attention_heads,
        source="the CLIP",
    )


def _linear(own: Tensors, name: str, hidden: torch.Tensor) -> torch.Tensor:
    return hidden @ own[f"{name}.weight"].T + own[f"{name}.bias"]
