"""The contrastive trainer: what moves, what stays, and that equivalent runs are equal."""

import json
import logging
import math

import datasets
import pytest
import torch
from transformers import AutoModel, AutoProcessor, TrainingArguments, pipeline

from vlcomp import ContrastiveTrainer, ContrastiveTrainingArguments
from vlcomp.data import load_captioned, process_images
from vlcomp.errors import ArgumentError, CheckpointError, DataError, VlcompError
from vlcomp.losses import contrastive_loss
from vlcomp.testing import make_captioned_folder, tiny_captions, tiny_clip, tiny_images, tiny_model, tiny_processor

from .common import rows, settings, trainer, weights, with_dropout


def _assert_equal(first, second, atol=0.0):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=atol, rtol=0), name


def _log(run, key):
    return [entry[key] for entry in run.state.log_history if key in entry]


@pytest.mark.parametrize(
    ("kind", "freeze"),
    [("clip", None), ("siglip", None), ("siglip2", None), ("clip", "vision"), ("clip", "text"), ("siglip", "vision")],
)
def test_trainable_parameters_move_and_frozen_ones_stay(tmp_path, kind, freeze):
    run = trainer(tmp_path, model=tiny_model(kind), processor=tiny_processor(kind), freeze=freeze, optim="adamw_torch")
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.train()
    frozen = {"vision": ("vision_model.", "visual_projection."), "text": ("text_model.", "text_projection.")}
    optimised = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    for name, parameter in run.model.named_parameters():
        still = freeze is not None and name.startswith(frozen[freeze])
        assert (id(parameter) in optimised) == (not still), name
        assert torch.equal(parameter, before[name]) == still, name
    assert run._loss == ("softmax" if kind == "clip" else "sigmoid")


def test_a_frozen_tower_is_in_evaluation_mode(tmp_path):
    run = trainer(tmp_path, freeze="vision")
    modes = []
    run.model.vision_model.register_forward_hook(lambda module, *_: modes.append(module.training))
    run.model.text_model.register_forward_hook(lambda module, *_: modes.append(module.training))
    run.train()
    assert modes == [False, True] * 2
    cached = trainer(tmp_path, model=run.model, freeze="vision", mini_batch_size=4)
    modes.clear()
    cached.train()
    assert modes == [False, True] * 8


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_mini_batches_equal_the_whole_batch(tmp_path, kind):
    def run(**changes):
        done = trainer(
            tmp_path,
            model=tiny_model(kind).double(),
            processor=tiny_processor(kind),
            data=rows(24, captions=2, negatives=True),
            use_hard_negatives=True,
            max_steps=3,
            **changes,
        )
        done.train()
        return done

    whole, cached = run(), run(mini_batch_size=3)
    _assert_equal(weights(whole.model), weights(cached.model), atol=1e-9)
    for key in ("loss", "itc_loss", "logit_scale", "grad_norm"):
        assert _log(whole, key) == pytest.approx(_log(cached, key), rel=1e-6)
    # Accumulation of small batches is another loss.
    assert _log(run(per_device_train_batch_size=4, gradient_accumulation_steps=2), "loss") != pytest.approx(
        _log(whole, "loss"), rel=1e-2
    )


