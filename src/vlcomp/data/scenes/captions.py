"""English for scenes: captions, long captions, and the hard negatives that go with a training caption.

A caption is a list of *mentions* joined by "and" or a relation, perhaps with the background at its end. Three kinds of
caption are mixed (see :data:`CAPTION_MIX`). The mix is what makes a plainly trained CLIP behave as CLIP does on the
web: many captions give colours without nouns and nouns without colours, so that knowing which words are true of a
picture explains nearly all of the training loss, and knowing which colour goes with which noun hardly any.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .world import ALLOWED_COLOURS, INVERSE, SHAPES, Scene, is_held_out, relation_between

CAPTION_MIX = {"colours": 0.3, "nouns": 0.4, "attributed": 0.3}
RELATION_SHARE = 0.2
ANNOTATED_RELATION_SHARE = 0.5
BACKGROUND_SHARE = 0.3
THREE_SHARE = 0.6
TEXTURE_SHARE = 0.15
SIZE_SHARE = 0.15
COLOURLESS_SHARE = 0.15


@dataclass(frozen=True)
class Mention:
    """One object as a caption names it; an absent word is `None`."""

    index: int
    noun: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None

    def phrase(self) -> str:
        words = [w for w in (self.size, self.texture, self.colour, self.noun or "thing") if w]
        return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


@dataclass(frozen=True)
class Caption:
    """A caption's structure; :meth:`text` is its English."""

    mentions: tuple[Mention, ...]
    relation: str | None = None
    background: str | None = None

    def text(self) -> str:
        phrases = [mention.phrase() for mention in self.mentions]
        if self.relation:
            start = f"{phrases[0]} {self.relation} {phrases[1]}"
            phrases = [start, *phrases[2:]]
        text = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
        return f"{text} on {self.background}" if self.background else text

    def with_mention(self, position: int, **changes: object) -> Caption:
        """The same caption with words of one mention changed."""
        mentions = list(self.mentions)
        mentions[position] = replace(mentions[position], **changes)
        return replace(self, mentions=tuple(mentions))


def sample_caption(
    rng: random.Random,
    scene: Scene,
    *,
    kind: str | None = None,
    num_mentions: int | None = None,
    relation: bool | None = None,
    colour_all: bool = False,
) -> Caption:
    """Draw a true caption of a scene.

    Args:
        rng (`random.Random`):
            Source of randomness.
        scene (`Scene`):
            What the caption is about.
        kind (`str`, *optional*):
            `"colours"`, `"nouns"` or `"attributed"`; drawn from :data:`CAPTION_MIX` if not given.
        num_mentions (`int`, *optional*):
            How many objects to name; two, or three in :data:`THREE_SHARE` of the scenes that have them, if not given.
        relation (`bool`, *optional*):
            Whether the first two mentions are joined by a relation; drawn with :data:`RELATION_SHARE` if not given.
        colour_all (`bool`, defaults to `False`):
            Every mention of an attributed caption has its colour (otherwise some lack it).

    Returns:
        `Caption`
    """
    kind = kind or rng.choices(tuple(CAPTION_MIX), tuple(CAPTION_MIX.values()))[0]
    count = len(scene.objects)
    related = (rng.random() < RELATION_SHARE if relation is None else relation) and count > 1
    if num_mentions is None:
        num_mentions = 3 if count == 3 and rng.random() < THREE_SHARE else 2
    # Only the first two objects of a scene are sure to stand in a clear relation.
    order = [0, 1] if related else rng.sample(range(count), min(2, count))
    rng.shuffle(order)
    if num_mentions == 3:
        order += [i for i in range(count) if i not in order]
    mentions = []
    for index in order:
        item = scene.objects[index]
        mention = Mention(index)
        if kind != "colours":
            mention = replace(mention, noun=item.shape)
        if kind == "colours" or (kind == "attributed" and (colour_all or rng.random() >= COLOURLESS_SHARE)):
            mention = replace(mention, colour=item.colour)
        if rng.random() < TEXTURE_SHARE:
            mention = replace(mention, texture=item.texture)
        if item.size != "medium" and rng.random() < SIZE_SHARE:
            mention = replace(mention, size=item.size)
        mentions.append(mention)
    name = relation_between(scene.objects[order[0]], scene.objects[order[1]]) if related else None
    background = scene.background if rng.random() < BACKGROUND_SHARE else None
    return Caption(tuple(mentions), name, background)


