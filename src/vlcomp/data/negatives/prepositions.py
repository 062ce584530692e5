"""The rule that replaces a preposition of place."""

from __future__ import annotations

from .edits import Draw, Edit
from .lexicon import Lexicon
from .places import ADVERBS, PREPOSITIONS
from .replacing import single, word_at
from .tagging import Phrase, Sentence
from .words import FRAME_NOUNS

_HOLDING = frozenset("room place building vehicle tableware carried ground appliance furniture".split())
_OFTEN_AT = frozenset(("furniture", "room", "place", "building"))
_NEARNESS = frozenset("near beside by next_to close_to alongside".split())
# Up and down these is one and the same to who sees the picture.
_LEVEL = frozenset(
    "street road sidewalk highway runway hallway city beach river field track tracks path trail aisle lane court "
    "sidewalks streets roads".split()
)
_CALLS = frozenset("phone cell_phone cellphone tv television computer laptop radio".split())
_ON = frozenset(
    "furniture vehicle tableware place ground sports_gear animal building barrier plant electronics appliance carried "
    "street".split()
)
_SURFACES = frozenset(
    "pole rug carpet mat cloth tablecloth napkin stand platform ramp roof stage deck rail railing rack ledge "
    "cutting_board placemat mattress quilt cart crate pedestal tarp stick stone stones rocks flatbread skis board "
    "boards mound pad ski wire branch branches stairs steps bus_stop".split()
)
_KEEPS = frozenset("close right up far directly on looking seen straight out leaning leans lean".split())
_STILL = frozenset(("up", "down", "behind", "under", "in_front_of", "over"))
_PRONOUNS = frozenset("it them him her himself herself themselves itself".split())
_TO_PRONOUN = {
    "on": "under behind beside",
    "on_top_of": "under behind beside",
    "in": "beside behind",
    "inside": "beside behind",
    "next_to": "behind in_front_of",
    "above": "below",
    "below": "above",
    "over": "under",
    "under": "above",
    "behind": "in_front_of",
    "in_front_of": "behind",
}


def replace_relation(sentence: Sentence, lexicon: Lexicon, draw: Draw) -> Edit | None:
    """Replace a spatial preposition or adverb by one that excludes it."""
    sites = []
    starts = {phrase.start: phrase for phrase in sentence.phrases}
    tokens = sentence.tokens
    for index, token in enumerate(tokens):
        if token.code not in "IR":
            continue
        phrase = starts.get(index + 1)
        if phrase is not None:
            if token.word in PREPOSITIONS and _spatial(sentence, index, phrase):
                sites.append((index, _before_noun(sentence, index, phrase, lexicon)))
            continue
        right = tokens[index + 1] if index + 1 < len(tokens) else None
        left = word_at(sentence, index - 1)
        pool = ""
        if token.word in ADVERBS:
            if index and (right is None or right.code in ".G"):
                pool = ADVERBS[token.word]
        elif right is not None and right.word in _PRONOUNS:
            if index and left not in _KEEPS and tokens[index - 1].code in "NG":
                pool = _TO_PRONOUN.get(token.word, "")
        elif token.word in ("up", "down") and left in ("looking", "looks", "look", "facing", "climbing", "pointing"):
            pool = PREPOSITIONS[token.word]
        if pool:
            sites.append((index, lexicon.weights(pool.split(), left, word_at(sentence, index + 1))))
    for index, weights in draw.shuffled(sites):
        new = draw.weighted(weights)
        if new is not None:
            return single(index, tokens[index].word, new)
    return None


def _before_noun(sentence: Sentence, index: int, phrase: Phrase, lexicon: Lexicon) -> list[tuple[str, float]]:
    """Prepositions that may stand before a noun phrase instead of the one there, with weights."""
    word = sentence.tokens[index].word
    left, right = word_at(sentence, index - 1), word_at(sentence, index + 1)
    if left in _KEEPS and word not in _STILL or word == "over" and left in ("looking", "looks"):
        return []
    nearby = {word_at(sentence, place).removesuffix("_of") for place in (index - 2, index - 1, index + 1, index + 2)}
    head, noun = sentence.tokens[phrase.head].word, sentence.tokens[phrase.head].noun
    kind = noun.category
    out = set()
    if kind == "plant" and word not in ("on", "in"):
        out |= {"under", "on", "in"}  # who is near a tree may be under it
    if kind in ("vehicle", "building", "room", "place", "?") and word in _NEARNESS:
        out.add("under")
    if kind not in _ON and head not in _SURFACES or noun.lemma in _CALLS or kind in ("animal", "room"):
        out.add("on")
    if kind not in _HOLDING or kind in ("carried", "ground", "tableware", "furniture", "appliance"):
        out.add("in")
    if kind == "plant" and word in ("under", "underneath", "beneath"):
        out |= {"next_to", "beside"}  # and who is under it may be next to it
    if kind == "place" and word == "at":
        out.add("on_top_of")  # "at the beach" is on it
    if kind in ("place", "room", "building", "street", "ground") and word == "through":
        out.add("around")  # one walks around in them
    if kind not in ("room", "building", "vehicle"):
        out.add("inside")
    if kind == "place" and word == "around":
        out.add("on_top_of")
    if kind in ("furniture", "appliance", "tableware", "carried") and word == "in":
        out.add("outside")
    pool = [new for new in PREPOSITIONS[word].split() if new not in out and new.removesuffix("_of") not in nearby]
    governed = lexicon.governed
    return [(new, weight * (governed.get((new, head), 0) + 0.3)) for new, weight in lexicon.weights(pool, left, right)]


def _spatial(sentence: Sentence, index: int, phrase: Phrase) -> bool:
    """Whether a preposition tells where a thing is, in a way that another preposition can contradict."""
    word = sentence.tokens[index].word
    before = sentence.tokens[index - 1] if index else None
    if before is None and word not in ("inside", "outside", "behind", "under", "above", "in_front_of"):
        return False
    if before is not None and (before.word in ADVERBS or before.code == "I"):
        return False
    token = sentence.tokens[phrase.head]
    head, noun = token.word, token.noun
    if "_the_" in word:
        return head not in FRAME_NOUNS
    if (
        noun.category == "?"
        and not (word == "on" and head in _SURFACES)
        and word in ("in", "on", "by", "at", "through", "up", "off", "around", "into", "out_of")
    ):
        return False
    if head in FRAME_NOUNS:
        return False
    if word in ("in", "inside"):
        return noun.category in _HOLDING and (word == "inside" or before.code != "V")
    if noun.category in ("sport", "meal", "wear", "drink", "clothing"):
        return word not in ("on", "by", "up", "down", "over", "off", "around", "between", "at")
    if word == "on":
        return (noun.category in _ON or head in _SURFACES) and noun.lemma not in _CALLS
    if word == "at":
        return noun.category in _OFTEN_AT and before.code in "NGZ" and before.word not in ("looking", "looks", "stop")
    if word == "into" and before.code == "V":
        return False  # "lowered into the water"
    if word == "by":
        return before.code not in "V" or before.word in ("parked", "seated")
    if word in ("up", "down"):
        return noun.category in ("place", "building", "plant", "street", "?") and noun.lemma not in _LEVEL
    return word != "over" or before.code != "V"