def test_accumulation_averages_the_losses_of_its_batches(tmp_path):
    run = trainer(tmp_path, max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    batches = [run._prepare_inputs(batch) for batch in run.get_train_dataloader()][:2]
    with torch.no_grad():
        losses = [run.compute_loss(run.model, batch).item() for batch in batches]
    run.train()
    assert _log(run, "loss") == [pytest.approx(sum(losses) / 2, abs=1e-5)]
    assert _log(run, "itc_loss") == [pytest.approx(sum(losses) / 2, abs=1e-5)]


def test_hard_negatives_reach_the_loss(tmp_path):
    data = rows(8, negatives=True)
    run = trainer(tmp_path, data=data, use_hard_negatives=True)
    batch = run.data_collator([data[i] for i in range(8)])
    with torch.no_grad():
        loss = run.compute_loss(run.model, dict(batch))
        features = {
            name: torch.nn.functional.normalize(output.pooler_output, dim=-1)
            for name, output in (
                ("image", run.model.get_image_features(batch["pixel_values"])),
                ("text", run.model.get_text_features(batch["input_ids"], batch["attention_mask"])),
                (
                    "negatives",
                    run.model.get_text_features(
                        batch["negative_input_ids"].flatten(0, 1), batch["negative_attention_mask"].flatten(0, 1)
                    ),
                ),
            )
        }
    expected = contrastive_loss(
        features["image"],
        features["text"],
        run.model.logit_scale.exp(),
        negative_text_embeds=features["negatives"].view(8, 2, -1),
        negative_mask=batch["negative_mask"],
    )
    assert batch["negative_mask"].sum() == 7
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    plain = trainer(tmp_path, data=data)
    assert "negative_input_ids" not in plain.data_collator([data[2]])


@pytest.mark.parametrize(
    "changes", [{}, {"mini_batch_size": 4, "random_crop": 0.4}, {"gradient_accumulation_steps": 2, "random_crop": 0.4}]
)
def test_resumed_equals_straight(tmp_path, changes):
    """Dropout, shuffling, Adam and schedule included, bit for bit; both in and at the end of an epoch."""

    def build(folder):
        return trainer(
            folder,
            model=with_dropout(tiny_clip()),
            data=rows(20, captions=2),
            optim="adamw_torch",
            learning_rate=1e-3,
            max_steps=7,
            save_strategy="steps",
            save_steps=1,
            eval_strategy="steps",
            eval_steps=2,
            options={"eval_dataset": rows(8)},
            **changes,
        )

    straight = build(tmp_path / "straight")
    straight.train()
    steps_per_epoch = len(straight.get_train_dataloader()) // changes.get("gradient_accumulation_steps", 1)
    assert steps_per_epoch < 6
    for step in {3, steps_per_epoch}:
        resumed = build(tmp_path / "resumed")
        with torch.no_grad():
            resumed.model.logit_scale.fill_(0.1)  # must come from the checkpoint
        resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / f"checkpoint-{step}"))
        _assert_equal(weights(straight.model), weights(resumed.model))
        assert _log(straight, "loss") == _log(resumed, "loss")
        assert _log(straight, "eval_loss") == _log(resumed, "eval_loss")


def test_evaluating_does_not_change_training(tmp_path):
    plain = trainer(tmp_path, model=with_dropout(tiny_clip()), max_steps=3)
    plain.train()
    evaluated = trainer(
        tmp_path,
        model=with_dropout(tiny_clip()),
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        options={"eval_dataset": rows(8), "evaluators": [lambda _: {"noise": torch.rand(1).item()}]},
    )
    evaluated.train()
    _assert_equal(weights(plain.model), weights(evaluated.model))
    assert len(_log(evaluated, "eval_noise")) == 3


def test_evaluators_choose_the_best_checkpoint(tmp_path):
    scores = iter([0.2, 0.9, 0.4])

    def evaluator(embedder):
        assert embedder.encode_images(tiny_images(2)).shape == (2, 32)
        return {"shape/accuracy": next(scores)}

    run = trainer(
        tmp_path,
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="shape/accuracy",
        options={"evaluators": [evaluator]},
    )
    run.train()
    assert run.state.best_metric == 0.9
    assert run.state.best_model_checkpoint.endswith("checkpoint-2")
    assert _log(run, "eval_shape/accuracy") == [0.2, 0.9, 0.4]
    assert not _log(run, "eval_loss")
    _assert_equal(weights(run.model), weights(AutoModel.from_pretrained(tmp_path / "checkpoint-2")))


