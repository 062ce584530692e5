"""`NegativeGenerator` and `generate_negatives`: false captions that differ from true ones by a word."""

from __future__ import annotations

import gc
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._version import __version__
from ...errors import ArgumentError, DataError
from . import adding, prepositions, replacing, swapping, verbs
from .edits import Draw, Edit, apply
from .lexicon import Lexicon
from .tagging import Sentence, TaggingFunction, make_tagger, parse

Rule = Callable[[Sentence, Lexicon, Draw], "Edit | None"]
_Made = tuple[str, str, str, str, str]  # text, type, rule, word before, word after

RULES_VERSION = 3  # raise it with any change that gives other negatives for the same seed

RULES: dict[str, Rule] = {
    "replace_object": replacing.replace_object,
    "replace_attribute": replacing.replace_attribute,
    "replace_relation": prepositions.replace_relation,
    "swap_object": swapping.swap_phrases,
    "swap_attribute": swapping.swap_attributes,
    "add_object": adding.add_object,
    "add_attribute": adding.add_attribute,
    "relation": swapping.swap_nouns,
    "attribute": replacing.replace_attribute,
    "object": replacing.replace_object,
    "action": verbs.replace_action,
    "negation": adding.negate,
}
TYPE_SETS: dict[str, tuple[str, ...]] = {
    "paper": ("relation", "attribute", "object", "action"),
    "default": ("relation", "attribute", "object", "action", "replace_relation", "swap_attribute"),
    "sugarcrepe": (
        "replace_object",
        "replace_attribute",
        "replace_relation",
        "swap_object",
        "swap_attribute",
        "add_object",
        "add_attribute",
    ),
    "all": tuple(RULES),
}
_TRIES = 16  # if what a rule makes is a true caption of the image
_CHUNK = 500
_FIT_CHUNK = 10_000


@dataclass(frozen=True)
class Negative:
    """A false caption.

    Args:
        text (`str`):
            The caption.
        type (`str`):
            One of [`~vlcomp.data.NEGATIVE_TYPES`].
        source (`dict`):
            Where it comes from: `rule`, `seed`, `version`, and what was changed `from` and `to`.
    """

    text: str
    type: str
    source: dict[str, Any]


