"""The rule that replaces a verb."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from .edits import Draw, Edit
from .lexicon import Lexicon
from .replacing import single, word_at
from .tables import ANIMATE, VERB_FORMS, VERB_MEMBERS, VERB_OVERLAPS, verb_form
from .tagging import Phrase, Sentence, Token
from .words import NEVER_PUT, OBJECTS

_OBJECTS = {verb: frozenset(categories.split()) for verb, categories in OBJECTS.items()}
_DOERS = ("er", "ers", "or", "ors", "ist", "ists", "man", "men", "ian", "children", "family", "team", "crowd")
_THINGS_IN_ER = frozenset(
    "blender counter container dresser printer shower flower tower water paper letter number corner sticker poster "
    "computer toaster mixer trailer cooler heater hanger marker planter folder locker cleaner dryer freezer river "
    "roller speaker monitor mirror motor color floor door elevator tractor controller charger burner sculpture "
    "steamer sweater sweeper".split()
)
_GROUPS = frozenset("group groups herd herds couple couples crowd flock team pair other others one ones someone "
                    "everyone".split())  # fmt: skip
_MOVING = frozenset("walk run crawl drive".split())
_PARTICLE_VERBS = {
    "down": frozenset("sit lie kneel crouch fall".split()),
    "up": frozenset("sit stand".split()),
    **dict.fromkeys(("out", "off", "over", "back", "away", "from", "for", "to", "together"), frozenset()),
}
_PHOTOS = frozenset("photo photos photograph photographs".split())
_PICTURES = _PHOTOS | {"picture", "pictures"}
# "through the lake" tells where somebody goes: one walks or runs there, and stands in it.
_PATHS = frozenset("through across to into onto toward towards down along past up out_of off away_from from".split())
_GOING = frozenset(
    "walk run crawl swim climb jump dance ski snowboard surf skateboard drive fly crash float fall".split()
)
_STAYING = frozenset("sit rest perch relax lounge seat stand pose lean wait lie lay sleep nap kneel crouch squat "
                     "hang float park stop".split())  # fmt: skip
_TAKING = frozenset("ride drive fly push pull carry lead chase throw kick herd".split())  # something along a path
_AIMED = frozenset("throw kick swing hit".split())  # "swinging a bat at a ball"
_AGAINST = frozenset("sit stand lie sleep kneel crouch".split())
# On these, things lie or stand: nothing "hangs on the floor".
_FLAT = frozenset("furniture room place ground dish tableware street vehicle".split())
_FLOORS = frozenset("floor floors ground carpet rug mat shelf shelves stove top surface platform deck runway tarmac "
                    "pavement tile tiles track tracks rails ledge side edge it".split())  # fmt: skip
# "seated" and "parked" tell of a state, as "standing" and "driving" do.
_STATES = {"seat": "posture", "park": "moves"}


def replace_action(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Replace a verb by another of its form that excludes it."""
    places = [
        index
        for index, token in enumerate(sentence.tokens)
        if token.code in "GZBV" and token.word in VERB_FORMS
        if not _modifier(sentence, index) and not _beside_verb(sentence, index)
    ]
    for index in draw.shuffled(places):
        new = draw.weighted(verb_candidates(sentence, index, lexicon))
        if new is not None:
            return single(index, sentence.tokens[index].word, new)
    return None


def _modifier(sentence: Sentence, index: int) -> bool:
    """ "a dining hall": a form in -ing that says what kind of thing follows."""
    before = sentence.tokens[index - 1].code if index else ""
    after = sentence.tokens[index + 1].code if index + 1 < len(sentence.tokens) else ""
    return before in ("D", "P", "J", "C", "I") and after == "N"


def _beside_verb(sentence: Sentence, index: int) -> bool:
    """Whether a verb tells how another is done ("sit parked", "leans propped"), or is one of two ("fights or plays").

    "stands holding a cup" is none: what somebody does with a thing stands for itself.
    """
    tokens = sentence.tokens
    before, after = word_at(sentence, index - 1), word_at(sentence, index + 1)
    if before == "or" or after == "or":
        return True
    following = tokens[index + 1].code if index + 1 < len(tokens) else "."
    if index and before in VERB_FORMS and (tokens[index - 1].code in "GZBV" or VERB_FORMS[before].form == "base"):
        return following not in "DPCJN"
    if following == "." and before != "and":  # "sitting at a table eating."
        return any(token.code in "GZB" and token.word in VERB_FORMS for token in tokens[:index])
    return following in ("V", "B", "Z") or following == "G" and tokens[index].code == "G"


