"""An LVLM that says how likely a caption is: the same scores as reading each pair by itself, in less work."""

import json

import pytest
import torch

import _vlcomp_cli
from vlcomp import LikelihoodScorer, YesScorer, evaluate
from vlcomp.data import load_image
from vlcomp.errors import ArgumentError, CheckpointError, DataError
from vlcomp.evaluation import get_task
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel
from vlcomp.models.tiny_lvlm import LVLM_KINDS, new_tiny_lvlm
from vlcomp.scorers import INSTRUCTION
from vlcomp.testing import tiny_captions, tiny_images

from .test_yes_scorer import counted, family, save

CAPTIONS = [*tiny_captions(6), "a cup", "a cup and a star, a cup and a star"]
# What stands between the instruction and the caption, by the letter of each family's chat.
ANSWERS = {"USER": " ASSISTANT: ", "<|im_": "<|im_end|>\n<|im_start|>assistant\n"}


@pytest.fixture(autouse=True, scope="module")
def scenes_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def one_by_one(lvlm, processor, image, caption, instruction=INSTRUCTION):
    """Log-probabilities of the caption's tokens and the end, from the model's own forward over one whole chat."""
    tokenizer = processor.tokenizer
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": instruction}]}],
        chat_template=processor.chat_template,
        tokenize=False,
    )
    before = next(chat.removesuffix(" ").removesuffix("<|im_end|>\n") + v for k, v in ANSWERS.items() if k in chat)
    asked = len(tokenizer(before.rstrip(" "))["input_ids"])
    ids = [*tokenizer(before + caption)["input_ids"], tokenizer.eos_token_id]
    inputs = dict(processor.image_processor([image], return_tensors="pt"))
    place = getattr(lvlm.config, "image_token_id", None) or lvlm.config.image_token_index
    with torch.no_grad():
        count = len(lvlm.model.get_image_features(**inputs, return_dict=True).pooler_output[0])
        expanded = torch.tensor([[i for t in ids for i in ([t] * (count if t == place else 1))]])
        if hasattr(lvlm.model, "get_rope_index"):
            inputs["mm_token_type_ids"] = (expanded == place).int()
        logits = lvlm(input_ids=expanded, attention_mask=torch.ones_like(expanded), **inputs).logits[0]
    found = logits.log_softmax(dim=-1)[:-1].gather(1, expanded[0, 1:, None])[:, 0]
    return found[asked + count - 2 :]


@pytest.mark.parametrize("kind", LVLM_KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_shared_keys_and_values_give_the_likelihood_of_reading_each_pair_by_itself(kind, side):
    lvlm, processor = family(kind, padding_side=side)
    pictures = [tiny_images(1, size)[0] for size in ((40, 32), (64, 30), (30, 70))]
    images = [pictures[i] for i in (0, 0, 1, 2, 2, 2, 0, 1)]
    each = [one_by_one(lvlm, processor, *pair) for pair in zip(images, CAPTIONS, strict=True)]
    tokens = processor.tokenizer("a cup", add_special_tokens=False)["input_ids"]
    assert len(each[6]) == len(tokens) + 1  # with the token that ends an answer
    expected = torch.stack([one.sum() for one in each])
    for batch_size in (64, 3, 1):
        found = LikelihoodScorer(lvlm, processor, batch_size=batch_size).score_pairs(images, CAPTIONS)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-5)
    mean = LikelihoodScorer(lvlm, processor, output="mean").score_pairs(images, CAPTIONS)
    torch.testing.assert_close(mean, torch.stack([one.mean() for one in each]), rtol=1e-6, atol=1e-5)


def test_many_rows_of_logits_are_computed_in_parts(monkeypatch):
    lvlm, processor = family("llava")
    images = tiny_images(2) * 4
    expected = LikelihoodScorer(lvlm, processor).score_pairs(images, CAPTIONS)
    monkeypatch.setattr("vlcomp.scorers.likelihood._ROWS", 5)
    rows = []
    lvlm.get_output_embeddings().register_forward_hook(lambda module, args, out: rows.append(len(out)))
    torch.testing.assert_close(LikelihoodScorer(lvlm, processor).score_pairs(images, CAPTIONS), expected)
    assert set(rows[:-1]) == {5} and len(rows) > 5