def test_evaluators_run_once_with_several_evaluation_sets(tmp_path):
    calls = []
    options = {"eval_dataset": {"a": rows(8), "b": rows(4)}, "evaluators": lambda e: calls.append(1) or {"m": 1}}
    metrics = trainer(tmp_path, options=options).evaluate()
    assert len(calls) == 1
    assert {"eval_a_loss", "eval_b_loss", "eval_m"} <= metrics.keys()
    predicted = trainer(tmp_path, options={"evaluators": lambda e: {"m": 1}}).predict(rows(10, captions=2))
    assert [array.shape for array in predicted.predictions] == [(20, 32), (20, 32)]
    assert predicted.label_ids.tolist() == [100 + i // 2 for i in range(20)]
    assert "test_m" not in predicted.metrics


def test_a_metric_that_no_evaluator_gives(tmp_path):
    run = trainer(
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="shape/acuracy",
        options={"evaluators": [lambda _: {"shape/accuracy": 1.0}]},
    )
    with pytest.raises(ArgumentError, match="did you mean shape/accuracy"):
        run.train()


@pytest.mark.parametrize("value", [math.nan, "high"])
def test_an_evaluator_must_return_numbers(tmp_path, value):
    with pytest.raises(VlcompError, match="returned m="):
        trainer(tmp_path, options={"evaluators": [lambda e: {"m": value}]}).evaluate()


def test_checkpoints_load_as_they_are(tmp_path, clip_checkpoint):
    data = rows(8).remove_columns("image_id")
    run = ContrastiveTrainer(
        str(clip_checkpoint), settings(tmp_path, save_strategy="steps", save_steps=1), train_dataset=data
    )
    run.train()
    run.save_model()
    for folder in (tmp_path / "checkpoint-1", tmp_path):
        scores = pipeline("zero-shot-image-classification", model=str(folder))(
            tiny_images(1)[0], candidate_labels=["a cup", "a star"]
        )
        assert len(scores) == 2
        assert type(AutoProcessor.from_pretrained(folder)).__name__ == "CLIPProcessor"
    _assert_equal(weights(run.model), weights(AutoModel.from_pretrained(tmp_path)))


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_the_saved_processor_fits_pictures_as_in_training(tmp_path, fit):
    given = tiny_processor()
    run = trainer(tmp_path, processor=given, fit=fit)
    run.save_model()
    saved, images = AutoProcessor.from_pretrained(tmp_path), tiny_images(2, (70, 30))
    wanted = process_images(given, images, fit=fit)["pixel_values"]
    assert torch.equal(process_images(saved, images)["pixel_values"], wanted)
    assert torch.equal(
        run.data_collator([{"image": image, "caption": "a"} for image in images])["pixel_values"], wanted
    )


def test_half_precision_checkpoints_train_in_float32(tmp_path):
    tiny_clip(dtype=torch.float16).save_pretrained(tmp_path / "half")
    tiny_processor().save_pretrained(tmp_path / "half")
    run = ContrastiveTrainer(str(tmp_path / "half"), settings(tmp_path / "run"), rows(8))
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}


def test_logit_scale_stays_in_its_limits(tmp_path):
    for start, limit, expected in ((9.0, 50.0, 50.0), (-3.0, 100.0, 1.0)):
        model = tiny_clip()
        with torch.no_grad():
            model.logit_scale.fill_(start)
        run = trainer(tmp_path, model=model, logit_scale_max=limit, max_steps=1)
        run.train()
        assert model.logit_scale.exp().item() == pytest.approx(expected, rel=1e-5)
        assert _log(run, "logit_scale") == [pytest.approx(math.exp(start), rel=1e-5)]
    siglip = tiny_model("siglip")
    with torch.no_grad():
        siglip.logit_scale.fill_(6.0)
    trainer(tmp_path, model=siglip, processor=tiny_processor("siglip"), max_steps=1, learning_rate=1e-6).train()
    assert siglip.logit_scale.item() == pytest.approx(6.0, abs=1e-3)


def test_parts_are_averages_over_the_logging_window(tmp_path):
    every = trainer(tmp_path, max_steps=4)
    every.train()
    seldom = trainer(tmp_path, max_steps=4, logging_steps=2)
    seldom.train()
    for key in ("itc_loss", "logit_scale", "loss"):
        values = _log(every, key)
        pairs = [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=True)]
        assert _log(seldom, key) == pytest.approx(pairs, rel=1e-4), key
    assert _log(every, "itc_loss") == pytest.approx(_log(every, "loss"), rel=1e-4)


def test_a_subclass_gets_the_whole_batch_and_each_step(tmp_path):
    seen = []

    class Doubled(ContrastiveTrainer):
        def compute_loss_from_embeddings(self, embeds, batch):
            loss, parts = super().compute_loss_from_embeddings(embeds, batch)
            seen.append((len(embeds["image_embeds"]), sorted(batch)))
            return 2 * loss, {**parts, "twice_loss": 2 * loss}

        def after_optimizer_step(self):
            super().after_optimizer_step()
            seen.append("step")

    run = Doubled(
        tiny_clip(),
        settings(tmp_path, mini_batch_size=4, gradient_accumulation_steps=2, max_steps=1),
        rows(16),
        processing_class=tiny_processor(),
    )
    run.train()
    assert seen == [(8, ["image_ids"]), (8, ["image_ids"]), "step"]
    assert _log(run, "twice_loss")[0] == pytest.approx(2 * _log(run, "itc_loss")[0])


def test_streams_and_torch_data_sets(tmp_path):
    data = rows(16)
    streamed = trainer(tmp_path, data=data.to_iterable_dataset(num_shards=2), max_steps=5)
    streamed.train()
    assert streamed.state.global_step == 5

    class Plain(torch.utils.data.Dataset):
        image_ids = list(data["image_id"])

        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            return dict(data[index])

    listed, mapped = trainer(tmp_path, data=Plain()), trainer(tmp_path)
    listed.train()
    mapped.train()
    _assert_equal(weights(listed.model), weights(mapped.model))


