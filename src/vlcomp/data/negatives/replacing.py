"""Rules that replace one word: noun, adjective, verb, preposition."""

from __future__ import annotations

from .edits import Change, Draw, Edit
from .lexicon import Lexicon, governor
from .tables import (
    ADJECTIVE_MEMBERS,
    ADJECTIVES,
    ANIMATE,
    NOUN_FORMS,
    NOUN_MEMBERS,
    RELATED_VERBS,
    VERB_FORMS,
    VERB_MEMBERS,
    Noun,
    relatives,
    same_stem,
    verb_form,
)
from .tagging import Phrase, Sentence, Token
from .words import (
    COMPOUND_ENDS,
    FIXED_NAMES,
    FRAME_NOUNS,
    HYPERNYMS,
    NOUN_UNITS,
    OBJECTS,
    PREPOSITIONS,
    VAGUE_ADJECTIVES,
    VAGUE_VERBS,
)

_DEFINITE = frozenset("the his her their its my your our this that these those".split())
_OBJECTS = {verb: frozenset(categories.split()) for verb, categories in OBJECTS.items()}
_HOLDING = frozenset("room place building vehicle tableware carried ground appliance furniture".split())
_DOERS = ("er", "ers", "or", "ors", "ist", "ists", "man", "men", "children", "family", "team", "crowd")
_MOVING = frozenset("walk run crawl race drive gallop".split())
_PARTICLE_VERBS = {
    "down": frozenset("sit lie kneel crouch fall".split()),
    "up": frozenset("sit stand".split()),
    **dict.fromkeys(("out", "off", "over", "back", "away"), frozenset()),
}
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
        pool = lexicon.of_kind("N+" if noun.plural else "N")
        pool = [w for w in pool if lexicon.seen(left, w) and lexicon.seen(w, right) and not same_stem(w, token.word)]
    else:
        plural = _plural(sentence, phrase)
        category = HYPERNYMS.get(noun.lemma, noun.category)
        pool = NOUN_MEMBERS.get((category, plural, noun.mass), ())
        if noun.category == "ground" or phrase.determiner >= 0 and word_at(sentence, phrase.determiner) in _DEFINITE:
            pool = [*pool, *NOUN_MEMBERS.get((category, plural, not noun.mass), ())] if noun.mass else pool
        clash = relatives(noun.lemma)
        pool = [w for w in pool if NOUN_FORMS[w].lemma not in clash]
        if _own_adjective_clash(sentence, phrase):
            pool = [w for w in pool if NOUN_FORMS[w].category in ("person", "role", "animal")]
    if not phrase.plain:  # "baseball ..." wants what follows baseball elsewhere
        pool = [w for w in pool if lexicon.seen(left, w)]
    pool = [w for w in pool if (NOUN_FORMS[w].lemma if w in NOUN_FORMS else w) not in present]
    weights = lexicon.weights(pool, left, right, governor(sentence, phrase), token.word)
    return [(word, weight * (1.0 if ("_" in word) == ("_" in token.word) else 0.5)) for word, weight in weights]


def _own_adjective_clash(sentence: Sentence, phrase: Phrase) -> bool:
    return any(sentence.tokens[i].word in ("young", "elderly", "pregnant") for i in phrase.adjectives)


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
    known, unknown = [], []
    for index, token in enumerate(tokens):
        after = word_at(sentence, index + 1)
        if token.code == "C" and after in ("of", "-", "/") or after in COMPOUND_ENDS:
            continue
        if f"{token.word}_{after}" in FIXED_NAMES or index and word_at(sentence, index - 1) == "-":
            continue
        if token.word in ADJECTIVES and token.code in "JC" or token.code in "NV" and _predicative(sentence, index):
            if not (token.word in ("left", "right", "light", "clear", "short", "open") and token.code != "J"):
                known.append(index)
        elif token.code == "J" and token.word not in VAGUE_ADJECTIVES and token.word.isalpha():
            unknown.append(index)
    for index in draw.shuffled(known) + draw.shuffled(unknown):
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
        if noun is None:
            return []
        pool = [w for w in lexicon.of_kind("J") if lexicon.seen(w, right) and not same_stem(w, word)]
        pool = [w for w in pool if w not in present]
        return lexicon.weights(pool, left, right, None, word)
    kind = adjective.category
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
    return lexicon.weights(pool, left, right, None, word)


