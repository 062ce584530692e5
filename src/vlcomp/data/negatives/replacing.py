"""Rules that replace one word: noun, adjective, verb, preposition."""

from __future__ import annotations

from .edits import Change, Draw, Edit
from .lexicon import Lexicon, article_kind, governor
from .tables import (
    ADJECTIVE_MEMBERS,
    ADJECTIVES,
    ANIMATE,
    NOUN_FORMS,
    Noun,
    relatives,
    same_stem,
)
from .tagging import Phrase, Sentence
from .words import COMPOUND_ENDS, FIXED_NAMES, FRAME_NOUNS, HYPERNYMS, NOUN_UNITS

_DEFINITE = frozenset("the his her their its my your our this that these those".split())
# People whom "his" or "her" elsewhere in the caption may not mean.
_NOT_HIS = frozenset("woman girl lady bride waitress".split())
_NOT_HER = frozenset("man boy guy gentleman groom waiter policeman fisherman cowboy".split())
_PERSONAL_ADJECTIVES = frozenset("young little old elderly older".split())
_CHILDREN = frozenset("boy girl child kid baby toddler infant lady gentleman".split())


def word_at(sentence: Sentence, index: int) -> str:
    """The word at a position; `"<"` and `">"` outside the caption.

    Args:
        sentence ([`Sentence`]):
            The caption.
        index (`int`):
            Position.

    Returns:
        `str`
    """
    if index < 0:
        return "<"
    return sentence.tokens[index].word if index < len(sentence.tokens) else ">"


def single(index: int, old: str, new: str) -> Edit:
    """The edit that replaces one token.

    Args:
        index (`int`):
            Position.
        old (`str`):
            Word there.
        new (`str`):
            Word instead.

    Returns:
        [`Edit`]
    """
    return Edit((Change(index, index + 1, new),), old.replace("_", " "), new.replace("_", " "))


