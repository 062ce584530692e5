"""The trainer of IMC/CMR-CLIP: its losses, and thresholds that live as long as the run."""

import datasets
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, CLIPModel, pipeline

from vlcomp import ImcCmrCLIPModel, ImcCmrTrainer, ImcCmrTrainingArguments, load_scenes
from vlcomp.errors import ArgumentError, CheckpointError, DataError
from vlcomp.losses import (
    contrastive_loss,
    cross_modal_rank_loss,
    intra_modal_contrastive_loss,
    rank_thresholds,
    sigmoid_contrastive_loss,
)
from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_model, tiny_processor
from vlcomp.training.imc_cmr import THRESHOLDS_FILE, types_of

from .common import settings, weights, with_dropout

TYPES = ("swap_object", "attribute", "negation")


def typed_rows(images=24, captions=2, empty_from=None):
    """Rows with zero to three hard negatives of three types; those from `empty_from` on have none."""
    texts = tiny_captions(images * captions)
    pictures = tiny_images(images, (32, 32))
    negatives, types = [], []
    for i, text in enumerate(texts):
        made = [("swap_object", f"no {text}"), ("attribute", f"{text} no"), ("negation", f"red {text}")]
        kept = [] if empty_from is not None and i >= empty_from else [made[(i + k) % 3] for k in range(i % 4)]
        negatives.append([text for _, text in kept])
        types.append([name for name, _ in kept])
    return datasets.Dataset.from_dict(
        {
            "image": [pictures[i // captions] for i in range(len(texts))],
            "caption": texts,
            "image_id": [100 + i // captions for i in range(len(texts))],
            "negative_captions": negatives,
            "negative_types": types,
        }
    )


def imc_trainer(folder, *, model=None, data=None, processor=None, options=None, **changes):
    values = vars(settings(folder, **{k: v for k, v in changes.items() if k in _PLAIN}))
    values = {k: values[k] for k in _PLAIN if k in values}
    args = ImcCmrTrainingArguments(str(folder), **{**values, **changes})
    return ImcCmrTrainer(
        tiny_clip() if model is None else model,
        args,
        typed_rows() if data is None else data,
        processing_class=processor or tiny_processor(),
        **(options or {}),
    )


_PLAIN = (
    "per_device_train_batch_size",
    "max_steps",
    "learning_rate",
    "optim",
    "logging_steps",
    "save_strategy",
    "report_to",
    "disable_tqdm",
    "use_cpu",
    "dataloader_pin_memory",
)


def _log(run, key):
    return [entry[key] for entry in run.state.log_history if key in entry]


def _batch_inputs(run, batch):
    """Embeddings of a batch from the model's own forward, by another path than the trainer's."""
    embeds = run.encode(run.model, batch)
    return embeds["image_embeds"], embeds["text_embeds"], embeds["negative_text_embeds"], embeds["logit_scale"]


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
@pytest.mark.parametrize("mode", ["paper", "image_anchor", "released"])
def test_the_loss_is_the_weighted_sum_of_its_parts(tmp_path, kind, mode):
    run = imc_trainer(
        tmp_path,
        model=tiny_model(kind),
        processor=tiny_processor(kind),
        max_steps=1,
        imc_mode=mode,
        imc_weight=0.3,
        cmr_weight=0.7,
    )
    batch = next(iter(run.get_train_dataloader()))
    run.rank_thresholds = torch.tensor([0.5, 1.0, 0.0])
    run.model.train()
    loss = run.compute_loss(run.model, batch)
    images, texts, negatives, scale = _batch_inputs(run, batch)
    mask, types = batch["negative_mask"], batch["negative_type_ids"]
    common = {"image_ids": batch["image_ids"], "negative_text_embeds": negatives, "negative_mask": mask}
    if kind == "clip":
        itc = contrastive_loss(images, texts, scale, **common)
    else:
        itc = sigmoid_contrastive_loss(images, texts, scale, run.model.logit_bias, **common)
    imc = intra_modal_contrastive_loss(images, texts, negatives, scale, negative_mask=mask, mode=mode)
    thresholds = torch.tensor([0.5, 1.0, 0.0])
    cmr = cross_modal_rank_loss(
        images, texts, negatives, scale, thresholds, negative_type_ids=types, negative_mask=mask
    )
    assert loss.item() == pytest.approx((itc + 0.3 * imc + 0.7 * cmr).item(), rel=1e-5)
    assert mask.any() and not mask.all()
    for name, value in (("itc_loss", itc), ("imc_loss", imc), ("cmr_loss", cmr)):
        assert run._parts[name].item() == pytest.approx(value.item(), rel=1e-5)
    for index, name in enumerate(TYPES):
        share = sum(bool((types[i][mask[i]] == index).any()) for i in range(len(mask))) / len(mask)
        assert run._parts[f"valid_negatives/{name}"].item() == pytest.approx(share)
        assert run._parts[f"rank_threshold/{name}"].item() == thresholds[index]


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        ("plain", {"itc_loss"}),
        ("negclip", {"itc_loss"}),
        ("imc", {"itc_loss", "imc_loss"}),
        ("cmr", {"itc_loss", "cmr_loss"}),
        ("imc_cmr", {"itc_loss", "imc_loss", "cmr_loss"}),
    ],
)
def test_the_ladder(tmp_path, objective, parts):
    run = imc_trainer(tmp_path, objective=objective, max_steps=1)
    run.train()
    entry = run.state.log_history[0]
    assert {name for name in entry if name.endswith("_loss")} == parts
    assert ("rank_threshold/attribute" in entry) == ("cmr" in objective)
    assert ("valid_negatives/attribute" in entry) == (objective != "plain")
    assert ("negative_mask" in next(iter(run.get_train_dataloader()))) == (objective != "plain")
    record = run.model.config if hasattr(run.model.config, "imc_weight") else None
    assert record is None  # a CLIPModel object stays what it is


def test_thresholds_follow_the_batches(tmp_path):
    """Each step uses what the batch of the step before gave, over epochs, and nothing resets them."""
    run = imc_trainer(tmp_path, model=tiny_clip(dtype=torch.float64), learning_rate=0.01, max_steps=8)
    expected, used = [], []
    original = run.compute_loss_from_embeddings

    def watched(embeds, batch):
        used.append(run.rank_thresholds.clone())
        expected.append(
            rank_thresholds(
                embeds["image_embeds"],
                embeds["text_embeds"],
                embeds["negative_text_embeds"],
                embeds["logit_scale"],
                used[-1],
                negative_type_ids=batch["negative_type_ids"],
                negative_mask=batch["negative_mask"],
                upper_bound=0.1 * embeds["logit_scale"].item(),
            )
        )
        return original(embeds, batch)

    run.compute_loss_from_embeddings = watched
    run.train()
    assert run.state.epoch > 1
    assert used[0].tolist() == [0.0] * 3
    for step in range(1, 8):
        assert torch.equal(used[step].double(), expected[step - 1]), step
    assert torch.equal(run.rank_thresholds, expected[-1])
    assert (run.rank_thresholds > 0).any()
    run.train()
    assert used[8].tolist() == [0.0] * 3  # a new run starts anew


def test_accumulated_batches_are_pooled(tmp_path):
    run = imc_trainer(tmp_path, gradient_accumulation_steps=3, max_steps=1, per_device_train_batch_size=8)
    seen = []
    original = run.compute_loss_from_embeddings

    def watched(embeds, batch):
        assert run.rank_thresholds.tolist() == [0.0] * 3  # not before the optimiser's step
        seen.append((embeds, batch))
        return original(embeds, batch)

    run.compute_loss_from_embeddings = watched
    run.train()
    assert len(seen) == 3
    gaps = {index: [] for index in range(3)}
    for embeds, batch in seen:
        scale = embeds["logit_scale"].item()
        for i, k in batch["negative_mask"].nonzero().tolist():
            image = embeds["image_embeds"][i].detach()
            positive, negative = embeds["text_embeds"][i].detach(), embeds["negative_text_embeds"][i, k].detach()
            gap = scale * (image @ positive - image @ negative).item()
            gaps[batch["negative_type_ids"][i, k].item()].append(gap)
    for index, values in gaps.items():
        mean = sum(values) / len(values)
        assert run.rank_thresholds[index].item() == pytest.approx(min(max(mean, 0), 0.1 * scale), abs=1e-5)
    assert run.rank_thresholds.max() > 0


def test_the_upper_bound_follows_the_scale(tmp_path):
    run = imc_trainer(tmp_path, threshold_upper_bound=0.001, max_steps=1, learning_rate=0.0)
    run.train()
    bound = 0.001 * run.model.logit_scale.exp().item()
    assert run.rank_thresholds.max().item() == pytest.approx(bound)


def test_mini_batches_equal_the_whole_batch(tmp_path):
    def run(**changes):
        done = imc_trainer(tmp_path, model=tiny_clip(dtype=torch.float64), max_steps=5, **changes)
        done.train()
        return done

    whole, cached = run(), run(mini_batch_size=3)
    for name, value in weights(whole.model).items():
        assert torch.allclose(value, cached.model.state_dict()[name], atol=1e-9, rtol=0), name
    assert torch.allclose(whole.rank_thresholds, cached.rank_thresholds, atol=1e-9, rtol=0)
    for key in ("loss", "itc_loss", "imc_loss", "cmr_loss", "rank_threshold/attribute", "valid_negatives/negation"):
        assert _log(whole, key) == pytest.approx(_log(cached, key), rel=1e-6), key


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("mini_batch", [None, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, lora, mini_batch):
    def run(name):
        torch.manual_seed(0)
        return imc_trainer(
            tmp_path / name,
            model=with_dropout(tiny_clip()),
            max_steps=8,
            save_strategy="steps",
            save_steps=1,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            mini_batch_size=mini_batch,
            max_negatives=2,
            optim="adamw_torch",
            learning_rate=0.001,
            options={"peft_config": LoraConfig(r=2)} if lora else None,
        )

    straight, resumed = run("straight"), run("resumed")
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-5"))
    assert straight.rank_thresholds.max() > 0
    assert torch.equal(straight.rank_thresholds, resumed.rank_thresholds)
    for name, value in weights(straight.model).items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    logged = [f"rank_threshold/{name}" for name in TYPES]
    for key in ("loss", "imc_loss", "cmr_loss", *logged):
        assert _log(straight, key)[5:] == _log(resumed, key)[5:], key


def test_checkpoints_hold_the_thresholds(tmp_path):
    run = imc_trainer(tmp_path, save_strategy="steps", save_steps=1, max_steps=3)
    run.train()
    saved = load_file(tmp_path / "checkpoint-3" / THRESHOLDS_FILE)["rank_thresholds"]
    assert torch.equal(saved, run.rank_thresholds)
    other = imc_trainer(tmp_path / "b", max_steps=4, negative_types=["attribute", "negation"])
    with pytest.raises(CheckpointError, match="swap_object, attribute, negation"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    (tmp_path / "checkpoint-3" / THRESHOLDS_FILE).unlink()
    with pytest.raises(CheckpointError, match="objective='imc_cmr'"):
        imc_trainer(tmp_path / "c", max_steps=4).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_the_best_model_has_its_own_thresholds(tmp_path):
    scores = iter([3.0, 9.0, 1.0])
    run = imc_trainer(
        tmp_path,
        max_steps=3,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        options={"evaluators": [lambda embedder: {"score": next(scores)}]},
    )
    run.train()
    best = load_file(tmp_path / "checkpoint-2" / THRESHOLDS_FILE)["rank_thresholds"]
    last = load_file(tmp_path / "checkpoint-3" / THRESHOLDS_FILE)["rank_thresholds"]
    assert torch.equal(run.rank_thresholds, best) and not torch.equal(best, last)


def test_a_clip_by_name_becomes_the_method_s_model_and_keeps_the_record(tmp_path, clip_checkpoint):
    run = imc_trainer(tmp_path, model=str(clip_checkpoint), max_steps=3, imc_weight=0.4)
    assert type(run.model) is ImcCmrCLIPModel
    start = CLIPModel.from_pretrained(clip_checkpoint).state_dict()
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, start[name]), name
    run.train()
    run.save_model()
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is ImcCmrCLIPModel
    record = loaded.config
    assert (record.itc_hard_negatives, record.imc_weight, record.imc_mode) == (True, 0.4, "paper")
    assert (record.cmr_weight, record.threshold_upper_bound) == (0.2, 0.1)
    assert tuple(record.negative_types) == TYPES
    assert record.rank_thresholds == pytest.approx(run.rank_thresholds.tolist())
    again = imc_trainer(tmp_path / "again", model=str(tmp_path), max_steps=1, objective="negclip")
    again.train()
    again.save_model()
    record = AutoModel.from_pretrained(tmp_path / "again").config
    assert (record.imc_weight, record.cmr_weight, record.rank_thresholds) == (0.0, 0.0, None)
    assert type(AutoProcessor.from_pretrained(tmp_path)).__name__ == "CLIPProcessor"
    answer = pipeline("zero-shot-image-classification", model=str(tmp_path))(
        tiny_images(1)[0], candidate_labels=["a red cup", "a star"]
    )
    assert len(answer) == 2


def test_only_the_types_asked_for(tmp_path):
    run = imc_trainer(tmp_path, negative_types=["negation", "attribute"], max_steps=2)
    assert run.negative_types == ("negation", "attribute")
    data = typed_rows()
    names = set()
    for batch in run.get_train_dataloader():
        names |= set(batch["negative_type_ids"][batch["negative_mask"]].tolist())
        for row, text in enumerate(batch["input_ids"].tolist()):
            caption = run.processing_class.tokenizer.decode(text, skip_special_tokens=True)
            index = next(i for i, c in enumerate(data["caption"]) if c == caption)
            wanted = sum(name != "swap_object" for name in data["negative_types"][index])
            assert batch["negative_mask"][row].sum() == wanted
    assert names == {0, 1}
    run.train()
    assert "valid_negatives/swap_object" not in run.state.log_history[0]


def test_negatives_without_types_share_one_threshold(tmp_path):
    data = typed_rows().remove_columns("negative_types")
    run = imc_trainer(tmp_path, data=data, max_steps=2)
    run.train()
    assert run.negative_types == ("any",)
    assert run.rank_thresholds.shape == (1,)
    assert _log(run, "valid_negatives/any")[0] > 0


def test_batches_without_any_negative(tmp_path):
    run = imc_trainer(tmp_path, data=typed_rows(empty_from=8), max_steps=6, per_device_train_batch_size=4)
    run.train()
    shares = [sum(entry.get(f"valid_negatives/{name}", 0) for name in TYPES) for entry in run.state.log_history]
    thresholds = [[entry.get(f"rank_threshold/{name}") for name in TYPES] for entry in run.state.log_history]
    empty = [step for step in range(5) if shares[step] == 0]
    assert empty, "the order of the rows no longer gives a batch without negatives"
    for step in empty:
        assert thresholds[step + 1] == thresholds[step]
    assert all(torch.isfinite(value).all() for value in run.model.state_dict().values())


def test_types_of_a_data_set():
    assert types_of(typed_rows()) == TYPES
    own = datasets.Dataset.from_dict({"negative_types": [["zeta", "attribute"], [], ["alpha"]]})
    assert types_of(own) == ("attribute", "alpha", "zeta")
    assert types_of(datasets.Dataset.from_dict({"negative_types": [[], []]}).select([0])) == ("any",)
    assert types_of(None) == types_of([1, 2])  # unknown: all names there are
    assert "swap_attribute" in types_of(load_scenes("train", size=200, image_size=32))


@pytest.mark.parametrize("lora", [False, True])
def test_interpolation_with_the_starting_weights(tmp_path, lora):
    options = {"peft_config": LoraConfig(r=2, lora_alpha=4)} if lora else None

    def run(name, **changes):
        torch.manual_seed(0)
        done = imc_trainer(tmp_path / name, max_steps=3, options=options, **changes)
        start = {k: v.clone() for k, v in _merged(done.model).items()}
        done.train()
        return start, _merged(done.model)

    start, trained = run("whole")
    _, mixed = run("mixed", interpolate=0.25)
    _, none = run("none", interpolate=0.0)
    moved = 0.0
    for name, value in start.items():
        expected = 0.75 * value + 0.25 * trained[name]
        assert torch.allclose(mixed[name], expected, atol=1e-6), name
        assert torch.allclose(none[name], value, atol=1e-6), name
        moved = max(moved, (trained[name] - value).abs().max().item())
    assert moved > 1e-3


def _merged(model):
    import copy

    model = copy.deepcopy(model)
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    return {name: value.detach() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "both"}, "objective='both' is not one of"),
        ({"imc_mode": "text"}, "imc_mode='text' is not one of"),
        ({"imc_weight": -1}, "imc_weight=-1 must be 0 or more"),
        ({"cmr_weight": "much"}, "cmr_weight='much'"),
        ({"threshold_upper_bound": 10}, "threshold_upper_bound=10 is a cosine"),
        ({"use_hard_negatives": False}, "objective='imc_cmr' trains on hard negatives"),
        ({"negative_types": ["a", "a"]}, "must be a list of different names"),
        ({"negative_choice": "last"}, "negative_choice='last' is not one of"),
        ({"interpolate": 1.5}, "interpolate=1.5 must lie between 0"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(ArgumentError, match=message):
        ImcCmrTrainingArguments(str(tmp_path), **changes)


@pytest.mark.parametrize("types", [None, ["object", "attribute"]])
def test_negatives_made_while_training(tmp_path, types):
    data = typed_rows().remove_columns(["negative_captions", "negative_types"])
    captions = ["a red cup on a table", "a blue plate on a chair", "a green bowl under a lamp", "a white dog"]
    data = data.remove_columns("caption").add_column("caption", [captions[i % 4] for i in range(len(data))])
    run = imc_trainer(tmp_path, data=data, generate_negatives="paper", negative_types=types, max_steps=14)
    assert run.negative_types == (("relation", "attribute", "object", "action") if types is None else tuple(types))
    seen = []
    original = run.data_collator.collator._negatives
    run.data_collator.collator._negatives = lambda rows: seen.append((rows, original(rows))) or seen[-1][1]
    run.train()
    assert max(_log(run, "valid_negatives/object")) > 0.5
    # Another epoch, other words.
    made = {}
    for batch, (rows, found) in enumerate(seen):
        for row, negatives in zip(rows, found, strict=True):
            made.setdefault(batch // 6, {}).setdefault(row["caption"], set()).update(text for text, _ in negatives)
    assert run.state.epoch > 2 and made[0] and made[0] != made[1]
    for caption, texts in made[0].items():
        assert caption not in texts


def test_generating_needs_a_corpus_and_a_use(tmp_path):
    with pytest.raises(ArgumentError, match="generate_negatives='default' makes hard negatives that nothing uses"):
        ImcCmrTrainingArguments(str(tmp_path), objective="plain", generate_negatives="default")
    data = typed_rows().remove_columns(["negative_captions", "negative_types"])
    with pytest.raises(ArgumentError, match="'some'"):
        imc_trainer(tmp_path, data=data, generate_negatives="some")
    with pytest.raises(ArgumentError, match="IterableDataset does not give"):
        imc_trainer(tmp_path, data=data.to_iterable_dataset(), generate_negatives="default")


def test_bad_data(tmp_path):
    with pytest.raises(DataError, match="negative_captions"):
        imc_trainer(tmp_path, data=typed_rows().remove_columns(["negative_captions", "negative_types"]))
    with pytest.raises(ArgumentError, match="plain LoRA"):
        imc_trainer(tmp_path, interpolate=0.5, options={"peft_config": LoraConfig(r=2, use_dora=True)})
    with pytest.raises(ArgumentError, match="no hard negatives of type 'swap'; it has swap_object, attribute, neg"):
        imc_trainer(tmp_path, negative_types=["attribute", "swap"])
    with pytest.raises(ArgumentError, match="it has none with a type"):
        imc_trainer(tmp_path, data=typed_rows().remove_columns("negative_types"), negative_types=["swap"])
    args = settings(tmp_path)
    with pytest.raises(ArgumentError, match="ImcCmrTrainingArguments"):
        ImcCmrTrainer(tiny_clip(), args, typed_rows(), processing_class=tiny_processor())
