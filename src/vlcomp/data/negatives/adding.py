"""Rules that add something or negate: an adjective, a second thing, "no", "not", "without".

An added word must not make negatives longer than captions are, or length alone tells them apart. So an adjective is
added where another is taken away, or where the caption stays within the mean length of the corpus.
"""

from __future__ import annotations

from .edits import Change, Draw, Edit, surface
from .lexicon import Lexicon, governor
from .replacing import describes, word_at
from .tables import (
    ADJECTIVE_MEMBERS,
    ADJECTIVES,
    ANIMATE,
    NOUN_FORMS,
    NOUN_MEMBERS,
    VERB_FORMS,
    article,
    related,
    verb_form,
)
from .tagging import Phrase, Sentence
from .words import FRAME_NOUNS, NEUTRAL, NOUN_UNITS, USUAL

_THINGS = frozenset(
    "vehicle furniture tableware electronics appliance clothing wear sports_gear carried building street "
    "barrier".split()
)
_COMPANY = frozenset("animal vehicle furniture dish produce tableware electronics clothing carried person".split())
_ADDED_KINDS = {
    **dict.fromkeys(("clothing", "carried"), ("color", "pattern")),
    **dict.fromkeys(("building", "barrier"), ("color", "material")),
}
_OFF_COLORS = frozenset("dark ivory cream golden blond blonde navy wood iron cement steel metallic turquoise".split())


def add_attribute(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Give a thing a colour, pattern or material that the caption does not mention; drop another adjective for it."""
    tokens = sentence.tokens
    present = {token.word for token in tokens}
    for phrase in draw.shuffled(sentence.phrases):
        noun, word = tokens[phrase.head].noun, tokens[phrase.head].word
        if phrase.adjectives or noun.category not in _THINGS or not phrase.plain or word in FRAME_NOUNS:
            continue
        if phrase.determiner >= 0 and phrase.head != phrase.determiner + 1 or describes(sentence, phrase.head):
            continue
        if phrase.start == phrase.head and phrase.start and tokens[phrase.start - 1].code in "JVGN.":
            continue  # "a yellow touring motorcycle"
        dropped = _droppable(sentence, phrase, draw)
        if dropped is None and _length(sentence) + 1 > lexicon.length_limit:
            continue
        usual = USUAL.get(noun.lemma, "").split()
        pool = [
            w
            for kind in _ADDED_KINDS.get(noun.category, ("color",))
            for w, _ in ADJECTIVE_MEMBERS[kind]
            if w not in present and w not in _OFF_COLORS and w not in usual
        ]
        if noun.category not in ("clothing", "wear", "carried"):
            pool = [w for w in pool if w not in NEUTRAL]
        weights = lexicon.weights(pool, word_at(sentence, phrase.head - 1), word, None, "blue")
        total = sum(lexicon.pairs.get((w, word), 0) for w, _ in weights)
        # What a thing usually is, it may be in this picture too.
        weights = [(w, g) for w, g in weights if lexicon.pairs.get((w, word), 0) <= max(1, 0.34 * total)]
        new = draw.weighted(weights)
        if new is None:
            continue
        head = surface(sentence, phrase.head)
        changes = [Change(phrase.head, phrase.head + 1, f"{new} {head}")]
        old = ""
        if dropped is not None:
            old = tokens[dropped].word
            changes.append(Change(dropped, dropped + 2, surface(sentence, dropped + 1)))
        return Edit(tuple(changes), old, f"{new} {head}")
    return None


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
        if noun.category not in _COMPANY or not phrase.start or token.word in FRAME_NOUNS or noun.mass:
            continue
        if tokens[phrase.start - 1].code not in "IGZ" or tokens[phrase.start - 1].word in ("of", "between", "like"):
            continue
        after = tokens[phrase.head + 1] if phrase.head + 1 < len(tokens) else None
        if after is not None and not (after.code == "I" and after.word != "of" or after.word in ".!"):
            continue
        plural = noun.plural
        if not plural and (phrase.determiner < 0 or tokens[phrase.determiner].code != "D"):
            continue
        if _length(sentence) + (2 if plural else 3) > lexicon.length_limit + 1:
            continue
        pool = [
            w
            for w in NOUN_MEMBERS.get((noun.category, plural, False), ())
            if not related(noun.lemma, NOUN_FORMS[w].lemma) and NOUN_FORMS[w].lemma not in present
        ]
        new = draw.weighted(lexicon.weights(pool, "<" if plural else "a", word_at(sentence, phrase.head + 1),
                                            governor(sentence, phrase), token.word))  # fmt: skip
        if new is None:
            continue
        added = f"and {new}" if plural else f"and {article(new)} {new}"
        head = surface(sentence, phrase.head)
        return Edit((Change(phrase.head, phrase.head + 1, f"{head} {added}"),), "", added.replace("_", " "))
    return None


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
