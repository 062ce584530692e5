"""An LVLM as a scorer of pairs: how likely it is to describe an image by a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import ArgumentError, CheckpointError
from ..models.shared_prefix import Prefixes, continued_hidden_states
from .base import EXAMPLE, LVLMScorer

INSTRUCTION = "Describe the image briefly."
OUTPUTS = ("sum", "mean")
# Rows of logits over the vocabulary that are held at a time.
_ROWS = 512


class LikelihoodScorer(LVLMScorer):
    """Scores an image and a caption by log P(caption | image), the caption being the answer to an instruction.

    What a model knows of who is which often shows here when the cosine of its embeddings does not tell. But a caption
    that reads well is likely before any image: look at what a text-only scorer gets on the same items (`vlcomp
    evaluate` prints it beside), and rank images for a caption, not captions of different length for an image.

    Counted are the tokens of the caption and the token that ends an answer, if the tokenizer has one. What stands
    before the caption is read once for all captions of an image, and its keys and values are shared.

    A pair scorer for [`~vlcomp.evaluate`]: give it in the place of a model, or pass `scorer="likelihood"`.

    Args:
        model (`PreTrainedModel`):
            The LVLM.
        processor (`ProcessorMixin`):
            Has a `tokenizer`, an `image_processor` and a chat template.
        instruction (`str`, *optional*):
            What the model is asked for. By default `INSTRUCTION`.
        output (`str`, defaults to `"sum"`):
            `"sum"`, the log-likelihood; or `"mean"`, that of a token on average, which does not favour short captions.
        **settings:
            `batch_size`, `device`, `dtype`, `fit`, `num_workers`, `progress` and `name` as in [`LVLMScorer`].

    Raises:
        ArgumentError: for an empty instruction, or a setting out of range.
        CheckpointError: if the model is no such LVLM, or the processor lacks a part.

    Reference:
        Lin et al. 2024 (ICML, arXiv 2306.01879, VisualGPTScore), eq. 1.

    Deviations:
        The language prior P(caption) is not divided out.

    Example:
        >>> from vlcomp.scorers import LikelihoodScorer
        >>> from vlcomp.testing import tiny_images, tiny_llava, tiny_lvlm_processor
        >>> scorer = LikelihoodScorer(tiny_llava(), tiny_lvlm_processor("llava"))
        >>> image = tiny_images(1)[0]
        >>> bool((scorer.score_pairs([image, image], ["a red cup", "a blue star"]) < 0).all())
        True
    """

    kind, asks = "likelihood", "instruction"

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        instruction: str | None = None,
        output: str = "sum",
        **settings: Any,
    ) -> None:
        self.check(instruction)
        if output not in OUTPUTS:
            raise ArgumentError(f"output={output!r} is not one of {', '.join(map(repr, OUTPUTS))}")
        self.instruction = INSTRUCTION if instruction is None else instruction
        self.output = output
        super().__init__(model, processor, **settings)
        # A space before the caption belongs to its first token.
        asked = self.tokenizer(self._before.rstrip(" "), add_special_tokens=False)["input_ids"]
        self._asked = [*self._start, *asked]

    @staticmethod
    def check(asked: str | None) -> None:
        """Refuse an instruction that says nothing, or has a place for a caption.

        Args:
            asked (`str`, *optional*):
                The instruction; `None` for the default one.

        Raises:
            ArgumentError: if it is no text, or has `{}`.
        """
        if asked is None:
            return
        if not isinstance(asked, str) or not asked.strip() or "{}" in asked:
            raise ArgumentError(
                f"instruction={asked!r} must be a text without {{}}, as in {INSTRUCTION!r}: the caption is the "
                "answer to it"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on beside the weights, for a results file."""
        return {"instruction": self.instruction, "output": self.output}

    def _around(self) -> tuple[str, str]:
        content = [{"type": "image"}, {"type": "text", "text": self.instruction}]
        answer = [{"type": "text", "text": EXAMPLE}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        # What a template writes behind an answer differs; the token that ends one is put there by its number.
        return self._placed(messages, "answer")[0], ""

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        chats, asked = super()._tokens(texts), self._asked
        for text, ids in zip(texts, chats, strict=True):
            if ids[: len(asked)] != asked:
                raise CheckpointError(
                    f"{self.name}: the tokenizer joins the beginning of {text!r} to what the chat puts before it "
                    f"({self._before[-20:]!r}), so the caption has no likelihood of its own"
                )
        end = self.tokenizer.eos_token_id
        return chats if end is None else [[*ids, end] for ids in chats]

    def _shared(self, chats: Sequence[Sequence[int]]) -> int:
        return len(self._asked) - 1  # the first token of a caption is predicted at the last one before it

    def _score(self, prefixes: Prefixes, owners: list[int], rests: list[list[int]]) -> torch.Tensor:
        hidden = continued_hidden_states(self.lvlm, prefixes, owners, rests)
        sizes = torch.tensor([len(rest) - 1 for rest in rests])
        rows = torch.arange(len(rests)).repeat_interleave(sizes)
        hidden = torch.cat([part[: len(rest) - 1] for part, rest in zip(hidden, rests, strict=True)])
        wanted = torch.tensor([token for rest in rests for token in rest[1:]], device=hidden.device)
        head = self.lvlm.get_output_embeddings()
        found = []
        for start in range(0, len(wanted), _ROWS):
            logits = head(hidden[start : start + _ROWS]).float()
            chosen = logits.gather(1, wanted[start : start + _ROWS, None].to(logits.device))[:, 0]
            found.append((chosen - logits.logsumexp(dim=1)).cpu())
        scores = torch.zeros(len(rests)).index_add_(0, rows, torch.cat(found))
        return scores / sizes if self.output == "mean" else scores


__all__ = ["INSTRUCTION", "LikelihoodScorer"]
