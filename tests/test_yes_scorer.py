"""An LVLM that is asked about pairs of image and caption: the same scores as without sharing, in less work."""

import functools
import json

import pytest
import torch
from PIL import Image

import _vlcomp_cli
from vlcomp import evaluate
from vlcomp.data import load_image
from vlcomp.errors import ArgumentError, CheckpointError, DataError
from vlcomp.evaluation import get_task
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel, DiscriminativeLVLMProcessor
from vlcomp.models.tiny_lvlm import LVLM_KINDS, new_lvlm_image_processor, new_lvlm_tokenizer, new_tiny_lvlm
from vlcomp.scorers import QUESTION, YesScorer
from vlcomp.testing import (
    make_class_folder,
    tiny_captions,
    tiny_clip,
    tiny_images,
    tiny_lvlm,
    tiny_lvlm_processor,
    tiny_processor,
)

CAPTIONS = [*tiny_captions(7), "a cup"]


@pytest.fixture(autouse=True, scope="module")
def scenes_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def family(kind, **changes):
    """A tiny LVLM whose tokenizer has seen the words of the question, so that an answer is one token."""
    words = [QUESTION, "Yes", "No", "yes", "no"] * 20
    tokenizer = new_lvlm_tokenizer(kind, [*tiny_captions(200), *words], vocab_size=900)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    processor = DiscriminativeLVLMProcessor(
        new_lvlm_image_processor(kind), tokenizer, chat_template=tokenizer.chat_template
    )
    return new_tiny_lvlm(kind, tokenizer), processor


def save(folder, kind="llava"):
    lvlm, processor = family(kind)
    lvlm.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    return folder


def one_by_one(lvlm, processor, image, caption, question=QUESTION):
    """The model's own forward over one whole chat, and the odds by the letter of the definition."""
    tokenizer = processor.tokenizer
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.replace("{}", caption)}]}],
        chat_template=processor.chat_template,
        tokenize=False,
        add_generation_prompt=True,
    )
    inputs = dict(processor.image_processor([image], return_tensors="pt"))
    place = getattr(lvlm.config, "image_token_id", None) or lvlm.config.image_token_index
    with torch.no_grad():
        count = len(lvlm.model.get_image_features(**inputs, return_dict=True).pooler_output[0])
        ids = torch.tensor([[i for t in tokenizer(chat)["input_ids"] for i in ([t] * (count if t == place else 1))]])
        if hasattr(lvlm.model, "get_rope_index"):
            inputs["mm_token_type_ids"] = (ids == place).int()
        found = lvlm(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0, -1].softmax(dim=0)
    vocabulary = tokenizer.get_vocab()
    sums = [
        sum(found[vocabulary[t]] for word in words for t in (word, f"Ġ{word}") if t in vocabulary)
        for words in (["Yes", "yes", "YES"], ["No", "no", "NO"])
    ]
    return float((sums[0] / sums[1]).log())


def counted(lvlm, monkeypatch):
    """How many images each pass of the vision tower reads."""
    read, features = [], lvlm.model.get_image_features

    @functools.wraps(features)
    def get_image_features(*args, **kwargs):
        found = features(*args, **kwargs)
        read.append(len(found.pooler_output))
        return found

    monkeypatch.setattr(lvlm.model, "get_image_features", get_image_features)
    return read


# -- the scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LVLM_KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_shared_keys_and_values_give_the_scores_of_reading_each_pair_by_itself(kind, side):
    lvlm, processor = family(kind, padding_side=side)
    # Pictures of another shape have another number of tokens in all families but LLaVA.
    pictures = [tiny_images(1, size)[0] for size in ((40, 32), (64, 30), (30, 70))]
    images = [pictures[i] for i in (0, 0, 1, 2, 2, 2, 0, 1)]
    expected = torch.tensor([one_by_one(lvlm, processor, *pair) for pair in zip(images, CAPTIONS, strict=True)])
    assert expected.std() > 0.02
    for batch_size in (64, 3, 1):
        found = YesScorer(lvlm, processor, batch_size=batch_size).score_pairs(images, CAPTIONS)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    probability = YesScorer(lvlm, processor, output="probability").score_pairs(images, CAPTIONS)
    torch.testing.assert_close(probability, expected.sigmoid(), rtol=0, atol=1e-5)


