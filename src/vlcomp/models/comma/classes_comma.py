"""Class names as token ids, and what keeps texts from being encoded again."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .configuration_comma import check_template


@dataclass(frozen=True)
class ClassTexts:
    """Texts of a set of classes.

    Args:
        names (`tuple[str, ...]`):
            The classes.
        input_ids (`torch.LongTensor` of shape `(classes, length)`):
            Tokens, padded to the longest.
        attention_mask (`torch.LongTensor` of shape `(classes, length)`):
            1 for tokens, 0 for padding.
    """

    names: tuple[str, ...]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Refuse names that cannot be told apart, or are none.

    Args:
        names (`Sequence[str]`):
            Names of the classes.

    Returns:
        `tuple[str, ...]`: the names without white space around them.

    Raises:
        ValueError: names the first name at fault and its place.
    """
    if isinstance(names, str):
        raise ValueError(f"names={names!r} is one string; pass a list of class names")
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"names[{place}]={name!r} must be a string with a class name")
        if name.strip() in seen:
            raise ValueError(
                f"names[{place}]={name!r} is also names[{seen[name.strip()]}]; each class needs a name of its own"
            )
        seen[name.strip()] = place
    if not seen:
        raise ValueError("names is empty; pass at least one class name")
    return tuple(seen)


def class_texts(names: Sequence[str], template: str, tokenizer: Any, limit: int, what: str) -> ClassTexts:
    """Tokenize the texts of classes.

    Args:
        names (`Sequence[str]`):
            As [`check_names`] gives them.
        template (`str`):
            Text with one `{}`.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer of the CLIP.
        limit (`int`):
            Tokens that a text may have, start and end included.
        what (`str`):
            The argument that gave the template, for messages.

    Returns:
        [`ClassTexts`]

    Raises:
        ValueError: if a text is too long, or two classes give the same tokens.
    """
    check_template(what, template)
    rows = tokenizer([template.replace("{}", name) for name in names], padding=False, truncation=False)["input_ids"]
    seen: dict[tuple[int, ...], int] = {}
    for place, row in enumerate(rows):
        if len(row) > limit:
            raise ValueError(
                f"names[{place}]={names[place]!r} in {what}={template!r} gives {len(row)} tokens, but the text tower "
                f"has room for {limit} beside the prompts; shorten the name or the template"
            )
        first = seen.setdefault(tuple(row), place)
        if first != place:
            raise ValueError(
                f"names[{place}]={names[place]!r} has the same tokens as names[{first}]={names[first]!r}; each class "
                "needs a name that the tokenizer tells apart"
            )
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    input_ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    attention_mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ClassTexts(tuple(names), input_ids, attention_mask)


def text_lengths(input_ids: torch.Tensor, eos_token_id: int) -> torch.Tensor:
    """Count the tokens up to the one where CLIP pools.

    Args:
        input_ids (`torch.LongTensor` of shape `(texts, length)`):
            Texts, padded on the right.
        eos_token_id (`int`):
            `text_config.eos_token_id`; for 2, the legacy value of OpenAI's checkpoints, CLIP pools at the highest id.

    Returns:
        `torch.LongTensor` of shape `(texts,)`: the whole length for a text without an end.
    """
    if eos_token_id == 2:
        return input_ids.argmax(dim=-1) + 1
    ends = input_ids == eos_token_id
    return torch.where(ends.any(dim=-1), ends.int().argmax(dim=-1) + 1, input_ids.shape[-1])


def content(tensors: Sequence[torch.Tensor]) -> bytes:
    """Read the bytes of small tensors.

    The version counter of a tensor does not know of changes through `.data` nor of those by some fused optimisers;
    its content does.

    Args:
        tensors (`Sequence[torch.Tensor]`):
            Prompts.

    Returns:
        `bytes`: empty if there are none.
    """
    if not tensors:
        return b""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    return flat.contiguous().view(torch.uint8).cpu().numpy().tobytes()


def versions(tensors: Sequence[torch.Tensor]) -> tuple[Hashable, ...]:
    """Where tensors lie and how often they were changed in place; for weights too large to compare.

    Args:
        tensors (`Sequence[torch.Tensor]`):
            Weights.

    Returns:
        `tuple`
    """
    # Tensors made in inference mode count no versions.
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype) for t in tensors)


class TextCache:
    """The last value of each kind, as long as what it was made from stays as it was."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Hashable, tuple[torch.Tensor | None, ...], Any]] = {}

    def get(self, kind: str, state: Hashable, inputs: tuple[torch.Tensor | None, ...]) -> Any:
        """Look a value up.

        Args:
            kind (`str`):
                Which one.
            state (`Hashable`):
                Of the model, now.
            inputs (`tuple[torch.Tensor | None, ...]`):
                What is to be encoded.

        Returns:
            The value, or `None` if there is none for this state and these inputs.
        """
        entry = self._entries.get(kind)
        if entry is None or entry[0] != state or not all(map(_same, entry[1], inputs)):
            return None
        return entry[2]

    def put(self, kind: str, state: Hashable, inputs: tuple[torch.Tensor | None, ...], value: Any) -> None:
        """Keep a value in place of the last one of its kind.

        Args:
            kind (`str`):
                Which one.
            state (`Hashable`):
                Of the model when it was made.
            inputs (`tuple[torch.Tensor | None, ...]`):
                What it was made from.
            value:
                What to keep.
        """
        kept = tuple(None if given is None else given.clone() for given in inputs)
        self._entries[kind] = (state, kept, value)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def _same(kept: torch.Tensor | None, given: torch.Tensor | None) -> bool:
    if kept is None or given is None:
        return kept is given
    return kept.device == given.device and kept.dtype == given.dtype and torch.equal(kept, given)


__all__ = ["ClassTexts", "TextCache", "check_names", "class_texts", "content", "text_lengths", "versions"]
