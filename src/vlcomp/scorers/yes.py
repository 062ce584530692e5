"""An LVLM as a scorer of pairs: how likely it says yes when asked whether an image shows a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import ArgumentError, CheckpointError
from ..models.shared_prefix import Prefixes, last_hidden_states
from .base import EXAMPLE, LVLMScorer

QUESTION = 'Does this image show "{}"? Answer Yes or No.'
SCORES = ("log_odds", "probability")
# How vocabularies write the space before a word.
_SPACES = ("Ġ", "▁")


class YesScorer(LVLMScorer):
    """Scores an image and a caption by the probability of "Yes" against "No" after a question (as VQAScore does).

    Works with every LVLM of transformers that reads an image as tokens of a causal language model, and with a
    [`DiscriminativeLVLMModel`], whose adapters are switched off: asked is the LVLM as it was. What stands before a
    caption, the image above all, is read once for all captions of the image, and its keys and values are shared; the
    scores are those of reading each pair by itself. The language head is computed at the end of each pair only.

    A pair scorer for [`~vlcomp.evaluate`]: give it in the place of a model, or pass `scorer="yes"`.

    Args:
        model (`PreTrainedModel`):
            The LVLM.
        processor (`ProcessorMixin`):
            Has a `tokenizer`, an `image_processor` and a chat template.
        question (`str`, *optional*):
            Text with `{}` once, for the caption. By default `QUESTION`.
        yes (`Sequence[str]`, defaults to `("Yes", "yes", "YES")`):
            Words that mean yes. Each counts with and without a space before it, where that is one token.
        no (`Sequence[str]`, defaults to `("No", "no", "NO")`):
            Words that mean no.
        output (`str`, defaults to `"log_odds"`):
            `"log_odds"`, log P(Yes) - log P(No), which tells apart what lies close to 0 or 1 too; or `"probability"`,
            P(Yes) / (P(Yes) + P(No)). Both put pairs in the same order.
        **settings:
            `batch_size`, `device`, `dtype`, `fit`, `num_workers`, `progress` and `name` as in [`LVLMScorer`].

    Raises:
        ArgumentError: for a question without a place for the caption, or a setting out of range.
        CheckpointError: if the model is no such LVLM, the processor lacks a part, or the tokenizer has no single token
            for yes or for no.

    Reference:
        Lin et al. 2024 (ECCV, arXiv 2404.01291, VQAScore).

    Deviations:
        VQAScore takes P(Yes) among all tokens; here it is set against P(No), so that words which are neither do not
        count.

    Example:
        >>> from vlcomp.testing import tiny_images, tiny_llava, tiny_lvlm_processor
        >>> from vlcomp.scorers import YesScorer
        >>> scorer = YesScorer(tiny_llava(), tiny_lvlm_processor("llava"), question='Is it "{}"?', yes="a", no="b")
        >>> image = tiny_images(1)[0]
        >>> scorer.score_pairs([image, image], ["a red cup", "a blue star"]).shape
        torch.Size([2])
    """

    kind, asks = "yes", "question"

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        question: str | None = None,
        yes: str | Sequence[str] = ("Yes", "yes", "YES"),
        no: str | Sequence[str] = ("No", "no", "NO"),
        output: str = "log_odds",
        **settings: Any,
    ) -> None:
        self.check(question)
        if output not in SCORES:
            raise ArgumentError(f"output={output!r} is not one of {', '.join(map(repr, SCORES))}")
        self.question = QUESTION if question is None else question
        self.yes, self.no = ([words] if isinstance(words, str) else list(words) for words in (yes, no))
        self.output = output
        super().__init__(model, processor, **settings)
        self._yes, self._no = self._answers("yes", self.yes), self._answers("no", self.no)
        both = set(self._yes) & set(self._no)
        if both:
            raise ArgumentError(f"yes={self.yes} and no={self.no} have a token in common, {both.pop()}")

    @staticmethod
    def check(asked: str | None) -> None:
        """Refuse a question that has no place for the caption.

        Args:
            asked (`str`, *optional*):
                The question; `None` for the default one.

        Raises:
            ArgumentError: if it is no text with `{}` once.
        """
        if asked is not None and (not isinstance(asked, str) or asked.count("{}") != 1):
            raise ArgumentError(
                f"question={asked!r} must be a text with {{}} once, for the caption, as in {QUESTION!r}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on beside the weights, for a results file."""
        return {"question": self.question, "yes": self.yes, "no": self.no, "output": self.output}

    def _answers(self, argument: str, words: Sequence[str]) -> list[int]:
        """Tokens that begin and end an answer."""
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise ArgumentError(f"{argument}={words!r} must be one or more words")
        # Which of them is due depends on what the chat ends in: a colon, a line break, a special token.
        known = self.tokenizer.get_vocab()
        found = {known[start + word] for word in words for start in ("", *_SPACES) if start + word in known}
        for word in words:  # letters beyond ASCII stand otherwise in a vocabulary of bytes
            for text in (word, f" {word}"):
                ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
                if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id:
                    found.add(ids[0])
        if not found:
            raise CheckpointError(
                f"{self.name}: the tokenizer has no single token for {' or '.join(map(repr, words))}, so the "
                f"probability of {argument} as the next token cannot be read off; give YesScorer words that it has "
                f"({argument}=[...]), or score with embeddings"
            )
        return sorted(found)

    def _around(self) -> tuple[str, str]:
        question = self.question.replace("{}", EXAMPLE)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self._placed([{"role": "user", "content": content}], "question", add_generation_prompt=True)

    def _shared(self, chats: Sequence[Sequence[int]]) -> int:
        return _common(chats)

    def _score(self, prefixes: Prefixes, owners: list[int], rests: list[list[int]]) -> torch.Tensor:
        hidden = last_hidden_states(self.lvlm, prefixes, owners, rests)
        logits = self.lvlm.get_output_embeddings()(hidden).float()
        odds = (logits[:, self._yes].logsumexp(dim=1) - logits[:, self._no].logsumexp(dim=1)).cpu()
        return odds.sigmoid() if self.output == "probability" else odds


def _common(chats: Sequence[Sequence[int]]) -> int:
    """How many tokens chats have in common at their start; each keeps at least one of its own."""
    shared = 0
    for tokens in zip(*(chat[:-1] for chat in chats), strict=False):
        if len(set(tokens)) > 1:
            break
        shared += 1
    return shared


__all__ = ["QUESTION", "YesScorer"]