def test_an_image_is_once_in_a_batch(tmp_path):
    data = rows(12, captions=4)
    unique = trainer(tmp_path, data=data)
    for batch in unique.get_train_dataloader():
        assert len(batch["image_ids"].unique()) == 8
    anyhow = trainer(tmp_path, data=data, unique_images=False)
    assert any(len(batch["image_ids"].unique()) < 8 for batch in anyhow.get_train_dataloader())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = tiny_clip()
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = math.nan
    with pytest.raises(VlcompError, match="loss is nan at step 1;.*learning_rate"):
        trainer(tmp_path, model=model).train()
    trainer(tmp_path, model=model, stop_on_nan_loss=False).train()


def test_layer_decay_and_weight_decay(tmp_path):
    run = trainer(tmp_path, layer_decay=0.5, weight_decay=0.1, optim="adamw_torch", learning_rate=0.08)
    run.create_optimizer()
    groups = {id(p): g for g in run.optimizer.param_groups for p in g["params"]}
    found = {name: (groups[id(p)]["lr"], groups[id(p)]["weight_decay"]) for name, p in run.model.named_parameters()}
    assert found["visual_projection.weight"] == (0.08, 0.1)
    assert found["logit_scale"] == (0.08, 0.0)
    assert found["text_model.final_layer_norm.weight"] == (0.08, 0.0)
    assert found["vision_model.encoder.layers.1.mlp.fc1.weight"] == (0.04, 0.1)
    assert found["vision_model.encoder.layers.1.mlp.fc1.bias"] == (0.04, 0.0)
    assert found["text_model.encoder.layers.0.self_attn.q_proj.weight"] == (0.02, 0.1)
    assert found["text_model.embeddings.token_embedding.weight"] == (0.01, 0.1)
    assert found["text_model.embeddings.position_embedding.weight"] == (0.01, 0.0)
    assert found["vision_model.embeddings.class_embedding"] == (0.01, 0.0)
    assert found["vision_model.pre_layrnorm.weight"] == (0.01, 0.0)
    assert run.optimizer.param_groups[0]["lr"] == 0.08
    run.train()
    assert _log(run, "learning_rate")[0] == pytest.approx(0.08)


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"loss": "hinge"}, "loss='hinge'"),
            ({"freeze": "both"}, "freeze='both'"),
            ({"fit": "stretch"}, "fit='stretch'"),
            ({"mini_batch_size": 0}, "mini_batch_size=0"),
            ({"layer_decay": 1.5}, "layer_decay=1.5"),
            ({"logit_scale_max": 0.5}, "logit_scale_max=0.5"),
            ({"adam_beta2": 1.5}, "adam_beta2=1.5 must lie between 0 and 1"),
            ({"adam_epsilon": -1}, "adam_epsilon=-1 must be 0 or more"),
            ({"load_best_model_at_end": True, "eval_strategy": "steps"}, "metric_for_best_model"),
        ],
    )
    def test_arguments(self, tmp_path, changes, message):
        with pytest.raises(ArgumentError, match=message):
            settings(tmp_path, **changes)

    def test_trainer_arguments(self, tmp_path):
        with pytest.raises(ArgumentError, match="ContrastiveTrainingArguments"):
            ContrastiveTrainer(tiny_clip(), TrainingArguments(str(tmp_path)), rows(4))
        with pytest.raises(ArgumentError, match="pass processing_class"):
            ContrastiveTrainer(tiny_clip(), settings(tmp_path), rows(4))
        with pytest.raises(ArgumentError, match="logit_bias"):
            trainer(tmp_path, loss="sigmoid")
        with pytest.raises(ArgumentError, match="no parameter"):
            trainer(tmp_path, model=tiny_clip().requires_grad_(False))
        with pytest.raises(ArgumentError, match="evaluators holds a int"):
            trainer(tmp_path, options={"evaluators": [3]})
        with pytest.raises(CheckpointError, match="not a dual encoder"):
            trainer(tmp_path, model=tiny_clip().text_model)

    def test_the_output_folder_is_tried_before_anything_is_loaded(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ArgumentError, match="output_dir=.*file/run.*cannot be written"):
            ContrastiveTrainer("no/such/model", settings(tmp_path / "file" / "run"), rows(4))

    def test_data_sets(self, tmp_path):
        with pytest.raises(ArgumentError, match="eval_strategy"):
            trainer(tmp_path, eval_strategy="steps")
        with pytest.raises(DataError, match="train_dataset has no rows"):
            trainer(tmp_path, data=rows(4).select([]))
        with pytest.raises(DataError, match="no column 'caption', only image, text"):
            trainer(tmp_path, data=rows(4).rename_column("caption", "text").remove_columns("image_id"))
        with pytest.raises(DataError, match="eval_dataset has no rows"):
            trainer(tmp_path, options={"eval_dataset": rows(4).select([])})
        with pytest.raises(DataError, match="gave no rows"):
            trainer(tmp_path, data=rows(4).to_iterable_dataset().filter(lambda row: False)).train()
        with pytest.raises(ArgumentError, match="train_dataset"):
            ContrastiveTrainer(tiny_clip(), settings(tmp_path), processing_class=tiny_processor()).train()

    def test_a_batch_of_one_is_warned_of(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING):
            trainer(tmp_path, per_device_train_batch_size=1)
        assert "batch of 1" in caplog.text


