"""From a caption to tokens with offsets, parts of speech and noun phrases."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from ...errors import ArgumentError
from . import places, words
from .tables import ADJECTIVES, NOUN_FORMS, VERB_FORMS, Noun

TaggingFunction = Callable[[list[str]], Sequence[str]]

_TOKEN = re.compile(r"\w+(?:['’.\-]\w+)*['’]?(?<=\w)|\w+|[^\w\s]")
_BE = frozenset("is are was were be been being am isn't aren't".split())
_CLAUSE = frozenset("that while which who whose where when as because if although though like than what how".split())
_NOUNS_IN_S = frozenset("tracks sinks bears mirrors handles lights lamps stands stops signs racks".split())
_ACTORS = frozenset(("person", "role", "animal"))
# Penn Treebank tags as one letter; what is not here is "?".
_CODES = {
    **dict.fromkeys(("DT", "PDT"), "D"),
    "CD": "C",
    **dict.fromkeys(("JJ", "JJR", "JJS"), "J"),
    **dict.fromkeys(("NN", "NNS", "NNP", "NNPS"), "N"),
    "VBG": "G",
    **dict.fromkeys(("VBN", "VBD"), "V"),
    "VBZ": "Z",
    **dict.fromkeys(("VB", "VBP"), "B"),
    "IN": "I",
    "TO": "T",
    "CC": "K",
    **dict.fromkeys(("RB", "RBR", "RBS", "RP"), "R"),
    "PRP": "O",
    "PRP$": "P",
    **dict.fromkeys(("WDT", "WP", "WRB", "WP$"), "W"),
    "EX": "E",
}


def _units() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """Names of several words by their first word, longest first, with their code."""
    found = {unit: "I" for unit in places.PREPOSITION_UNITS}
    found.update({unit: "R" for unit in places.ADVERBS if "_" in unit})
    found.update({form: "N" for form in NOUN_FORMS if "_" in form})
    found.update({unit: "N" for unit in words.UNITS})
    out: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for unit, code in found.items():
        parts = tuple(unit.split("_"))
        out.setdefault(parts[0], []).append((parts, code))
    for entries in out.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return out


_UNITS = _units()


class Token:
    """A word, a name of several words, or a punctuation mark."""

    __slots__ = ("code", "end", "noun", "start", "word")

    def __init__(self, word: str, start: int, end: int, code: str) -> None:
        self.word = word  # lower case; several words joined by "_"
        self.start = start
        self.end = end
        self.code = code
        self.noun: Noun | None = None


class Phrase:
    """A noun phrase: tokens `start` up to `head`, `head` included; `determiner` is a position or -1."""

    __slots__ = ("adjectives", "determiner", "head", "plain", "start")

    def __init__(self, start: int, head: int, determiner: int, adjectives: list[int], plain: bool) -> None:
        self.start = start
        self.head = head
        self.determiner = determiner
        self.adjectives = adjectives
        self.plain = plain  # no noun before the head


class Sentence:
    """A caption, taken apart."""

    __slots__ = ("phrases", "style", "text", "tokens")

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text = text
        self.tokens = tokens
        self.phrases = _phrases(tokens)
        self.style = "plain" if text[1:].islower() else _style(text, tokens)


def _style(text: str, tokens: list[Token]) -> str:
    letters = [text[token.start] for token in tokens if text[token.start].isalpha()]
    capitals = sum(map(str.isupper, letters))
    return "upper" if text.isupper() else "title" if capitals > max(2, 0.7 * len(letters)) else "plain"


def make_tagger(name: str | TaggingFunction) -> TaggingFunction:
    """The function that gives Penn Treebank tags to a list of words.

    Args:
        name (`str` or callable):
            `"textblob"`, `"spacy"` (with `en_core_web_sm`), `"spacy:<model>"`, or a function of a list of words.

    Returns:
        `Callable[[list[str]], Sequence[str]]`

    Raises:
        ArgumentError: if the tagger is unknown or its library or model is not installed.
    """
    if callable(name):
        return name
    if name == "textblob":
        return _textblob()
    kind, _, model = name.partition(":")
    if kind == "spacy":
        return _spacy(model or "en_core_web_sm")
    raise ArgumentError(
        f"tagger={name!r} is not 'textblob', 'spacy', 'spacy:<model>' or a function of a list of words"
    )


def _textblob() -> TaggingFunction:
    try:
        from textblob.en import parser
    except ImportError as error:
        raise ArgumentError("tagger='textblob' needs TextBlob: pip install textblob") from error

    def tags(tokens: list[str]) -> list[str]:
        # What PatternTagger does, without its tokenizer (whose tokens have no offsets) and its markup ("/").
        return [pair[1] for pair in parser.find_tags(tokens)]

    tags(["a"])  # reads the lexicon now, so that forked processes share it
    return tags


@lru_cache(maxsize=2)
def _spacy(model: str) -> TaggingFunction:
    try:
        import spacy

        pipeline = spacy.load(model, exclude=["parser", "ner", "lemmatizer"])
    except ImportError as error:
        raise ArgumentError("tagger='spacy' needs spaCy: pip install spacy") from error
    except OSError as error:
        raise ArgumentError(
            f"spaCy has no model {model!r} here: python -m spacy download {model}, or tagger='textblob'"
        ) from error

    def tags(tokens: list[str]) -> list[str]:
        doc = spacy.tokens.Doc(pipeline.vocab, words=tokens)
        for _, component in pipeline.pipeline:
            doc = component(doc)
        return [token.tag_ for token in doc]

    return tags


def parse(text: str, tagger: TaggingFunction) -> Sentence:
    """Tokens, parts of speech and noun phrases of a caption.

    Args:
        text (`str`):
            The caption.
        tagger (`Callable`):
            See [`make_tagger`].

    Returns:
        [`Sentence`]
    """
    spans = [match.span() for match in _TOKEN.finditer(text)]
    if not spans:
        return Sentence(text, [])
    lower = text.lower().replace("’", "'")
    if len(lower) == len(text):
        found = [lower[start:end] for start, end in spans]
    else:  # a letter like "İ" becomes two
        found = [text[start:end].lower().replace("’", "'") for start, end in spans]
    tags = tagger(found)
    if len(tags) != len(spans):
        raise ArgumentError(f"the tagger gave {len(tags)} tags for the {len(spans)} words of {text!r}")
    tokens: list[Token] = []
    position, count = 0, len(spans)
    while position < count:
        word = found[position]
        start, end = spans[position]
        code = ""
        for parts, unit_code in _UNITS.get(word, ()):
            length = len(parts)
            if tuple(found[position : position + length]) == parts:
                code, word, end = unit_code, "_".join(parts), spans[position + length - 1][1]
                position += length
                break
        if not code:
            code = _code(word, tags[position])
            position += 1
        tokens.append(Token(word, start, end, code))
    _correct(tokens)
    return Sentence(text, tokens)


@lru_cache(maxsize=65536)
def _code(word: str, tag: str) -> str:
    if not (word[0].isalnum() or word[0] == "_"):
        return "."
    if word in _BE:
        return "X"
    if word in _CLAUSE:
        return "W"
    if word.endswith("'s") and word not in ("it's", "there's", "that's", "he's", "she's"):
        return "P"
    if word in ("past", "near", "besides"):
        return "I"
    if word in ("another", "every", "each", "some", "no"):
        return "D"
    code = _CODES.get(tag, "?")
    if code == "R" and word in places.PREPOSITIONS:
        return "I"
    return code


def _correct(tokens: list[Token]) -> None:
    """What the tagger gets wrong in captions, whose words are mostly names of things."""
    last = len(tokens) - 1
    before = ""
    for index, token in enumerate(tokens):
        word, code = token.word, token.code
        after = tokens[index + 1].code if index < last else "."
        noun = NOUN_FORMS.get(word)
        if code in "BZ" and before in ("D", "P", "J", "C"):
            token.code = "N"  # "a stand", "two bears"
        elif code in "VG" and before in ("D", "P", "J", "C") and after in "NJ":
            token.code = "J"  # "a broken pole", "a smiling woman"
        elif code == "N" and word in ADJECTIVES and (after == "N" or after == "J"):
            token.code = "J"  # "a brick building", "an orange cat"
        elif code == "N" and word in ADJECTIVES and noun is None and before in ("X", "K"):
            token.code = "J"
        elif code == "N" and noun is None and word.endswith("ing") and len(word) > 5 and before in ("X", "N"):
            token.code = "G"  # "people skiing"
        elif code == "J" and noun is not None and word not in ADJECTIVES and after not in ("N", "J", "C"):
            token.code = "N"
        elif code == "B" and before == "N" and not tokens[index - 1].noun.plural and _single(tokens, index - 1):
            token.code = "N"  # "a fruit stand"
        elif code == "Z" and before == "N" and word in _NOUNS_IN_S:
            token.code = "N"  # "train tracks"
        elif code in "BR" and noun is not None and before in ("N", "I") and word not in VERB_FORMS:
            token.code = "N"
        elif code == "?" and noun is not None:
            token.code = "N"
        elif (
            code == "N"
            and noun is None
            and before == "N"
            and after in "IDPR"
            and word.endswith("s")
            and not word.endswith("ss")
            and word not in _NOUNS_IN_S
            and tokens[index - 1].noun.category in _ACTORS
            and not tokens[index - 1].noun.plural
        ):
            token.code = "Z"  # "a skateboarder balances on a rail"
        elif code == "N" and noun is None and after in "DP" and (verb := VERB_FORMS.get(word)) and verb.form == "s":
            token.code = "Z"  # "in orange grabs the ball"
        if token.code == "N":
            token.noun = noun or _unknown(word)
        before = token.code


def _single(tokens: list[Token], index: int) -> bool:
    """Whether a noun is one thing: "a fruit", not "a group", "fruit" or "a boy and his dog"."""
    if tokens[index].word in words.FRAME_NOUNS or tokens[index].noun.lemma in ("sheep", "fish", "deer", "cattle"):
        return False
    while index and tokens[index - 1].code in "JN":
        index -= 1
    return index > 0 and tokens[index - 1].word in ("a", "an", "the") and (index < 2 or tokens[index - 2].code != "K")


@lru_cache(maxsize=65536)
def _unknown(word: str) -> Noun:
    if word.endswith("ies") and len(word) > 4:
        return Noun(word[:-3] + "y", True, "?", False)
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return Noun(word[:-1], True, "?", False)
    return Noun(word, False, "?", False)


def _phrases(tokens: list[Token]) -> list[Phrase]:
    out: list[Phrase] = []
    index, count = 0, len(tokens)
    while index < count:
        start, determiner, adjectives = index, -1, []
        while (
            index < count
            and tokens[index].code in "DPC"
            or index < count
            and tokens[index].code == "R"
            and (determiner >= 0 and index + 1 < count and tokens[index + 1].code in "JV")
        ):
            if determiner < 0:
                determiner = index
            if tokens[index].code == "C":
                adjectives.append(index)
            index += 1
        while index < count and (
            tokens[index].code in "JC"
            or tokens[index].code == "K"
            and adjectives
            and adjectives[-1] == index - 1
            and index + 1 < count
            and tokens[index + 1].code == "J"
        ):
            if tokens[index].code != "K":
                adjectives.append(index)
            index += 1
        first = index
        while index < count and tokens[index].code == "N":
            index += 1
        if index > first:
            out.append(Phrase(start, index - 1, determiner, adjectives, index - first == 1))
        elif index == start:
            index += 1
    return out
