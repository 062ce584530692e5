"""Rules that add something or negate: an adjective, a second thing, "no", "not", "without".

What is added must deny something. A colour does where another is named ("a red car", "a red and blue car") or known
("a banana", "a blue banana"), not where the caption leaves it open. A second thing does where the caption names all
that take part: who rides a horse rides nothing else, and "a dog on a couch" is one dog on one couch.

An added word must not make negatives longer than captions are, or length alone tells them apart. So words are added
where an adjective can be taken away elsewhere, or where the caption stays within the mean length of the corpus.
"""

from __future__ import annotations

from .edits import Change, Draw, Edit, surface
from .lexicon import Lexicon, governor
from .replacing import describes, describes_people, word_at
from .tables import (
    ADJECTIVE_MEMBERS,
    ADJECTIVES,
    ANIMATE,
    NOUN_FORMS,
    VERB_FORMS,
    article,
    related,
    verb_form,
)
from .tagging import Phrase, Sentence
from .words import FRAME_NOUNS, NOUN_UNITS, UNNATURAL

_COMPANY = frozenset(
    "animal vehicle furniture dish produce tableware electronics clothing carried sports_gear person".split()
)
_OFF_COLORS = frozenset("dark ivory cream golden blond blonde navy wood iron cement steel metallic turquoise".split())
# An animal in a picture of these may have any colour.
_MADE_UP = frozenset(
    "toy toys stuffed statue statues sculpture sculptures painted painting paintings costume costumes drawing cartoon "
    "plush teddy kite kites balloon balloons plastic ceramic fake figurine figurines porcelain wooden metal decorated "
    "shaped print colored colorful".split()
)
# Verbs and prepositions with one thing at a time.
_ONE_THING = frozenset(
    "ride drive fly hold carry eat wear cut throw catch kick hit pull push feed pet hug wash chase lead read".split()
)
_ONE_PLACE = frozenset("on in under inside behind on_top_of atop".split())
_POSTURES = frozenset("sit stand lie lay sleep rest perch park lean kneel".split())