def replace_object(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Replace a noun by another of its class and number."""
    known, unknown = [], []
    for phrase in sentence.phrases:
        token = sentence.tokens[phrase.head]
        if not replaceable_noun(sentence, phrase.head):
            continue
        (unknown if token.noun.category == "?" else known).append(phrase)
    for phrase in draw.shuffled(known) + draw.shuffled(unknown):
        head = phrase.head
        token = sentence.tokens[head]
        new = draw.weighted(noun_candidates(sentence, phrase, lexicon))
        if new is not None:
            return single(head, token.word, new)
    return None


def replaceable_noun(sentence: Sentence, index: int) -> bool:
    """Whether a noun names a thing of its own, and not a place in another or part of a fixed name.

    Args:
        sentence ([`Sentence`]):
            The caption.
        index (`int`):
            Position of the noun.

    Returns:
        `bool`
    """
    token = sentence.tokens[index]
    if token.word in FRAME_NOUNS or token.word in NOUN_UNITS or not token.word[0].isalpha():
        return False
    before = word_at(sentence, index - 1)
    if describes(sentence, index):
        return False
    if token.noun.category == "body" and before in ("on", "at", "in", "by", "to", "of"):
        return False  # "on foot", "in hand"
    # A capital within the sentence is a name.
    return (
        token.noun.category != "?" or sentence.style != "plain" or not (index and sentence.text[token.start].isupper())
    )


def describes(sentence: Sentence, index: int) -> bool:
    """Whether a noun only describes another: "a leaf filled tree", "snow covered ground".

    Args:
        sentence ([`Sentence`]):
            The caption.
        index (`int`):
            Position of the noun.

    Returns:
        `bool`
    """
    following = sentence.tokens[index + 1 : index + 3]
    return len(following) == 2 and following[0].code in "VJ" and following[1].code == "N"


def noun_candidates(sentence: Sentence, phrase: Phrase, lexicon: Lexicon) -> list[tuple[str, float]]:
    """Nouns that may stand in the place of the head of a phrase, with weights.

    Args:
        sentence ([`Sentence`]):
            The caption.
        phrase ([`Phrase`]):
            The phrase.
        lexicon ([`Lexicon`]):
            Counts of the corpus.

    Returns:
        `list[tuple[str, float]]`
    """
    index = phrase.head
    token = sentence.tokens[index]
    noun = token.noun
    left, right = word_at(sentence, index - 1), word_at(sentence, index + 1)
    present = _lemmas(sentence)
    if noun.category == "?":
        pool = lexicon.unknown_nouns(noun.plural)
        kind = article_kind(sentence, phrase)
        pool = [
            w
            for w in pool
            if lexicon.seen(left, w)
            and lexicon.seen(w, right)
            and (noun.plural or (kind, w) in lexicon.kinds)
            and not same_stem(w, token.word)
        ]
    else:
        plural = _plural(sentence, phrase)
        category = HYPERNYMS.get(noun.lemma, noun.category)
        pool = lexicon.nouns(category, plural, noun.mass)
        if noun.category == "ground" or phrase.determiner >= 0 and word_at(sentence, phrase.determiner) in _DEFINITE:
            pool = [*pool, *lexicon.nouns(category, plural, not noun.mass)] if noun.mass else pool
        clash = relatives(noun.lemma)
        pool = [w for w in pool if NOUN_FORMS[w].lemma not in clash]
        if category in ("person", "role"):
            words = {token.word for token in sentence.tokens}
            if words & {"his", "he", "him", "himself"}:
                pool = [w for w in pool if NOUN_FORMS[w].lemma not in _NOT_HIS]
            if words & {"her", "she", "herself"}:
                pool = [w for w in pool if NOUN_FORMS[w].lemma not in _NOT_HER]
    if not phrase.plain:  # "baseball ..." wants what follows baseball elsewhere
        pool = [w for w in pool if lexicon.seen(left, w)]
    pool = [w for w in pool if (NOUN_FORMS[w].lemma if w in NOUN_FORMS else w) not in present]
    weights = lexicon.weights(pool, left, right, governor(sentence, phrase))
    return [(word, weight * (1.0 if ("_" in word) == ("_" in token.word) else 0.5)) for word, weight in weights]


def _plural(sentence: Sentence, phrase: Phrase) -> bool:
    token = sentence.tokens[phrase.head]
    if token.noun.lemma in ("sheep", "fish", "deer"):
        determiner = word_at(sentence, phrase.determiner) if phrase.determiner >= 0 else ""
        return determiner not in ("a", "an", "one", "this", "another", "each", "every", "that")
    return token.noun.plural


def _lemmas(sentence: Sentence) -> set[str]:
    return {token.noun.lemma if token.noun is not None else token.word for token in sentence.tokens}


def replace_attribute(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Replace an adjective (or number) by one that excludes it."""
    tokens = sentence.tokens
    places, numbers = [], []
    for index, token in enumerate(tokens):
        if token.word not in ADJECTIVES:
            continue
        before, after = word_at(sentence, index - 1), word_at(sentence, index + 1)
        if token.code == "C" and after in ("of", "-", "/") or after in COMPOUND_ENDS:
            continue
        if f"{token.word}_{after}" in FIXED_NAMES or before == "-":
            continue
        if before in ("partially", "partly", "half", "slightly", "semi", "almost", "nearly"):
            continue  # "half open" is half closed
        if token.code in "JC" or token.code in "NV" and _predicative(sentence, index):
            if not (
                token.word == "few"
                and before == "a"
                or token.word in ("left", "right", "light", "clear", "short", "open")
                and token.code != "J"
            ):
                # Most numbers are "two", and every other number would be too frequent.
                (numbers if token.code == "C" else places).append(index)
    for index in draw.shuffled(places) + draw.shuffled(numbers):
        new = draw.weighted(adjective_candidates(sentence, index, lexicon))
        if new is not None:
            return single(index, tokens[index].word, new)
    return None


def _predicative(sentence: Sentence, index: int) -> bool:
    """ "is orange", "painted gold": a colour that the tagger takes for a noun."""
    adjective = ADJECTIVES.get(sentence.tokens[index].word)
    return adjective is not None and adjective.category == "color" and index > 0 and (
        sentence.tokens[index - 1].code in "XV" or word_at(sentence, index - 1) == "in"
    ) and not (index + 1 < len(sentence.tokens) and sentence.tokens[index + 1].code == "N")  # fmt: skip


def head_noun(sentence: Sentence, index: int) -> Noun | None:
    """The noun that an adjective belongs to.

    Args:
        sentence ([`Sentence`]):
            The caption.
        index (`int`):
            Position of the adjective.

    Returns:
        [`Noun`] or `None`
    """
    for phrase in sentence.phrases:
        if phrase.start <= index <= phrase.head:
            return sentence.tokens[phrase.head].noun
    return None


def describes_people(noun: Noun) -> bool:
    """Whether a colour before the noun would be that of people.

    Args:
        noun ([`Noun`]):
            The noun.

    Returns:
        `bool`
    """
    return noun.category in ("person", "role") or noun.lemma in ("person", "people", "adult", "player")


def adjective_candidates(sentence: Sentence, index: int, lexicon: Lexicon) -> list[tuple[str, float]]:
    """Adjectives that may stand at a place and exclude the one there, with weights.

    Args:
        sentence ([`Sentence`]):
            The caption.
        index (`int`):
            Position of the adjective.
        lexicon ([`Lexicon`]):
            Counts of the corpus.

    Returns:
        `list[tuple[str, float]]`
    """
    word = sentence.tokens[index].word
    left, right = word_at(sentence, index - 1), word_at(sentence, index + 1)
    present = {token.word for token in sentence.tokens}
    noun = head_noun(sentence, index)
    category = noun.category if noun is not None else "?"
    adjective = ADJECTIVES.get(word)
    if adjective is None:
        return []
    kind = adjective.category
    if kind == "color" and noun is not None and describes_people(noun):
        return []
    if word in _PERSONAL_ADJECTIVES:
        if noun is not None and noun.lemma in _CHILDREN:
            return []  # "an old boy"
        kind = "age" if category in ANIMATE else "size" if word == "little" else "age_thing" if word == "old" else kind
        if kind == "age" and word == "little":
            return []
    group = next((g for w, g in ADJECTIVE_MEMBERS[kind] if w == word), -1)
    if kind == "sex" and category in ("person", "role"):
        if noun.lemma in ("man", "woman", "boy", "girl", "lady", "guy"):
            return []
    pool = [w for w, g in ADJECTIVE_MEMBERS[kind] if g != group and w not in present]
    if kind == "color":
        pool = [
            w for w in pool if w not in ("dark", "golden", "blond", "blonde", "navy", "ivory", "cream") or w == word
        ]
    if kind == "size" and category in ("person", "role"):
        pool = [w for w in pool if w not in ("tiny", "mini", "miniature", "massive", "enormous", "gigantic")]
    if kind == "fill" and category not in ("room", "place", "vehicle", "building"):
        pool = [w for w in pool if w in ("full", "empty")]
    if kind == "material":
        pool = [w for w in pool if w not in ("paper", "leather", "ceramic") or lexicon.seen(w, right)]
    if kind == "size" and left in ("very", "so"):
        pool = [w for w in pool if w in ("large", "big", "small", "little", "tiny")]
    return lexicon.weights(pool, left, right)
