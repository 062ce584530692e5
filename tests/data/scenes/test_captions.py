import random
import re

from vlcomp.data.scenes.captions import long_caption, sample_caption, swap_colours, swap_mentions, training_negatives
from vlcomp.data.scenes.oracle import CONTENT_WORDS, content_words, true_words
from vlcomp.data.scenes.world import COLOURS, SHAPES, is_held_out, relation_between, sample_scene


def drawn(count=500):
    for i in range(count):
        rng = random.Random(i)
        scene = sample_scene(rng)
        yield rng, scene, sample_caption(rng, scene)


def check_true(text, scene):
    """Read the caption as English, knowing nothing of how it was made, and compare it with the scene."""
    body = re.sub(r" on (sand|sky|mint|rose)$", lambda m: "" if m[1] == scene.background else " FALSE", text)
    parts = re.split(r", | and | (left of|right of|above|below) ", body)
    phrases = [p for p in parts if p and p not in ("left of", "right of", "above", "below")]
    relation = next((p for p in parts if p in ("left of", "right of", "above", "below")), None)
    found = []
    for phrase in phrases:
        article, *words = phrase.split()
        assert article == ("an" if words[0][0] in "aeiou" else "a"), text
        match = [
            o for o in scene.objects
            if all(w in (o.shape, o.colour, o.texture, o.size, "thing") for w in words)
        ]  # fmt: skip
        assert match, (text, scene)
        found.append(match)
    if relation:
        assert any(relation_between(a, b) == relation for a in found[0] for b in found[1]), (text, scene)


def test_captions_are_true_english():
    for _, scene, caption in drawn():
        check_true(caption.text(), scene)


def test_mix_of_kinds():
    texts = [caption.text() for _, _, caption in drawn(3000)]
    colours = sum("thing" in t for t in texts) / len(texts)
    nouns = sum(not content_words(t) & set(COLOURS) for t in texts) / len(texts)
    assert abs(colours - 0.3) < 0.03 and abs(nouns - 0.4) < 0.04
    related = sum(any(f" {r} " in t for r in ("left of", "right of", "above", "below")) for t in texts) / len(texts)
    assert abs(related - 0.2) < 0.03


def test_negatives_are_false_and_typed():
    seen = set()
    for rng, scene, caption in drawn():
        for kind, text in training_negatives(rng, scene, caption):
            seen.add(kind)
            assert text != caption.text()
            if kind.startswith("swap"):
                assert sorted(re.findall(r"\w+", text.replace("an ", "a "))) == sorted(
                    re.findall(r"\w+", caption.text().replace("an ", "a "))
                )
                # Swapped captions name only true things: false is how they go together.
                assert content_words(text) <= true_words(scene.to_json())
            else:
                assert content_words(text) != content_words(caption.text())
    assert seen == {"replace_object", "replace_attribute", "replace_relation", "swap_object", "swap_attribute"}


def test_negatives_name_no_held_out_pair():
    pair = re.compile(f"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")
    for rng, scene, caption in drawn():
        for _, text in training_negatives(rng, scene, caption):
            assert not any(is_held_out(noun, colour) for colour, noun in pair.findall(text)), text


def test_swaps():
    rng = random.Random(3)
    scene = sample_scene(rng)
    caption = sample_caption(rng, scene, kind="attributed", num_mentions=2, relation=True, colour_all=True)
    a, b = caption.mentions
    assert swap_mentions(caption).mentions == (b, a)
    swapped = swap_colours(caption)
    assert (swapped.mentions[0].colour, swapped.mentions[1].colour) == (b.colour, a.colour)
    assert swap_colours(swapped) == caption


def test_long_caption_says_everything():
    for rng, scene, _ in drawn(100):
        text = long_caption(rng, scene)
        words = set(re.findall(r"[a-z]+", text))
        for item in scene.objects:
            assert {item.shape, item.colour, item.size, item.texture} <= words
        assert scene.background in words and 20 <= len(text.split()) <= 80
        assert content_words(text) - {"left", "right"} <= true_words(scene.to_json())


def test_every_word_of_the_world_is_a_content_word():
    assert set(COLOURS) | set(SHAPES) <= CONTENT_WORDS