def test_only_model_and_data_are_required(tmp_path, monkeypatch, clip_checkpoint):
    monkeypatch.chdir(tmp_path)
    data = datasets.Dataset.from_dict({"image": tiny_images(4), "caption": tiny_captions(4)})
    run = ContrastiveTrainer(str(clip_checkpoint), train_dataset=data)
    assert isinstance(run.args, ContrastiveTrainingArguments)
    assert run.args.output_dir == "checkpoint-contrastive"
    assert not run.args.bf16
    assert run.accelerator.mixed_precision == "no"


def test_reports_to_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "log"))
    trainer(tmp_path, report_to="tensorboard").train()
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    assert "train/itc_loss" in events.Tags()["scalars"]


def test_state_of_the_trainer_is_readable(tmp_path):
    run = trainer(tmp_path, save_strategy="steps", save_steps=2)
    run.train()
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert {"itc_loss", "logit_scale", "loss"} <= state["log_history"][0].keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"per_device_train_batch_size": 0},
        {"gradient_accumulation_steps": 0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -0.1},
        {"dataloader_num_workers": -1},
        {"seed": -1},
        {"max_steps": 0},
        {"max_steps": -1, "num_train_epochs": 0},
        {"learning_rate": "1e-3"},
        {"mini_batch_size": "8"},
        {"layer_decay": "0.5"},
        {"report_to": "wandbb"},
        {"push_to_hub": True},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(tmp_path, changes):
    name = list(changes)[-1]
    with pytest.raises(ArgumentError, match=name):
        trainer(tmp_path, **changes)


def test_hard_negatives_that_the_data_does_not_have(tmp_path):
    with pytest.raises(DataError, match="train_dataset has no column 'negative_captions'.*vlcomp negatives"):
        trainer(tmp_path, use_hard_negatives=True)


def test_rows_of_one_image_cannot_be_contrasted(tmp_path):
    with pytest.raises(DataError, match="3 rows of one image"):
        trainer(tmp_path, data=rows(1, captions=3)).train()


def test_a_batch_larger_than_the_data_is_told(tmp_path, caplog):
    trainer(tmp_path, per_device_train_batch_size=100).train()
    assert "the batch of 100 is larger than the 16 rows" in caplog.text
    caplog.clear()
    trainer(tmp_path).train()
    assert "larger" not in caplog.text


def test_a_bad_picture_does_not_cost_the_steps_before_it(tmp_path):
    data = load_captioned(make_captioned_folder(tmp_path / "data", n=16, size=(32, 32)))
    options = {"save_strategy": "steps", "save_steps": 100, "max_steps": 4}
    whole = trainer(tmp_path / "whole", data=data, **options)
    whole.train()
    run = trainer(tmp_path / "run", data=data, **options)
    collate, batches = run.data_collator, []

    def failing(batch):
        batches.append(batch)
        if len(batches) == 4:
            raise DataError("cannot read 0003.png")
        return collate(batch)

    run.data_collator = failing
    with pytest.raises(DataError, match=r"0003.png. The \d steps before it are saved in .*checkpoint-\d"):
        run.train()
    assert 0 < run.state.global_step < 4
    again = trainer(tmp_path / "run", data=data, **options)
    again.train(resume_from_checkpoint=True)
    _assert_equal(weights(again.model), weights(whole.model))


def test_a_path_is_no_data_set(tmp_path):
    with pytest.raises(ArgumentError, match=r"train_dataset='photos' is a name.*load_captioned\('photos'\)"):
        trainer(tmp_path, data="photos")