def add_attribute(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Give a thing a second colour, or a colour that its kind does not have."""
    tokens = sentence.tokens
    made_up = any(token.word in _MADE_UP for token in tokens)
    for phrase in draw.shuffled(sentence.phrases):
        noun, word = tokens[phrase.head].noun, tokens[phrase.head].word
        if not phrase.plain or word in FRAME_NOUNS or describes(sentence, phrase.head) or describes_people(noun):
            continue
        second = _second(sentence, phrase, lexicon, draw)
        if second is None and made_up:
            continue
        dropped = _droppable(sentence, phrase, draw)
        extra = 2 if second is not None else 1
        if _length(sentence) + extra > lexicon.length_limit:
            if dropped is None or _length(sentence) + extra - 1 > lexicon.length_limit + 1:
                continue
        else:
            dropped = None
        if second is not None:
            index, new = second
            changes, added = [Change(index, index + 1, f"{surface(sentence, index)} and {new}")], f"and {new}"
        else:
            new = _unnatural(sentence, phrase, lexicon, draw)
            if new is None:
                continue
            head = surface(sentence, phrase.head)
            changes, added = [Change(phrase.head, phrase.head + 1, f"{new} {head}")], f"{new} {head}"
        old = ""
        if dropped is not None:
            old = tokens[dropped].word
            changes.append(Change(dropped, dropped + 2, surface(sentence, dropped + 1)))
        return Edit(tuple(changes), old, added)
    return None


def _second(sentence: Sentence, phrase: Phrase, lexicon: Lexicon, draw: Draw) -> tuple[int, str] | None:
    """A second colour beside the only one of a phrase: its place and the word.

    No second material: a wooden table may well have a glass top.
    """
    tokens = sentence.tokens
    index = phrase.head - 1
    if index not in phrase.adjectives or tokens[index].code != "J":
        return None
    adjective = ADJECTIVES.get(tokens[index].word)
    if adjective is None or adjective.category != "color" or tokens[index].word in _OFF_COLORS:
        return None
    kind = adjective.category
    if word_at(sentence, index - 1) in (",", "and", "or", "light", "bright", "dark", "pale", "solid", "all"):
        return None
    if any(i != index and (a := ADJECTIVES.get(tokens[i].word)) and a.category == kind for i in phrase.adjectives):
        return None
    present = {token.word for token in tokens}
    pool = [
        w for w, g in ADJECTIVE_MEMBERS[kind] if g != adjective.group and w not in present and w not in _OFF_COLORS
    ]
    new = draw.weighted(lexicon.weights(pool, "and", tokens[phrase.head].word))
    return None if new is None else (index, new)


def _unnatural(sentence: Sentence, phrase: Phrase, lexicon: Lexicon, draw: Draw) -> str | None:
    """A colour that things of this kind do not have."""
    tokens = sentence.tokens
    noun = tokens[phrase.head].noun
    pool = [w for w in UNNATURAL.get(noun.lemma, "").split() if all(token.word != w for token in tokens)]
    if not pool or any((a := ADJECTIVES.get(tokens[i].word)) and a.category == "color" for i in phrase.adjectives):
        return None
    if phrase.start and tokens[phrase.start - 1].code in "JVN.":
        return None  # "a yellow touring motorcycle"
    return draw.weighted(lexicon.weights(pool, word_at(sentence, phrase.head - 1), tokens[phrase.head].word))


def _droppable(sentence: Sentence, kept: Phrase, draw: Draw) -> int | None:
    """An adjective right before its noun that nothing else hangs on."""
    tokens = sentence.tokens
    places = []
    for phrase in sentence.phrases:
        if phrase is kept or not phrase.plain or len(phrase.adjectives) != 1 or phrase.determiner < 0:
            continue
        index = phrase.adjectives[0]
        if (
            tokens[index].code == "J"
            and tokens[index].word in ADJECTIVES
            and index + 1 == phrase.head != kept.start - 1
        ):
            if phrase.determiner == index - 1 and tokens[phrase.head].word not in FRAME_NOUNS:
                places.append(index)
    return draw.shuffled(places)[0] if places else None


def _length(sentence: Sentence) -> int:
    return len(sentence.text.split())


def add_object(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Put a second thing of its kind beside one: "a dog on a couch" to "a dog on a couch and a chair"."""
    tokens = sentence.tokens
    present = {token.noun.lemma for token in tokens if token.noun is not None}
    for phrase in draw.shuffled(sentence.phrases):
        token = tokens[phrase.head]
        noun = token.noun
        if noun.category not in _COMPANY or token.word in FRAME_NOUNS or noun.mass or describes(sentence, phrase.head):
            continue
        if not (_is_taken(sentence, phrase) or _is_subject(sentence, phrase)):
            continue
        plural = noun.plural
        determiner = tokens[phrase.determiner].word if phrase.determiner >= 0 else ""
        if not plural and determiner not in ("a", "an", "the") or plural and phrase.determiner >= 0:
            continue
        if _length(sentence) + (2 if plural else 3) > lexicon.length_limit + 1:
            continue
        pool = [
            w
            for w in lexicon.nouns(noun.category, plural, False)
            if not related(noun.lemma, NOUN_FORMS[w].lemma) and NOUN_FORMS[w].lemma not in present
        ]
        right = word_at(sentence, phrase.head + 1)
        weights = lexicon.weights(pool, "<" if plural else "a", right, governor(sentence, phrase))
        new = draw.weighted(weights)
        if new is None:
            continue
        added = f"and {new}" if plural else f"and {determiner if determiner == 'the' else article(new)} {new}"
        head = surface(sentence, phrase.head)
        return Edit((Change(phrase.head, phrase.head + 1, f"{head} {added}"),), "", added.replace("_", " "))
    return None


def _is_taken(sentence: Sentence, phrase: Phrase) -> bool:
    """Whether a phrase is the one thing that somebody rides, holds, ..., or the one place where something is."""
    tokens = sentence.tokens
    if not phrase.start:
        return False
    after = tokens[phrase.head + 1] if phrase.head + 1 < len(tokens) else None
    if after is not None and not (after.code == "I" and after.word not in ("of", "with") or after.word in ".!"):
        return False
    before = tokens[phrase.start - 1]
    verb = VERB_FORMS.get(before.word)
    if before.code in "GZ":
        return verb is not None and verb.lemma in _ONE_THING
    if before.word not in _ONE_PLACE or before.code != "I" or phrase.start < 2:
        return False
    verb = VERB_FORMS.get(tokens[phrase.start - 2].word)
    return verb is not None and verb.lemma in _POSTURES


def _is_subject(sentence: Sentence, phrase: Phrase) -> bool:
    """Whether a caption begins with one person or animal that does something: "a dog sleeping on a bed"."""
    tokens = sentence.tokens
    if phrase.start or tokens[phrase.head].noun.category not in ("person", "animal"):
        return False
    after = tokens[phrase.head + 1] if phrase.head + 1 < len(tokens) else None
    if after is None or after.code != "G" or any(token.code in "XZ" for token in tokens):
        return False
    words = {token.word for token in tokens}
    return not words & {"his", "her", "its", "himself", "herself", "itself", "another", "each"}


def negate(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Say that something is not so: "no", "not", "without"; or take such a word away."""
    tokens = sentence.tokens
    starts = {phrase.start: phrase for phrase in sentence.phrases}
    edits: list[tuple[Edit, float]] = []

    def put(start: int, end: int, new: str) -> Edit:
        old = " ".join(surface(sentence, index) for index in range(start, end))
        return Edit((Change(start, end, new),), old, new)

    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else None
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        phrase = starts.get(index + 1)
        if token.word == "without" and phrase is not None:
            edits.append((put(index, index + 1, "with"), 3.0))
        elif token.word == "not" and after is not None and before is not None and before.code in "XN":
            edits.append((put(index, index + 2, surface(sentence, index + 1)), 3.0))
        elif token.word == "with" and phrase is not None and before is not None and before.code == "N":
            ends = phrase.head + 1 >= len(tokens) or tokens[phrase.head + 1].code in ".I"
            determiner = tokens[phrase.determiner].word if phrase.determiner >= 0 else ""
            if (
                ends
                and determiner not in ("the", "his", "her", "its", "their")
                and word_at(sentence, phrase.head + 1) != "of"
            ):
                edits.append((put(index, index + 1, "without"), 3.0))
        elif token.code == "X" and after is not None and after.code in "GVIJ" and after.word not in ("not", "like"):
            if token.word.endswith(("is", "are", "was", "were")):
                edits.append((put(index, index + 1, f"{token.word} not"), 2.0))
        elif token.code == "X" and before is not None and before.code == "E" and after is not None:
            if after.word in ("a", "an", "some"):
                edits.append((put(index + 1, index + 2, "no"), 3.0))
        elif token.code == "G" and before is not None and before.code == "N" and token.word in VERB_FORMS:
            edits.append((put(index, index + 1, f"not {token.word}"), 1.5))
        elif token.code == "Z" and token.word in VERB_FORMS and before is not None and before.code == "N":
            verb = VERB_FORMS[token.word]
            if _length(sentence) + 2 <= lexicon.length_limit + 1:
                edits.append((put(index, index + 1, f"does not {verb_form(verb.lemma, 'base')}"), 0.7))
    if sentence.phrases and sentence.phrases[0].start == 0:
        first = sentence.phrases[0]
        head = tokens[first.head]
        following = tokens[first.head + 1].code if first.head + 1 < len(tokens) else "."
        if head.word not in FRAME_NOUNS and head.word not in NOUN_UNITS and following in "GXZV":
            if tokens[0].word in ("a", "an", "some") and tokens[1].word not in ("few", "couple", "lot"):
                edits.append((put(0, 1, "no"), 2.0 if head.noun.category in ANIMATE else 1.0))
    return draw.weighted(edits)