def test_a_sliding_window_of_the_language_model_counts_tokens_and_not_padding():
    _, processor = family("llava_onevision")
    lvlm = new_tiny_lvlm("llava_onevision", processor.tokenizer)
    text = lvlm.config.text_config
    text.use_sliding_window, text.sliding_window, text.layer_types = True, 24, ["sliding_attention"] * 2
    lvlm = type(lvlm)(lvlm.config).eval()
    assert lvlm.model.language_model.has_sliding_layers
    # The first image has fewer tokens than the second, so beside it there would be padding before the captions.
    images = [tiny_images(1, size)[0] for size in ((32, 32), (30, 70))]
    pairs = [(image, text) for image in images for text in CAPTIONS[:2]]
    expected = torch.tensor([one_by_one(lvlm, processor, *pair) for pair in pairs])
    found = YesScorer(lvlm, processor).score_pairs(*zip(*pairs, strict=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_each_image_is_read_once_and_the_head_computed_once_a_pair(monkeypatch):
    lvlm, processor = family("qwen2_vl")
    pictures = tiny_images(3)
    images = [pictures[i] for i in (0, 1, 2, 0, 1, 2, 0, 1)]
    asked, headed = [], []
    read = counted(lvlm, monkeypatch)
    lvlm.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: asked.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    lvlm.get_output_embeddings().register_forward_hook(lambda module, args, out: headed.append(tuple(out.shape[:-1])))
    YesScorer(lvlm, processor).score_pairs(images, CAPTIONS)
    assert read == [3] and headed == [(8,)]
    assert [rows for rows, _ in asked] == [3, 8]
    # More captions than a batch: the image is still read once, and the captions in parts.
    read.clear(), asked.clear()
    YesScorer(lvlm, processor, batch_size=3).score_pairs([pictures[0]] * 8, CAPTIONS)
    assert read == [1] and [rows for rows, _ in asked] == [1, 3, 3, 2]


def test_equal_paths_are_one_image(tmp_path, monkeypatch):
    lvlm, processor = family("llava")
    tiny_images(1)[0].save(tmp_path / "a.png")
    read = counted(lvlm, monkeypatch)
    scorer = YesScorer(lvlm, processor, num_workers=2)
    found = scorer.score_pairs([str(tmp_path / "a.png"), tmp_path / "a.png"], ["a cup", "a cup"])
    assert read == [1] and float(found[0]) == pytest.approx(float(found[1]), abs=1e-6)
    assert scorer.score_pairs([], []).shape == (0,)


def test_a_discriminative_lvlm_is_asked_without_its_adapters_and_left_as_it_was():
    lvlm, processor = family("llava")
    images, captions = tiny_images(2), CAPTIONS[:2]
    expected = YesScorer(lvlm, processor).score_pairs(images, captions)
    fingerprint = YesScorer(lvlm, processor).fingerprint()
    model = DiscriminativeLVLMModel.from_lvlm(lvlm, processor=processor, lora_rank=2)
    with torch.no_grad():
        for name, parameter in model.trainable_parameters().items():
            if "lora_B" in name:
                parameter.fill_(0.3)
    model.train()
    model.lvlm.model.vision_tower.eval()
    scorer = YesScorer(model, processor)
    torch.testing.assert_close(scorer.score_pairs(images, captions), expected, rtol=0, atol=1e-5)
    assert model._adapters_on and model.training and not model.lvlm.model.vision_tower.training
    with_adapters = torch.tensor(
        [one_by_one(model.lvlm.eval(), processor, *pair) for pair in zip(images, captions, strict=True)]
    )
    assert (with_adapters - expected).abs().max() > 1e-3  # the adapters are on again, and do something
    assert scorer.fingerprint() == YesScorer(model, processor).fingerprint() != fingerprint
    other = YesScorer(model, processor, question='Is it "{}"?')
    assert other.fingerprint() != scorer.fingerprint()
    assert (other.score_pairs(images, captions) - expected).abs().max() > 1e-3


# -- in the suite --------------------------------------------------------------------------------------------


def test_evaluate_asks(tmp_path):
    folder = save(tmp_path / "lvlm")
    options = {"tasks": ["scenes/swap_object", "scenes/retrieval"], "size": 8, "progress": False}
    report = evaluate(str(folder), scorer="yes", **options)
    assert report.results["settings"]["scorer"] == {
        "name": "yes",
        "question": QUESTION,
        "yes": ["Yes", "yes", "YES"],
        "no": ["No", "no", "NO"],
        "output": "log_odds",
    }
    assert report.score("scenes/retrieval/image_to_text/recall@1").n == 8
    scorer = YesScorer.from_pretrained(folder)
    direct = evaluate(scorer, **options)
    assert direct.metrics == report.metrics
    row = report.items[0]
    lvlm, processor = family("llava")
    items = get_task("scenes/swap_object", size=8).items
    picture = load_image(items.images[items.image_names.index(row["image"])])
    expected = one_by_one(lvlm, processor, picture, row["text"])
    assert row["true_score"] == pytest.approx(expected, abs=1e-5)
    # With other words the scores are others; without the option an LVLM is no dual encoder.
    options["tasks"] = "scenes/swap_object"
    assert evaluate(str(folder), scorer="yes", question="{}?", **options).items[0]["true_score"] != row["true_score"]
    with pytest.raises(CheckpointError, match="DiscriminativeLVLMModel.from_lvlm.*--scorer yes"):
        evaluate(str(folder), **options)


def test_the_command_line_asks_and_goes_on_where_it_stopped(tmp_path, capsys):
    folder = save(tmp_path / "lvlm", "qwen2_vl")
    words = ["evaluate", str(folder), "--task", "scenes/swap_object", "--size", "8", "--scorer", "yes", "--quiet"]
    words += ["--batch-size", "4", "--output", str(tmp_path / "out"), "--question", "Is this {}? Yes or No."]
    assert _vlcomp_cli.main(words) == 0
    assert "swap_object" in capsys.readouterr().out
    settings = json.loads((tmp_path / "out" / "results.json").read_text())["settings"]
    assert settings["scorer"]["question"] == "Is this {}? Yes or No."
    capsys.readouterr()
    for wrong, message in (
        (["--question", "Is this it?", "--scorer", "yes"], "must hold {} once"),
        (["--question", "Is this {}?"], "only with --scorer"),
    ):
        assert _vlcomp_cli.main(["evaluate", str(folder), *wrong]) == 2
        assert message in capsys.readouterr().err


def test_tasks_that_need_embeddings_say_so(tmp_path):
    scorer = YesScorer(*family("llava"))
    classes = make_class_folder(tmp_path, ("cup", "star"))
    with pytest.raises(ArgumentError, match="needs embeddings, and a YesScorer scores pairs"):
        evaluate(scorer, tasks="zero_shot_classification", data=str(classes), progress=False)


@pytest.mark.parametrize("task", ["scenes/swap_object", "scenes/winoground"])
def test_a_task_has_each_image_read_once(task, monkeypatch):
    lvlm, processor = family("llava")
    read = counted(lvlm, monkeypatch)
    evaluate(YesScorer(lvlm, processor, batch_size=16), tasks=task, size=12, progress=False)
    made = get_task(task, size=12)
    images = made.items.images if task == "scenes/swap_object" else range(24)
    assert sum(read) == len(images)


# -- errors --------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused(tmp_path, clip_checkpoint):
    lvlm, processor = family("llava")
    with pytest.raises(CheckpointError, match="'clip', not an image-text-to-text model such as LLaVA"):
        YesScorer.from_pretrained(clip_checkpoint)
    with pytest.raises(CheckpointError, match="CLIPModel has no model.language_model.*asks an LVLM"):
        YesScorer(tiny_clip(), tiny_processor())
    with pytest.raises(CheckpointError, match="no such folder"):
        YesScorer.from_pretrained(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no single token for 'Yes' or 'yes' or 'YES'"):
        YesScorer(tiny_lvlm("llava"), tiny_lvlm_processor("llava"))
    with pytest.raises(CheckpointError, match="no single token for 'Nope nope'"):
        YesScorer(lvlm, processor, no="Nope nope")
    with pytest.raises(ArgumentError, match="have a token in common"):
        YesScorer(lvlm, processor, no=["No", "Yes"])
    bare = DiscriminativeLVLMProcessor(processor.image_processor, processor.tokenizer)
    bare.tokenizer.chat_template = None
    with pytest.raises(CheckpointError, match="no chat template"):
        YesScorer(lvlm, bare)
    with pytest.raises(CheckpointError, match="does not place '<image>' once"):
        bare.chat_template = "{{ messages[0]['content'][1]['text'] }}<image>"
        YesScorer(lvlm, bare)
    with pytest.raises(CheckpointError, match="which has no tokenizer"):
        YesScorer(lvlm, processor.tokenizer)
    with torch.no_grad():
        lvlm.get_output_embeddings().weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="NaN or infinite: lm_head.weight"):
        YesScorer(lvlm, processor)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"question": "Is it?"}, "question='Is it\\?' must be a text with {} once"),
        ({"question": "{} or {}"}, "must be a text with {} once"),
        ({"output": "odds"}, "output='odds' is not one of 'log_odds', 'probability'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"fit": "cut"}, "fit='cut'"),
        ({"yes": []}, "yes=\\[\\] must be one or more words"),
        ({"device": "gpu"}, "device='gpu' is not a device"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ArgumentError, match=message):
        YesScorer(*family("llava"), **settings)


def test_arguments_of_evaluate_are_checked():
    lvlm, processor = family("llava")
    with pytest.raises(ArgumentError, match="scorer='yess' is not known; there is 'yes' and 'likelihood'"):
        evaluate(lvlm, processor, scorer="yess")
    with pytest.raises(ArgumentError, match="asked only with scorer='yes' or 'likelihood'"):
        evaluate(lvlm, processor, question="Is it {}?")
    with pytest.raises(ArgumentError, match="processor is missing"):
        evaluate(lvlm, scorer="yes")
    with pytest.raises(ArgumentError, match="a object scores by itself"):
        evaluate(object(), scorer="yes")


def test_inputs_are_checked(tmp_path):
    scorer = YesScorer(*family("llava"))
    image = Image.new("RGB", (8, 8))
    with pytest.raises(ArgumentError, match="there are 1 and 2"):
        scorer.score_pairs([image], ["a", "b"])
    with pytest.raises(ArgumentError, match=r"texts\[0\] is None"):
        scorer.score_pairs([image], [None])
    with pytest.raises(DataError, match="'an <image> of a cup' holds the token of an image"):
        scorer.score_pairs([image], ["an <image> of a cup"])
    with pytest.raises(DataError, match="not valid Unicode"):
        scorer.score_pairs([image], ["a \ud800 cup"])
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="a.png"):
        scorer.score_pairs([tmp_path / "a.png"], ["a cup"])
