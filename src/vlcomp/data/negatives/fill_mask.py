"""Replacement words proposed by a masked language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import ArgumentError
from .edits import Change, Draw, Edit, apply
from .tables import ADJECTIVES, NOUN_FORMS, VERB_FORMS, related, same_stem
from .tagging import Sentence, TaggingFunction, parse

_TOP = 40


class Proposer:
    """Lets a `fill-mask` model choose the word of an edit that replaces one word.

    Args:
        model (`str` or callable):
            Name or folder of a model, or a transformers `fill-mask` pipeline.

    Raises:
        ArgumentError: if the model cannot be loaded or has no mask token.
    """

    def __init__(self, model: str | Callable[..., Any]) -> None:
        if isinstance(model, str):
            from transformers import pipeline

            try:
                model = pipeline("fill-mask", model=model)
            except Exception as error:  # from a missing folder to a model without such a head, in many classes
                raise ArgumentError(f"fill_mask={model!r} cannot be loaded as a fill-mask model: {error}") from error
        self.model = model
        self.mask = getattr(getattr(model, "tokenizer", None), "mask_token", None)
        if not self.mask:
            raise ArgumentError(f"fill_mask is {type(model).__name__}, whose tokenizer has no mask token")

    def __call__(self, sentence: Sentence, edit: Edit, draw: Draw, tagger: TaggingFunction) -> Edit | None:
        """Replace the word of the edit by one that the model proposes.

        Args:
            sentence ([`Sentence`]):
                The caption.
            edit ([`Edit`]):
                An edit that replaces one word; its new word is not used.
            draw ([`Draw`]):
                Random numbers.
            tagger (`Callable`):
                The tagger of the generator.

        Returns:
            [`Edit`] or `None`: nothing if no proposal has the word's part of speech and number and differs from it.
        """
        [change] = edit.changes
        token = sentence.tokens[change.start]
        text = sentence.text[: token.start] + self.mask + sentence.text[token.end :]
        present = {other.word for other in sentence.tokens}
        found = []
        for proposal in self.model(text, top_k=_TOP):
            word = proposal["token_str"].strip().lower()
            if word.isalpha() and word not in present and self._fits(sentence, change.start, word, tagger):
                found.append((word, float(proposal["score"])))
        new = draw.weighted(found)
        if new is None:
            return None
        return Edit((Change(change.start, change.end, new),), edit.old, new)

    @staticmethod
    def _fits(sentence: Sentence, index: int, word: str, tagger: TaggingFunction) -> bool:
        old = sentence.tokens[index]
        if same_stem(old.word, word):
            return False
        edited = parse(apply(sentence, Edit((Change(index, index + 1, word),), "", "")), tagger)
        if len(edited.tokens) != len(sentence.tokens):
            return False
        new = edited.tokens[index]
        if new.code != old.code or (new.noun is None) != (old.noun is None):
            return False
        if old.noun is not None:
            return old.noun.plural == new.noun.plural and not related(old.noun.lemma, new.noun.lemma)
        if old.word in ADJECTIVES and word in ADJECTIVES:
            return ADJECTIVES[old.word] != ADJECTIVES[word]
        if old.word in VERB_FORMS and word in VERB_FORMS:
            first, second = VERB_FORMS[old.word], VERB_FORMS[word]
            return first.form == second.form and not set(first.groups) & set(second.groups)
        return word not in NOUN_FORMS