def _path(sentence: Sentence, index: int) -> bool:
    """Whether a preposition of a path follows, before the next verb, "and" or comma."""
    for token in sentence.tokens[index:]:
        if token.code in "GZBVXKW.":
            return False
        if token.word in _PATHS:
            return True
    return False


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
    left, right = word_at(sentence, index - 1), word_at(sentence, index + 1)
    following = sentence.tokens[index + 1] if index + 1 < len(sentence.tokens) else None
    takes_object = following is not None and following.code in "DPCJNO" and following.word not in ("next", "asleep")
    goal = next((p for p in sentence.phrases if p.start == index + 1), None)
    thing = sentence.tokens[goal.head].word if goal else None
    verb = VERB_FORMS[token.word]
    target = sentence.tokens[goal.head].noun.category if goal else "?"
    if target in ("sport", "meal"):
        return []  # "playing tennis", "eating dinner"
    if verb.lemma == "take" and thing not in _PICTURES:
        return []
    if takes_object and (goal is None or not _one_object(sentence, goal)):
        return []
    if _fixed(sentence, index, verb.lemma, goal):
        return []
    state = _STATES.get(verb.lemma) if token.code == "V" else None
    if token.code == "V" and state is None:
        return []
    present = {t.word for t in sentence.tokens}
    particle = _PARTICLE_VERBS.get(right)
    if right in ("up", "down") and any(phrase.start == index + 2 for phrase in sentence.phrases):
        particle = _MOVING
    overlaps = VERB_OVERLAPS.get(verb.lemma, ())
    allowed = _allowed(subject(sentence, index), takes_object)
    suits = _frame(sentence, index, verb.lemma, goal)
    pool = []
    for category, group in verb.groups:
        if category not in allowed or state not in (None, category):
            continue
        for lemma, other, new in _members(category, "ing" if state else verb.form):
            if other == group or lemma in overlaps or particle is not None and lemma not in particle:
                continue
            if not suits(lemma):
                continue
            if category == "does" and not _goes_with(lemma, new, thing, target, lexicon):
                continue
            if new not in present and new not in pool and lemma != verb.lemma:
                pool.append(new)
    weights = lexicon.weights(pool, left, right)
    if takes_object and thing is not None:
        governed = lexicon.governed
        weights = [(w, weight * (governed.get((w, thing), 0) + 0.1)) for w, weight in weights]
    return weights


def _one_object(sentence: Sentence, goal: Phrase) -> bool:
    """Whether one object follows, with an article if it needs one: not "a goat a carrot", not "television"."""
    tokens = sentence.tokens
    head = tokens[goal.head]
    following = tokens[goal.head + 1].code if goal.head + 1 < len(tokens) else "."
    return following not in "DPCJNO" and (goal.determiner >= 0 or head.noun.plural or head.noun.mass)


def _frame(sentence: Sentence, index: int, old: str, goal: Phrase | None) -> Callable[[str], bool]:
    """A test of verbs: whether they go with the prepositions that follow."""
    if goal is not None:
        after = word_at(sentence, goal.head + 1)
        if after == "at" and old in _AIMED:
            return _AIMED.__contains__
        return _TAKING.__contains__ if _path(sentence, goal.head + 1) else lambda lemma: True
    if word_at(sentence, index + 1) == "against":
        return _AGAINST.__contains__
    if old not in _STAYING and _path(sentence, index + 1):
        return _GOING.__contains__
    return lambda lemma: lemma != "hang" or not _lies_flat(sentence, index + 1)


def _lies_flat(sentence: Sentence, index: int) -> bool:
    """Whether "on the floor" or "on top of ..." follows, before the next verb."""
    starts = {phrase.start: phrase.head for phrase in sentence.phrases}
    for place in range(index, len(sentence.tokens)):
        word, code = sentence.tokens[place].word, sentence.tokens[place].code
        if code in "GZBVXKW.":
            return False
        if word == "on":
            goal = sentence.tokens[starts[place + 1]] if place + 1 in starts else None
            if goal is None or goal.word in _FLOORS or goal.noun.category in _FLAT:
                return True
        elif word == "at" or word.startswith("on_"):
            return True
    return False


def _fixed(sentence: Sentence, index: int, old: str, goal: Phrase | None) -> bool:
    """Whether what follows goes with this verb only: "talking on the phone", "holding a cup in one hand"."""
    if goal is None:
        return old in ("talk", "speak", "chat") and word_at(sentence, index + 1) == "on"
    if old not in ("hold", "carry"):
        return False
    after = word_at(sentence, goal.head + 1)
    place = next((p for p in sentence.phrases if p.start == goal.head + 2), None)
    return after == "in" and place is not None and sentence.tokens[place.head].noun.category == "body"


def _goes_with(lemma: str, new: str, thing: str | None, category: str, lexicon: Lexicon) -> bool:
    """Whether a verb may have a noun for its object."""
    if thing in _PICTURES:  # nobody paints photos
        return lemma == "hold" or lemma == "paint" and thing not in _PHOTOS
    return category in _OBJECTS.get(lemma, ()) or (new, thing) in lexicon.governed


@lru_cache(maxsize=256)
def _members(category: str, form: str) -> tuple[tuple[str, int, str], ...]:
    """Verbs of a class that may be put in: lemma, group, form."""
    return tuple(
        (lemma, group, verb_form(lemma, form))
        for lemma, group in VERB_MEMBERS[category]
        if lemma not in NEVER_PUT and (category, lemma) != ("moves", "run")  # "an airplane running"
    )


def _allowed(actor: Token | None, takes_object: bool) -> tuple[str, ...]:
    """Classes of verbs that go with a subject and with an object or none."""
    if takes_object:
        return ("does",)
    noun = actor.noun if actor is not None else None
    if noun is None or noun.category in ANIMATE or actor.word in _GROUPS:
        return ("posture", "glide", "speaks")
    if noun.category == "?" and actor.word.endswith(_DOERS) and actor.word not in _THINGS_IN_ER:
        return ("posture", "glide", "speaks")
    return ("moves",) if noun.category == "vehicle" else ("lies",)
