"""The tables of `words.py` as look-ups, and inflection."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from . import words


class Noun(NamedTuple):
    """What is known of a form of a noun."""

    lemma: str
    plural: bool
    category: str
    mass: bool


class Adjective(NamedTuple):
    """Class and group of an adjective; words of one group do not exclude each other."""

    category: str
    group: int


class Verb(NamedTuple):
    """A form of a verb: `base`, `s`, `ing` or `ed`, and (class, group) for each class it belongs to."""

    lemma: str
    form: str
    groups: tuple[tuple[str, int], ...]


def plural_of(noun: str) -> str:
    """Plural by the regular rules and the exceptions of the tables.

    Args:
        noun (`str`):
            Singular; words of a compound are joined by `_`.

    Returns:
        `str`
    """
    if noun in _PLURALS:
        return _PLURALS[noun]
    head, _, last = noun.rpartition("_")
    if head:
        return f"{head}_{plural_of(last)}"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


@lru_cache(maxsize=4096)
def verb_form(lemma: str, form: str) -> str:
    """Inflect a verb.

    Args:
        lemma (`str`):
            Base form.
        form (`str`):
            `"base"`, `"s"`, `"ing"`, `"ed"` (past) or `"en"` (past participle).

    Returns:
        `str`
    """
    if form == "base":
        return lemma
    if form == "s":
        if lemma.endswith(("s", "x", "z", "ch", "sh", "o")):
            return lemma + "es"
        return lemma[:-1] + "ies" if lemma.endswith("y") and lemma[-2] not in "aeiou" else lemma + "s"
    if form == "ing":
        if lemma.endswith("ie"):
            return lemma[:-2] + "ying"
        if lemma.endswith("e") and not lemma.endswith("ee"):
            return lemma[:-1] + "ing"
        return lemma + lemma[-1] * (lemma in words.DOUBLING) + "ing"
    if lemma in _IRREGULAR:
        return _IRREGULAR[lemma][form == "en"]
    if lemma.endswith("e"):
        return lemma + "ed"
    if lemma.endswith("y") and lemma[-2] not in "aeiou":
        return lemma[:-1] + "ied"
    return lemma + lemma[-1] * (lemma in words.DOUBLING) + "ed"


def article(word: str) -> str:
    """`"a"` or `"an"`.

    Args:
        word (`str`):
            The word that follows.

    Returns:
        `str`
    """
    word = word.lower()
    if word.startswith(("uni", "use", "usu", "eu", "one", "ut", "ufo", "uk", "us-")) and not word.startswith("unin"):
        return "a"
    return "an" if word.startswith(("a", "e", "i", "o", "u", "hour", "honest", "heir", "8", "11", "18")) else "a"


def related(first: str, second: str) -> bool:
    """Whether two nouns (lemmas) may name the same thing: synonyms, kinds and parts, one stem.

    Args:
        first (`str`):
            A noun.
        second (`str`):
            Another.

    Returns:
        `bool`
    """
    if first == second or second in RELATED.get(first, ()):
        return True
    short, long = sorted((first, second), key=len)
    if long.startswith(short + "_") or long.endswith("_" + short):
        return True
    return len(short) > 3 and long.startswith(short)


@lru_cache(maxsize=4096)
def relatives(noun: str) -> frozenset[str]:
    """All nouns of the tables that may name what `noun` names; see [`related`].

    Args:
        noun (`str`):
            A noun.

    Returns:
        `frozenset[str]`
    """
    alike = RELATED.get(noun, ())
    # A first look, for nearly all need no more.
    return frozenset(
        lemma for lemma in _LEMMAS if lemma in alike or (lemma in noun or noun in lemma) and related(noun, lemma)
    )


@lru_cache(maxsize=65536)
def same_stem(first: str, second: str) -> bool:
    """Whether two words of any kind look like forms or derivations of one.

    Args:
        first (`str`):
            A word.
        second (`str`):
            Another.

    Returns:
        `bool`
    """
    length = min(len(first), len(second))
    shared = next((i for i in range(length) if first[i] != second[i]), length)
    return shared >= 4 and shared >= length - 2


def _nouns() -> tuple[dict[str, Noun], dict[tuple[str, bool, bool], list[str]]]:
    forms: dict[str, Noun] = {}
    members: dict[tuple[str, bool, bool], list[str]] = {}
    for category, text in words.NOUNS.items():
        count, _, mass = text.partition("|")
        for lemma in count.split():
            for form, plural in ((lemma, False), (plural_of(lemma), True)):
                forms.setdefault(form, Noun(lemma, plural, category, False))
                members.setdefault((category, plural, False), []).append(form)
        for word in mass.split():
            plural = word.endswith("s") and not word.endswith("ss") or word == "cattle"
            plural = plural and category not in ("sport", "place")
            forms.setdefault(word, Noun(word, plural, category, True))
            members.setdefault((category, plural, True), []).append(word)
    for lemma in words.HYPERNYMS:
        for form, plural in ((lemma, lemma == "people"), (plural_of(lemma), True)):
            forms[form] = Noun(lemma, plural, "above", False)
    return forms, members


def _adjectives() -> dict[str, Adjective]:
    out: dict[str, Adjective] = {}
    for category, text in words.ADJECTIVES.items():
        for group, members in enumerate(text.split()):
            for word in members.split("/"):
                out.setdefault(word, Adjective(category, group))
    return out


def _adjective_members() -> dict[str, list[tuple[str, int]]]:
    return {
        category: [(word, group) for group, members in enumerate(text.split()) for word in members.split("/")]
        for category, text in words.ADJECTIVES.items()
    }


def _verbs() -> tuple[dict[str, Verb], dict[str, list[tuple[str, int]]]]:
    groups: dict[str, list[tuple[str, int]]] = {}
    members: dict[str, list[tuple[str, int]]] = {}
    for category, text in words.VERBS.items():
        for group, alternatives in enumerate(text.split()):
            for lemma in alternatives.split("/"):
                groups.setdefault(lemma, []).append((category, group))
                members.setdefault(category, []).append((lemma, group))
    forms: dict[str, Verb] = {}
    for lemma, where in groups.items():
        for form in ("base", "s", "ing", "ed", "en"):
            forms.setdefault(verb_form(lemma, form), Verb(lemma, "ed" if form == "en" else form, tuple(where)))
    forms["laying"] = forms["lying"]._replace(form="ing")
    return forms, members


def _pairs(text: str) -> dict[str, set[str]]:
    out: dict[str, set[str]] = {}
    for line in text.split("\n"):
        members = line.split()
        for word in members:
            out.setdefault(word, set()).update(members)
    return out


def _overlaps() -> dict[str, frozenset[str]]:
    """Verbs by lemma that may be true together; what holds of a verb holds of its near synonyms."""
    group: dict[str, set[str]] = {}
    for text in words.VERBS.values():
        for alternatives in text.split():
            for lemma in alternatives.split("/"):
                group.setdefault(lemma, set()).add(lemma)
                # A verb that can be put in stands for the group; a vague one ("pose") only for itself.
                if lemma not in words.NEVER_PUT:
                    group[lemma].update(other for other in alternatives.split("/"))
    out: dict[str, set[str]] = {}
    for line in words.VERB_OVERLAPS.strip().splitlines():
        verb, _, others = line.partition(":")
        for other in others.split():
            for a in group.get(verb, {verb}):
                for b in group.get(other, {other}):
                    out.setdefault(a, set()).add(b)
                    out.setdefault(b, set()).add(a)
    return {verb: frozenset(others) for verb, others in out.items()}


_PLURALS = dict(pair.split(":") for pair in words.IRREGULAR_PLURALS.split())
_IRREGULAR = {lemma: (past, participle) for lemma, past, participle in
              (entry.split(":") for entry in words.IRREGULAR_VERBS.split())}  # fmt: skip
RELATED = _pairs(words.RELATED)
VERB_OVERLAPS = _overlaps()
NOUN_FORMS, NOUN_MEMBERS = _nouns()
_LEMMAS = sorted({form.lemma for form in NOUN_FORMS.values()})
ADJECTIVES = _adjectives()
ADJECTIVE_MEMBERS = _adjective_members()
VERB_FORMS, VERB_MEMBERS = _verbs()
ANIMATE = frozenset({"person", "role", "animal", "above"})
