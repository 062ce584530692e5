"""Rules that exchange two words or phrases of a caption."""

from __future__ import annotations

from .edits import Change, Draw, Edit, surface
from .lexicon import Lexicon, governor
from .replacing import describes, describes_people, word_at
from .tables import ADJECTIVES, ANIMATE, related
from .tagging import Phrase, Sentence
from .words import FRAME_NOUNS, NOUN_UNITS, VAGUE_ADJECTIVES

# What two things can be to each other both ways round.
_SYMMETRIC = frozenset(
    "and or near beside besides next by with next_to close_to along_with alongside between across_from against "
    "around at among like "
    "from for than as about during to".split()
)
_SYMMETRIC_VERBS = frozenset(
    "talking facing kissing hugging meeting playing fighting including making taking having getting sharing "
    "matching".split()
)
_PLACES = frozenset(("place", "ground"))
# Words that point to somebody: "a woman and the book she reads" has no turn.
_POINTING = frozenset("he she his her hers him himself herself another else".split())
_NO_SWAP = frozenset(("body", "sport", "meal"))


def swap_nouns(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Exchange two nouns; their articles and adjectives stay where they are."""
    tokens = sentence.tokens
    pairs = []
    for first, second in _pairs(sentence):
        a, b = tokens[first.head], tokens[second.head]
        if not (first.plain and second.plain) or a.noun.plural != b.noun.plural:
            continue
        if (
            (first.determiner < 0) != (second.determiner < 0)
            or a.noun.mass != b.noun.mass
            or _after_of(sentence, first)
            or _after_of(sentence, second)
        ):
            continue
        told_apart = _describing(sentence, first) != _describing(sentence, second)
        if _ordered(sentence, first, second) or told_apart and a.noun.category == b.noun.category:
            pairs.append(((first, second), _likelihood(sentence, first, second, lexicon)))
    chosen = draw.weighted(pairs)
    if chosen is None:
        return None
    first, second = chosen[0].head, chosen[1].head
    one, two = surface(sentence, first), surface(sentence, second)
    return Edit((Change(first, first + 1, two), Change(second, second + 1, one)), f"{one} / {two}", f"{two} / {one}")


def swap_phrases(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Exchange two noun phrases with their articles and adjectives."""
    tokens = sentence.tokens
    finite = any(token.code in "XZ" or token.code == "B" for token in tokens)
    pairs = []
    for first, second in _pairs(sentence):
        a, b = tokens[first.head], tokens[second.head]
        if a.noun.plural != b.noun.plural and finite or not _ordered(sentence, first, second):
            continue
        if finite and not a.noun.plural and _plural_verb(sentence, first):
            continue  # "a family are", "a boy and his dog are"
        if _after_of(sentence, first) or _after_of(sentence, second):
            continue
        pairs.append(((first, second), _likelihood(sentence, first, second, lexicon)))
    chosen = draw.weighted(pairs)
    if chosen is None:
        return None
    first, second = chosen
    one, two = (_phrase_text(sentence, phrase) for phrase in chosen)
    changes = (Change(first.start, first.head + 1, two), Change(second.start, second.head + 1, one))
    return Edit(changes, f"{one} / {two}", f"{two} / {one}")


def _likelihood(sentence: Sentence, first: Phrase, second: Phrase, lexicon: Lexicon) -> float:
    """Weight of a pair: greater if each noun is seen in the other's place, or both are of one class."""
    a, b = sentence.tokens[first.head], sentence.tokens[second.head]
    seen = (
        (governor(sentence, second), a.word) in lexicon.governed,
        (governor(sentence, first), b.word) in lexicon.governed,
    )
    return 1.0 + 3.0 * seen[0] + 3.0 * seen[1] + 6.0 * (a.noun.category == b.noun.category != "?")


def _phrase_text(sentence: Sentence, phrase: Phrase) -> str:
    start = surface(sentence, phrase.start)
    if phrase.start == phrase.head:
        return start
    rest = sentence.text[sentence.tokens[phrase.start].end : sentence.tokens[phrase.head].end]
    return start + (rest if sentence.style == "plain" else rest.lower())


def _pairs(sentence: Sentence):
    """Phrases that may change places, in order."""
    pointing = not _POINTING.isdisjoint(token.word for token in sentence.tokens)
    usable = []
    for place, phrase in enumerate(sentence.phrases):
        noun, word = sentence.tokens[phrase.head].noun, sentence.tokens[phrase.head].word
        determiner = sentence.tokens[phrase.determiner].code if phrase.determiner >= 0 else ""
        if word in FRAME_NOUNS or word in NOUN_UNITS or noun.category in _NO_SWAP or not word[0].isalpha():
            continue
        if describes(sentence, phrase.head) or determiner == "P" or noun.category == "?" and word.endswith("ing"):
            continue
        if determiner == "" and not noun.plural and not noun.mass:
            continue  # "dog on mat"
        if determiner == "" and phrase.start and sentence.tokens[phrase.start - 1].code in "JVG.":
            continue  # a list of adjectives
        if pointing and noun.category in ANIMATE:
            continue
        if not noun.plural and any(
            sentence.tokens[index].code == "C" and sentence.tokens[index].word != "one"
            for index in range(phrase.start, phrase.head)
        ):
            continue  # "a two tier cake"
        after = word_at(sentence, phrase.head + 1)
        if after == "top" or word == "woods":
            continue
        if after == "of" or after.endswith("'s") or phrase.head > 0 and sentence.tokens[phrase.head - 1].code == ".":
            continue
        usable.append((place, phrase))
    for i, (_, first) in enumerate(usable):
        for _, second in usable[i + 1 :]:
            a, b = sentence.tokens[first.head].noun, sentence.tokens[second.head].noun
            # "on a board on the street", "in the sand on the beach" say the same both ways round.
            same_place = second.start and governor(sentence, first) == governor(sentence, second)
            same_place = same_place or a.category in _PLACES and b.category in _PLACES
            if not related(a.lemma, b.lemma) and not same_place:
                yield first, second


def _plural_verb(sentence: Sentence, phrase: Phrase) -> bool:
    """Whether the verb after a phrase in the singular is in the plural."""
    for token in sentence.tokens[phrase.head + 1 :]:
        if token.code in "XZB":
            return token.word in ("are", "were", "have") or token.code == "B"
    return False


def _after_of(sentence: Sentence, phrase: Phrase) -> bool:
    return word_at(sentence, phrase.start - 1) == "of"


def _describing(sentence: Sentence, phrase: Phrase) -> frozenset[str]:
    words = (sentence.tokens[index].word for index in phrase.adjectives if sentence.tokens[index].code == "J")
    return frozenset(word for word in words if word not in VAGUE_ADJECTIVES)


def _ordered(sentence: Sentence, first: Phrase, second: Phrase) -> bool:
    """Whether something between the phrases says different things of the two, so that exchanging them matters."""
    link = _link(sentence, second)
    index = sentence.phrases.index(second)
    while link == "and" and index > 0 and sentence.phrases[index - 1].start > first.head:
        index -= 1
        link = _link(sentence, sentence.phrases[index])
    if not link or link in _SYMMETRIC_VERBS:
        return False
    return link not in _SYMMETRIC


def _link(sentence: Sentence, phrase: Phrase) -> str:
    """The preposition or verb before a phrase; `"and"` for a member of a list, nothing at the start of a clause."""
    for index in range(phrase.start - 1, -1, -1):
        token = sentence.tokens[index]
        if token.code == "K" or token.word == ",":
            return "and"
        if token.code in "IT":
            return "" if token.word == "of" else token.word
        if token.code in "GZBV":
            return token.word
        if token.code in "X.WN":
            return ""
    return ""


def swap_attributes(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Exchange two adjectives, or two numbers, that belong to different nouns."""
    tokens = sentence.tokens
    sites = []
    for phrase in sentence.phrases:
        if tokens[phrase.head].word in FRAME_NOUNS:
            continue
        for index in phrase.adjectives:
            word = tokens[index].word
            if word not in VAGUE_ADJECTIVES and word.isalpha() and (word != "one"):
                sites.append((index, phrase))
    pairs = []
    for i, (first, one) in enumerate(sites):
        for second, two in sites[i + 1 :]:
            a, b = tokens[first].word, tokens[second].word
            nouns = tokens[one.head].noun, tokens[two.head].noun
            if one is two or a == b or nouns[0].lemma == nouns[1].lemma or (tokens[first].code != tokens[second].code):
                continue
            kinds = ADJECTIVES.get(a), ADJECTIVES.get(b)
            colored = any(kind is not None and kind.category == "color" for kind in kinds)
            if colored and (describes_people(nouns[0]) or describes_people(nouns[1])):
                continue
            if None not in kinds and kinds[0] == kinds[1]:
                continue  # "large" and "big"
            # "a yellow bus among small houses" does not deny "a small bus among yellow houses".
            if None in kinds or kinds[0].category != kinds[1].category or kinds[0].category == "sex":
                continue
            if _has_kind(sentence, one, first, b) or _has_kind(sentence, two, second, a):
                continue
            pairs.append(((first, second), 1.0))
    chosen = draw.weighted(pairs)
    if chosen is None:
        return None
    first, second = chosen
    one, two = surface(sentence, first), surface(sentence, second)
    return Edit((Change(first, first + 1, two), Change(second, second + 1, one)), f"{one} / {two}", f"{two} / {one}")


def _has_kind(sentence: Sentence, phrase: Phrase, index: int, word: str) -> bool:
    """Whether the phrase has another adjective that says the same or the contrary ("a red blue cup")."""
    kind = ADJECTIVES.get(word)
    others = [sentence.tokens[i].word for i in phrase.adjectives if i != index]
    return any(w == word or kind and (k := ADJECTIVES.get(w)) and k.category == kind.category for w in others)