def annotated_caption(rng: random.Random, scene: Scene) -> Caption:
    """A true caption as an annotator writes it: each named object has its colour, and half say a relation."""
    return sample_caption(
        rng, scene, kind="attributed", relation=rng.random() < ANNOTATED_RELATION_SHARE, colour_all=True
    )


def long_caption(rng: random.Random, scene: Scene) -> str:
    """Everything there is to say about a scene, in several sentences (about 20 to 60 words)."""
    order = list(range(len(scene.objects)))
    rng.shuffle(order)
    count = {1: "one thing", 2: "two things", 3: "three things"}[len(order)]
    sentences = [f"The picture shows {count} on {scene.background}."]
    for index in order:
        item = scene.objects[index]
        mention = Mention(index, item.shape, item.colour, item.texture, item.size)
        phrase = mention.phrase()
        sentences.append(f"There is {phrase} {_place_words(item.x, item.y)}.")
    for first, second in zip(order, order[1:], strict=False):
        a, b = scene.objects[first], scene.objects[second]
        name = relation_between(a, b)
        if name:
            sentences.append(f"The {a.shape} is {name} the {b.shape}.")
    return " ".join(sentences)


def _place_words(x: float, y: float) -> str:
    row = "top" if y < 0.36 else "bottom" if y > 0.64 else "middle"
    column = "left" if x < 0.36 else "right" if x > 0.64 else "centre"
    return "in the centre" if (row, column) == ("middle", "centre") else f"at the {row} {column}"


def training_negatives(rng: random.Random, scene: Scene, caption: Caption) -> list[tuple[str, str]]:
    """False captions as a training set would have them: `(type, text)`, one for each type that the caption allows.

    No negative names a held-out colour-noun pair, so the systematic split stays unseen.
    """
    found: list[tuple[str, str]] = []

    def add(name: str, other: Caption) -> None:
        text = other.text()
        unseen = any(m.noun and m.colour and is_held_out(m.noun, m.colour) for m in other.mentions)
        if not unseen and text != caption.text():
            found.append((name, text))

    coloured = [p for p, m in enumerate(caption.mentions) if m.colour]
    named = [p for p, m in enumerate(caption.mentions) if m.noun]
    shapes = {item.shape for item in scene.objects}
    colours = {item.colour for item in scene.objects}
    if named:
        position = rng.choice(named)
        add("replace_object", caption.with_mention(position, noun=rng.choice([s for s in SHAPES if s not in shapes])))
    if coloured:
        position = rng.choice(coloured)
        shape = scene.objects[caption.mentions[position].index].shape
        choices = [c for c in ALLOWED_COLOURS[shape] if c not in colours]
        add("replace_attribute", caption.with_mention(position, colour=rng.choice(choices)))
    if caption.relation:
        add("replace_relation", replace(caption, relation=INVERSE[caption.relation]))
        if len(named) == len(caption.mentions):
            add("swap_object", swap_mentions(caption))
    bound = [p for p in coloured if caption.mentions[p].noun]
    if len(bound) >= 2:
        add("swap_attribute", swap_colours(caption, *rng.sample(bound, 2)))
    return found


def swap_mentions(caption: Caption) -> Caption:
    """ "a star left of a cup" to "a cup left of a star": first and second mention exchanged, the relation kept."""
    return replace(caption, mentions=(caption.mentions[1], caption.mentions[0], *caption.mentions[2:]))


def swap_colours(caption: Caption, first: int = 0, second: int = 1) -> Caption:
    """ "a red star and a blue cup" to "a blue star and a red cup"."""
    a, b = caption.mentions[first].colour, caption.mentions[second].colour
    return caption.with_mention(first, colour=b).with_mention(second, colour=a)