def test_a_sliding_window_counts_tokens_and_not_padding():
    _, processor = family("llava_onevision")
    lvlm = new_tiny_lvlm("llava_onevision", processor.tokenizer)
    text = lvlm.config.text_config
    text.use_sliding_window, text.sliding_window, text.layer_types = True, 24, ["sliding_attention"] * 2
    lvlm = type(lvlm)(lvlm.config).eval()
    pairs = [(tiny_images(1, size)[0], text) for size in ((32, 32), (30, 70)) for text in CAPTIONS[:2]]
    expected = torch.stack([one_by_one(lvlm, processor, *pair).sum() for pair in pairs])
    found = LikelihoodScorer(lvlm, processor).score_pairs(*zip(*pairs, strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-5)


def test_each_image_is_read_once(monkeypatch):
    lvlm, processor = family("qwen2_vl")
    pictures = tiny_images(3)
    read = counted(lvlm, monkeypatch)
    scorer = LikelihoodScorer(lvlm, processor)
    scorer.score_pairs([pictures[i] for i in (0, 1, 2, 0, 1, 2, 0, 1)], CAPTIONS)
    assert read == [3]
    assert scorer.score_pairs([], []).shape == (0,)


def test_a_discriminative_lvlm_scores_without_its_adapters():
    lvlm, processor = family("llava")
    images, captions = tiny_images(2), CAPTIONS[:2]
    expected = LikelihoodScorer(lvlm, processor).score_pairs(images, captions)
    model = DiscriminativeLVLMModel.from_lvlm(lvlm, processor=processor, lora_rank=2)
    with torch.no_grad():
        for name, parameter in model.trainable_parameters().items():
            if "lora_B" in name:
                parameter.fill_(0.3)
    scorer = LikelihoodScorer(model.train(), processor)
    torch.testing.assert_close(scorer.score_pairs(images, captions), expected, rtol=1e-6, atol=2e-5)
    assert model._adapters_on and model.training
    others = [
        LikelihoodScorer(model, processor, instruction="What is it?"),
        LikelihoodScorer(model, processor, output="mean"),
        YesScorer(model, processor),
    ]
    assert len({other.fingerprint() for other in [scorer, *others]}) == 4
    assert (others[0].score_pairs(images, captions) - expected).abs().max() > 1e-3


def test_evaluate_and_the_command_line(tmp_path, capsys):
    folder = save(tmp_path / "lvlm")
    options = {"tasks": "scenes/swap_object", "size": 8, "progress": False}
    report = evaluate(str(folder), scorer="likelihood", **options)
    assert report.results["settings"]["scorer"] == {
        "name": "likelihood",
        "instruction": INSTRUCTION,
        "output": "sum",
    }
    assert evaluate(LikelihoodScorer.from_pretrained(folder), **options).metrics == report.metrics
    row, items = report.items[0], get_task("scenes/swap_object", size=8).items
    lvlm, processor = family("llava")
    picture = load_image(items.images[items.image_names.index(row["image"])])
    expected = float(one_by_one(lvlm, processor, picture, row["text"]).sum())
    assert row["true_score"] == pytest.approx(expected, abs=1e-4)

    words = ["evaluate", str(folder), "--task", "scenes/swap_object", "--size", "8", "--quiet"]
    given = ["--scorer", "likelihood", "--question", "What is it?", "--output", str(tmp_path / "out")]
    assert _vlcomp_cli.main([*words, *given]) == 0
    settings = json.loads((tmp_path / "out" / "results.json").read_text())["settings"]
    assert settings["scorer"]["instruction"] == "What is it?"
    capsys.readouterr()
    assert _vlcomp_cli.main([*words, "--scorer", "likelihood", "--question", "Is it {}?"]) == 2
    assert "holds {}, but with --scorer likelihood the caption is the answer" in capsys.readouterr().err


def test_what_cannot_be_scored_is_refused(clip_checkpoint):
    lvlm, processor = family("llava")
    for wrong in ("Is it {}?", " ", 3):
        with pytest.raises(ArgumentError, match="must be a text without {}"):
            LikelihoodScorer(lvlm, processor, instruction=wrong)
        with pytest.raises(ArgumentError, match="must be a text without {}"):
            evaluate(lvlm, processor, scorer="likelihood", question=wrong)
    with pytest.raises(ArgumentError, match="output='total' is not one of 'sum', 'mean'"):
        LikelihoodScorer(lvlm, processor, output="total")
    with pytest.raises(CheckpointError, match="'clip', not an image-text-to-text model"):
        LikelihoodScorer.from_pretrained(clip_checkpoint)
    scorer = LikelihoodScorer(lvlm, processor)
    with pytest.raises(DataError, match="holds the token of an image"):
        scorer.score_pairs(tiny_images(1), ["an <image> of a cup"])
    # A template that puts the caption right behind a word, so that the two have a token in common.
    processor.chat_template = (
        "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>"
        "{% elif m['role'] == 'user' %}a{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    joined = LikelihoodScorer(lvlm, processor)
    with pytest.raises(CheckpointError, match="joins the beginning of 'nd a cup' to what the chat puts before it"):
        joined.score_pairs(tiny_images(1), ["nd a cup"])