def replace_relation(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Replace a spatial preposition by one that excludes it."""
    sites = []
    starts = {phrase.start: phrase for phrase in sentence.phrases}
    for index, token in enumerate(sentence.tokens):
        if token.word not in PREPOSITIONS or token.code not in "IR":
            continue
        phrase = starts.get(index + 1)
        if _spatial(sentence, index, phrase):
            sites.append((index, phrase))
    for index, phrase in draw.shuffled(sites):
        word = sentence.tokens[index].word
        left, right = word_at(sentence, index - 1), word_at(sentence, index + 1)
        head = sentence.tokens[phrase.head].word if phrase else None
        weights = []
        nearby = [
            word_at(sentence, place).removesuffix("_of") for place in (index - 2, index - 1, index + 1, index + 2)
        ]
        pool = [new for new in PREPOSITIONS[word].split() if new.removesuffix("_of") not in nearby]
        if phrase is not None and "under" in pool and sentence.tokens[phrase.head].noun.category == "plant":
            pool.remove("under")  # who is near a tree may be under it
        if left in ("close", "right", "up", "far", "directly", "on", "looking", "seen") and word not in (
            "up", "down", "behind", "under", "in_front_of", "over"
        ):  # fmt: skip
            continue
        for new, weight in lexicon.weights(pool, left, right, None, word):
            if head is not None:
                weight *= lexicon.governed.get((new, head), 0) + 0.3
            weights.append((new, weight))
        new = draw.weighted(weights)
        if new is not None:
            return single(index, word, new)
    return None


def _spatial(sentence: Sentence, index: int, phrase: Phrase | None) -> bool:
    """Whether a preposition tells where a thing is, in a way that another preposition can contradict."""
    word = sentence.tokens[index].word
    before = sentence.tokens[index - 1] if index else None
    if phrase is None:
        return word in ("up", "down") and before is not None and before.word in (
            "looking", "looks", "look", "facing", "walking", "going", "climbing", "pointing"
        )  # fmt: skip
    if before is None and word not in ("inside", "outside", "behind", "under", "above", "in_front_of"):
        return False
    token = sentence.tokens[phrase.head]
    head, noun = token.word, token.noun
    if noun.category == "?" and word in ("in", "on", "by", "through", "up", "off", "at"):
        return False
    if word in ("in", "inside"):
        return noun.category in _HOLDING and (word == "inside" or head not in FRAME_NOUNS and before.code != "V")
    if head in FRAME_NOUNS or noun.category in ("sport", "meal", "wear", "drink"):
        return word not in ("on", "by", "up", "down", "over", "off", "around", "between") and head not in FRAME_NOUNS
    if word == "on":
        fits = ("furniture", "vehicle", "tableware", "place", "ground", "sports_gear", "animal", "building", "barrier",
                "plant", "electronics", "appliance", "carried", "street")  # fmt: skip
        calls = noun.lemma in ("phone", "cell_phone", "cellphone", "tv", "television", "computer", "laptop", "radio")
        return noun.category in fits and not calls
    if word == "by":
        return before.code not in "V" or before.word in ("parked", "seated")
    if word in ("up", "down"):
        return noun.category in ("place", "building", "plant", "street") and before.code not in "V"
    if word == "over" and before.code == "V":
        return False
    return word != "along" or noun.category in ("place", "barrier", "?")


def replace_action(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Replace a verb by another of its form that excludes it."""
    known, unknown = [], []
    for index, token in enumerate(sentence.tokens):
        if token.code in "GZB" and not _modifier(sentence, index) or token.code == "V" and token.word in VERB_FORMS:
            (known if token.word in VERB_FORMS else unknown).append(index)
    for index in draw.shuffled(known) + draw.shuffled(unknown):
        new = draw.weighted(verb_candidates(sentence, index, lexicon))
        if new is not None:
            return single(index, sentence.tokens[index].word, new)
    return None


def _modifier(sentence: Sentence, index: int) -> bool:
    """ "a dining hall": a form in -ing that says what kind of thing follows."""
    before = sentence.tokens[index - 1].code if index else ""
    after = sentence.tokens[index + 1].code if index + 1 < len(sentence.tokens) else ""
    return before in ("D", "P", "J", "C", "I") and after == "N"


def subject(sentence: Sentence, index: int) -> Token | None:
    """The noun that a verb belongs to: the nearest before it that is not inside a "with ..." or "in ...".

    Args:
        sentence ([`Sentence`]):
            The caption.
        index (`int`):
            Position of the verb.

    Returns:
        [`Token`] or `None`
    """
    found = None
    for phrase in reversed(sentence.phrases):
        if phrase.head >= index:
            continue
        found = sentence.tokens[phrase.head]
        before = sentence.tokens[phrase.start - 1] if phrase.start else None
        if before is None or before.code not in "IT" or before.word == "of":
            if before is None or before.code != "K":
                return found
    return found


def verb_candidates(sentence: Sentence, index: int, lexicon: Lexicon) -> list[tuple[str, float]]:
    """Verbs that may stand at a place and exclude the one there, with weights.

    Args:
        sentence ([`Sentence`]):
            The caption.
        index (`int`):
            Position of the verb.
        lexicon ([`Lexicon`]):
            Counts of the corpus.

    Returns:
        `list[tuple[str, float]]`
    """
    token = sentence.tokens[index]
    word = token.word
    left, right = word_at(sentence, index - 1), word_at(sentence, index + 1)
    following = sentence.tokens[index + 1] if index + 1 < len(sentence.tokens) else None
    takes_object = following is not None and following.code in "DPCJNO" and following.word not in ("next", "asleep")
    goal = next((p for p in sentence.phrases if p.start == index + 1), None)
    thing = sentence.tokens[goal.head].word if goal else None
    verb = VERB_FORMS.get(word)
    present = {t.word for t in sentence.tokens}
    if verb is None:
        if word in VAGUE_VERBS or right in ("to", "at", "up", "down", "out", "off", "over", "back"):
            return []
        pool = [w for w in lexicon.of_kind(token.code) if lexicon.seen(w, right) and lexicon.seen(left, w)]
        pool = [w for w in pool if w not in present and not same_stem(w, word) and w not in VAGUE_VERBS]
        if takes_object and thing is not None:
            pool = [w for w in pool if (w, thing) in lexicon.governed] or pool
        return lexicon.weights(pool, left, right, None, word)
    if (
        thing is not None
        and NOUN_FORMS.get(thing, None) is not None
        and NOUN_FORMS[thing].category in ("sport", "meal")
    ):
        if verb.lemma in ("play", "eat", "make", "have"):
            return []
    actor = subject(sentence, index)
    animate = actor is None or actor.noun.category in ANIMATE or actor.word in FRAME_NOUNS
    animate = animate or actor.noun.category == "?" and actor.word.endswith(_DOERS)
    vehicle = actor is not None and actor.noun.category == "vehicle"
    passive = token.code == "V"
    form = verb.form
    if passive and verb.lemma == "park":
        form = "ing"
    pool = []
    target = sentence.tokens[goal.head].noun.category if goal else "?"
    particle = _PARTICLE_VERBS.get(right)
    if right in ("up", "down") and any(phrase.start == index + 2 for phrase in sentence.phrases):
        particle = _MOVING
    for category, group in verb.groups:
        if category == "does":
            if not takes_object or passive:
                continue
        elif takes_object or category == "covers" and not passive or passive and category not in ("covers", "moves"):
            continue
        if category == "posture" and not animate or category == "lies" and (animate or vehicle):
            continue
        if category == "moves" and not vehicle or vehicle and category in ("posture", "lies"):
            continue
        for lemma, other in VERB_MEMBERS[category]:
            if other == group or lemma in RELATED_VERBS.get(verb.lemma, ()):
                continue
            if particle is not None and lemma not in particle:
                continue
            new = verb_form(lemma, "en" if passive and form != "ing" else form)
            if category == "does" and (new, thing) not in lexicon.governed and target not in _OBJECTS.get(lemma, ()):
                continue
            new = "lying" if lemma == "lay" and form == "ing" else new
            if new not in present and new not in pool and lemma not in ("lay", "go") and lemma != verb.lemma:
                pool.append(new)
    weights = lexicon.weights(pool, left, right, None, word)
    if takes_object and thing is not None:
        weights = [(w, weight * (lexicon.governed.get((w, thing), 0) + 0.1)) for w, weight in weights]
    return weights