class NegativeGenerator:
    """Makes negatives of captions, from what a corpus of captions has taught it.

    Learned once with [`~NegativeGenerator.fit`], it is called caption by caption, so negatives can be made while
    training: in a collator, by `dataset.map(generator.add_columns, batched=True)` or `dataset.set_transform`. It can
    be sent to worker processes.

    Args:
        types (`str` or `Sequence[str]`, defaults to `"default"`):
            Types of [`~vlcomp.data.NEGATIVE_TYPES`], or one of

            - `"paper"`: relation (two nouns swapped), attribute, object and action (a word replaced), as in
              IMC/CMR-CLIP;
            - `"default"`: these, spatial prepositions replaced and attributes swapped. None of them makes a caption
              longer or puts in words that true captions lack;
            - `"sugarcrepe"`: the seven of SugarCrepe;
            - `"all"`: also negation. Words like "no" stand in few true captions, so a text tower can learn them alone.
        seed (`int`, defaults to 0):
            Same seed, caption and corpus, same negatives.
        tagger (`str` or callable, defaults to `"textblob"`):
            `"textblob"` (offline, no download), `"spacy"` or `"spacy:<model>"` if installed, or a function from a
            list of words to their Penn Treebank tags.
        fill_mask (`str` or callable, *optional*):
            A transformers `fill-mask` model (name or folder), or such a pipeline, that proposes the words of
            `attribute`, `object`, `action` and the `replace_` types. Without it they come from the corpus.
        per_caption (`int`, *optional*):
            At most this many negatives a caption, of types drawn at random.

    Raises:
        ArgumentError: for an unknown type or a tagger that is not installed.

    Example:
        >>> from vlcomp.data import NegativeGenerator
        >>> captions = ["a red cup on a table", "a blue plate on a chair", "a green bowl under a table"]
        >>> generator = NegativeGenerator("attribute").fit(captions)
        >>> [negative.type for negative in generator("a red cup on a table")]
        ['attribute']
    """

    def __init__(
        self,
        types: str | Sequence[str] = "default",
        *,
        seed: int = 0,
        tagger: str | TaggingFunction = "textblob",
        fill_mask: str | Callable[..., Any] | None = None,
        per_caption: int | None = None,
    ) -> None:
        self.types = _checked_types(types)
        if per_caption is not None and per_caption < 1:
            raise ArgumentError(f"per_caption={per_caption} must be at least 1")
        self.seed = seed
        self.tagger = tagger
        self.fill_mask = fill_mask
        self.per_caption = per_caption
        self.lexicon: Lexicon | None = None
        self._parsed: dict[str, Sentence] = {}  # of the corpus, for who makes negatives of it right away
        self._tag = make_tagger(tagger)
        self._propose: Any = None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        # The lexicon of the tagger is read again, a model loaded again: neither is state.
        if not callable(self.tagger):
            state["_tag"] = None
        state["_propose"] = None
        state["_parsed"] = {}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._tag is None:
            self._tag = make_tagger(self.tagger)

    def fit(self, captions: Iterable[str], *, num_proc: int = 1) -> NegativeGenerator:
        """Count the words of a corpus; a second call starts anew.

        Args:
            captions (`Iterable[str]`):
                The corpus, best all captions of the training set: replacement words come from it.
            num_proc (`int`, defaults to 1):
                Processes.

        Returns:
            [`NegativeGenerator`]: itself.

        Raises:
            DataError: if there is no caption, or one is no text.
        """
        captions = _checked_captions(captions)
        chunks = [captions[start : start + _FIT_CHUNK] for start in range(0, len(captions), _FIT_CHUNK)]
        self.lexicon, self._parsed = None, {}
        self._learn(_map(self, _count, chunks, num_proc))
        return self

    def _learn(self, parts: Iterable[Lexicon]) -> None:
        lexicon = Lexicon()
        for part in parts:
            lexicon.merge(part)
        lexicon.freeze()
        self.lexicon = lexicon

    def __call__(self, caption: str, *, others: Iterable[str] = (), variant: int = 0) -> list[Negative]:
        """Negatives of one caption.

        Args:
            caption (`str`):
                A true caption; it need not be of the corpus.
            others (`Iterable[str]`):
                Other true captions of the image: no negative equals one of them.
            variant (`int`, defaults to 0):
                Another number gives other negatives, for instance the epoch.

        Returns:
            `list[Negative]`: at most one of each type, in the order of the types; none of a type that the caption
            cannot have.

        Raises:
            ArgumentError: before `fit`.
        """
        return [self._negative(*made) for made in self._all(caption, others, variant)]

    def _negative(self, text: str, name: str, rule: str, old: str, new: str) -> Negative:
        source = {"rule": rule, "from": old, "to": new, "seed": self.seed, "version": RULES_VERSION}
        return Negative(text, name, {**source, "vlcomp": __version__})

    def _all(self, caption: str, others: Iterable[str], variant: int) -> list[_Made]:
        """What a call returns, as plain tuples, which pass between processes faster."""
        if self.lexicon is None:
            raise ArgumentError("the generator knows no corpus yet: call fit(captions) first")
        sentence = self._parsed.get(caption) or parse(caption, self._tag)
        taken = {_normal(caption), *map(_normal, others)}
        out: list[_Made] = []
        types = self.types
        if self.per_caption is not None and self.per_caption < len(types):
            types = Draw(self.seed, variant, "order", caption).shuffled(types)
        for name in types:
            made = self._make(sentence, name, variant, taken)
            if made is not None:
                out.append(made)
                if len(out) == self.per_caption:
                    break
        if self.per_caption is not None:
            out.sort(key=lambda made: self.types.index(made[1]))
        return out

    def _make(self, sentence: Sentence, name: str, variant: int, taken: set[str]) -> _Made | None:
        draw = Draw(self.seed, variant, name, sentence.text)
        for _ in range(_TRIES):
            edit = RULES[name](sentence, self.lexicon, draw)
            if edit is None:
                return None
            rule = name
            if self.fill_mask is not None and name in PROPOSABLE:
                proposed = self._proposal(sentence, name, edit, draw)
                if proposed is not None:
                    edit, rule = proposed, f"{name}:fill-mask"
            text = apply(sentence, edit)
            normal = _normal(text)
            if normal not in taken:
                taken.add(normal)
                return text, name, rule, edit.old, edit.new
        return None

    def _proposal(self, sentence: Sentence, name: str, edit: Edit, draw: Draw) -> Edit | None:
        from .fill_mask import Proposer

        if self._propose is None:
            self._propose = Proposer(self.fill_mask)
        return self._propose(sentence, edit, draw, self._tag)

    def add_columns(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Columns of negatives for a batch of rows: `dataset.map(generator.add_columns, batched=True)`.

        Args:
            rows (`Mapping`):
                With the column `caption` and perhaps `image_id`.

        Returns:
            `dict[str, list]`: `negative_captions`, `negative_types` and `negative_sources` (JSON) of each row, each a
            list.
        """
        captions = rows["caption"]
        groups = rows.get("image_id")
        others = _others(captions, groups) if groups is not None else [()] * len(captions)
        return to_columns([self(caption, others=rest) for caption, rest in zip(captions, others, strict=True)])


# Types whose word a language model may propose.
PROPOSABLE = frozenset(("replace_object", "replace_attribute", "attribute", "object", "action"))


def generate_negatives(
    captions: Iterable[str],
    *,
    types: str | Sequence[str] = "default",
    seed: int = 0,
    num_proc: int = 1,
    group_ids: Sequence[Any] | None = None,
    tagger: str | TaggingFunction = "textblob",
    fill_mask: str | Callable[..., Any] | None = None,
    per_caption: int | None = None,
    corpus: Iterable[str] | None = None,
    progress: bool = False,
) -> list[list[Negative]]:
    """Make hard negatives of captions: false captions that differ by a word or by the order of words.

    Words are replaced by words of the corpus that suit the place (part of speech, number, neighbours, frequency) and
    are neither synonyms nor kinds of the word they replace, as far as tables of common caption words tell. Case,
    punctuation and spacing stay. A type that a caption cannot have is absent.

    Args:
        captions (`Iterable[str]`):
            True captions, in English.
        types, seed, tagger, fill_mask, per_caption:
            See [`NegativeGenerator`].
        num_proc (`int`, defaults to 1):
            Processes; the output does not depend on it.
        group_ids (`Sequence`, *optional*):
            One value for each caption, equal for captions of one image: no negative equals one of them.
        corpus (`Iterable[str]`, *optional*):
            Where replacement words come from; `captions` if not given.
        progress (`bool`, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        `list[list[Negative]]`: negatives of each caption; [`to_columns`] makes columns of them.

    Raises:
        ArgumentError: for arguments that cannot be used.
        DataError: if a caption is no text.

    Example:
        >>> from vlcomp.data import generate_negatives
        >>> [[negative]] = generate_negatives(["A red cup."], types=["attribute"])
        >>> negative.source["from"], negative.text.startswith("A "), negative.text.endswith(" cup.")
        ('red', True, True)
    """
    captions = _checked_captions(captions)
    if num_proc < 1:
        raise ArgumentError(f"num_proc={num_proc} must be at least 1")
    if group_ids is not None and len(group_ids) != len(captions):
        raise ArgumentError(f"group_ids has {len(group_ids)} values for {len(captions)} captions; give one for each")
    if fill_mask is not None and num_proc > 1:
        raise ArgumentError(
            f"num_proc={num_proc} with fill_mask would load the model {num_proc} times; use num_proc=1"
        )
    generator = NegativeGenerator(types, seed=seed, tagger=tagger, fill_mask=fill_mask, per_caption=per_caption)
    if corpus is None and len(captions) <= _FIT_CHUNK:
        # Taken apart once for both; of more captions that would fill the memory.
        parsed = {caption: parse(caption, generator._tag) for caption in dict.fromkeys(captions)}
        generator._learn([_count_parsed(captions, parsed)])
        generator._parsed = parsed
    else:
        generator.fit(captions if corpus is None else corpus, num_proc=num_proc)
    others = None if group_ids is None else _others(captions, group_ids)
    return run(generator, captions, others=others, num_proc=num_proc, progress=progress)


def run(
    generator: NegativeGenerator,
    captions: Sequence[str],
    *,
    others: Sequence[Sequence[str]] | None = None,
    num_proc: int = 1,
    progress: bool = False,
) -> list[list[Negative]]:
    """Negatives of many captions with a generator that knows its corpus.

    Args:
        generator ([`NegativeGenerator`]):
            After `fit`.
        captions (`Sequence[str]`):
            True captions.
        others (`Sequence[Sequence[str]]`, *optional*):
            For each caption, the captions of its image.
        num_proc, progress:
            See [`generate_negatives`].

    Returns:
        `list[list[Negative]]`
    """
    from tqdm.auto import tqdm

    rows = list(zip(captions, [()] * len(captions) if others is None else others, strict=True))
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    out: list[list[Negative]] = []
    with tqdm(total=len(rows), desc="Negatives", unit="caption", disable=None if progress else True) as bar:
        for part in _map(generator, _generate, chunks, num_proc):
            for row in part:
                out.append([generator._negative(*made) for made in row])
            bar.update(len(part))
    return out


def to_columns(negatives: Iterable[Sequence[Negative]]) -> dict[str, list[Any]]:
    """Columns of a data set.

    Args:
        negatives (`Iterable[Sequence[Negative]]`):
            What [`generate_negatives`] returns.

    Returns:
        `dict[str, list]`: `negative_captions`, `negative_types`, `negative_sources` (each source as JSON).
    """
    rows = list(negatives)
    return {
        "negative_captions": [[negative.text for negative in row] for row in rows],
        "negative_types": [[negative.type for negative in row] for row in rows],
        "negative_sources": [[json.dumps(negative.source, ensure_ascii=False) for negative in row] for row in rows],
    }


def _checked_types(types: str | Sequence[str]) -> tuple[str, ...]:
    given = (types,) if isinstance(types, str) else types
    names = tuple(dict.fromkeys(name for entry in given for name in TYPE_SETS.get(entry, (entry,))))
    unknown = [name for name in names if name not in RULES]
    if unknown or not names:
        raise ArgumentError(
            (f"negative type {unknown[0]!r} is unknown" if unknown else "types is empty")
            + f"; types are {', '.join(RULES)}, sets of them {', '.join(TYPE_SETS)}"
        )
    return names


def _checked_captions(captions: Iterable[str]) -> list[str]:
    if isinstance(captions, str):
        raise ArgumentError(f"captions is the text {captions[:40]!r}; expected a list of texts")
    found = list(captions)
    if not found:
        raise DataError("there is no caption to make negatives of")
    for index, caption in enumerate(found):
        if not isinstance(caption, str):
            raise DataError(f"caption {index} is {caption!r}; expected a text")
    return found


def _normal(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(" .!")


def _others(captions: Sequence[str], group_ids: Sequence[Any]) -> list[tuple[str, ...]]:
    groups: dict[Any, list[str]] = {}
    for caption, group in zip(captions, group_ids, strict=True):
        groups.setdefault(group, []).append(caption)
    return [tuple(groups[group]) for group in group_ids]


_worker: NegativeGenerator | None = None


def _set_worker(generator: NegativeGenerator) -> None:
    global _worker
    _worker = generator


def _start_worker(generator: NegativeGenerator) -> None:
    # What a forked child shares with its parent stays shared only while no collection of garbage writes to it.
    gc.freeze()
    _set_worker(generator)


def _count(captions: list[str]) -> Lexicon:
    lexicon = Lexicon()
    for caption in captions:
        lexicon.add(parse(caption, _worker._tag))
    return lexicon


def _count_parsed(captions: list[str], parsed: Mapping[str, Sentence]) -> Lexicon:
    lexicon = Lexicon()
    for caption in captions:
        lexicon.add(parsed[caption])
    return lexicon


def _generate(rows: list[tuple[str, tuple[str, ...]]]) -> list[list[_Made]]:
    return [_worker._all(caption, others, 0) for caption, others in rows]


def _map(generator: NegativeGenerator, function: Callable[[Any], Any], chunks: list[Any], num_proc: int):
    """Results in the order of the chunks."""
    num_proc = min(num_proc, len(chunks))
    if num_proc <= 1:
        _set_worker(generator)
        yield from map(function, chunks)
        return
    # Forked children share the lexicon and start at once; elsewhere each gets its own copy.
    forks = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if forks else "spawn")
    with context.Pool(num_proc, initializer=_start_worker, initargs=(generator,)) as pool:
        yield from pool.imap(function, chunks)
