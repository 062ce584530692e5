"""CommaTrainer: what trains, what the loss is, and that a run is the same however it is carried out."""

import math
import os
import socket

import datasets
import numpy as np
import pytest
import torch
import torch.multiprocessing
from peft import LoraConfig
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModel, CLIPModel, TrainerCallback

from vlcomp import CommaModel, CommaTrainer, CommaTrainingArguments, load_embedder
from vlcomp.data import load_image_classes
from vlcomp.errors import ArgumentError, CheckpointError, DataError
from vlcomp.evaluation.tasks import ZeroShotClassification
from vlcomp.losses import knowledge_loss
from vlcomp.models.comma.configuration_comma import VARIANTS
from vlcomp.testing import make_class_folder, tiny_clip, tiny_images, tiny_processor
from vlcomp.training.comma import PROMPTS_FILE
from vlcomp.training.labelled import RandomViews
from vlcomp.training.prompted import classes_in_chunks

from ..models.test_comma import EXPECTED
from .common import weights, with_dropout

TRAINED = [variant for variant in VARIANTS if variant != "zero-shot"]
NAMES = ("red cup", "star", "dog")
SETTINGS = {
    "learning_rate": 0.05,
    "num_train_epochs": 3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}


def save_clip(folder):
    """A CLIP of three blocks, its towers of different width."""
    config = tiny_clip(layers=3).config
    for name, value in (("hidden_size", 24), ("intermediate_size", 48)):
        setattr(config.vision_config, name, value)
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


def labelled(images=12, names=NAMES):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    rows = {"image": tiny_images(images, (40, 32)), "label": [i % len(names) for i in range(images)]}
    return datasets.Dataset.from_dict(rows, features=features)


def trainer(folder, model, *, data=None, options=None, **changes):
    return CommaTrainer(
        model,
        CommaTrainingArguments(str(folder), **{**SETTINGS, **changes}),
        labelled() if data is None else data,
        processing_class=None if isinstance(model, (str, os.PathLike)) else tiny_processor(),
        **(options or {}),
    )


def model_of(clip, variant="comma", dtype=torch.float32, **options):
    torch.manual_seed(1)
    model = CommaModel.from_clip(clip, prompt_variant=variant, dtype=dtype, **options)
    with torch.no_grad():  # large enough to matter
        for parameter in model.prompts.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


class Watch(TrainerCallback):
    """Notes gradients and learning rates of each step."""

    def __init__(self):
        self.gradients, self.rates = [], []

    def on_pre_optimizer_step(self, args, state, control, model, optimizer, **kwargs):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        self.rates.append({group["lr"] for group in optimizer.param_groups if group["params"]})


def count_texts(model):
    """How many texts go through the text tower, call by call."""
    calls = []
    model.text_model.embeddings.register_forward_hook(lambda _, __, output: calls.append(len(output)))
    return calls


# -- what trains


@pytest.mark.parametrize("variant", TRAINED)
def test_gradient_reaches_all_prompts_and_leaves_clip_alone(variant, clip, tmp_path):
    settings = {"share_generator": False, "kd_layers": 2}
    watch = Watch()
    run = trainer(tmp_path, clip, prompt_variant=variant, warmup_epochs=0, options={"callbacks": [watch]}, **settings)
    before = weights(run.model)
    run.train()
    expected = sorted(f"prompts.{name}" for name in EXPECTED[variant])
    for gradients in watch.gradients:
        assert sorted(gradients) == expected
        assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    in_optimizer = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert in_optimizer == {id(run.model.get_parameter(name)) for name in expected}
    changed = {name for name, value in weights(run.model).items() if not torch.equal(value, before[name])}
    assert changed == set(expected)
    plain = CLIPModel.from_pretrained(clip).state_dict()
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in plain.items())
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    assert len(logged) == 9 and ("knowledge_loss" in logged[0]) == (variant != "deep-vision")
    # Not a prompt parameter is missing from the list.
    assert expected == sorted(f"prompts.{name}" for name, _ in run.model.prompts.named_parameters())


def test_the_generator_is_shared_and_detached_as_asked(clip, tmp_path):
    watch = Watch()
    run = trainer(tmp_path, clip, detach_generator=True, options={"callbacks": [watch]})
    assert run.model.config.detach_generator and run.model.config.share_generator
    run.train()
    names = {name for name in watch.gradients[0] if not name.startswith("prompts.text")}
    assert names == {"prompts.projections.0.weight", "prompts.projections.0.bias"}


def test_training_learns(clip, tmp_path):
    data = load_image_classes(make_class_folder(tmp_path / "data", ("red cup", "star", "dog"))).dataset
    changes = {"optim": "adamw_torch", "learning_rate": 0.03, "num_train_epochs": 25, "random_crop": None}
    run = trainer(tmp_path, clip, data=data, per_device_train_batch_size=12, logging_steps=5, **changes)
    run.train()
    losses = [entry["ce_loss"] for entry in run.state.log_history if "ce_loss" in entry]
    assert losses[-1] < losses[0] - 0.3


# -- the loss


@pytest.mark.parametrize("layers", [1, 3])
def test_loss_equals_a_direct_computation(layers, clip, tmp_path):
    model = model_of(clip, kd_layers=layers, knowledge_template="a photo of a {}, a kind of thing")
    run = trainer(tmp_path, model, kd_weight=2.5, per_device_train_batch_size=12, random_crop=None, random_flip=False)
    data = labelled()
    copy = model_of(clip, kd_layers=layers, knowledge_template="a photo of a {}, a kind of thing").set_classes(NAMES)
    run.train()
    first = run.state.log_history[0]
    pixels = tiny_processor()(images=list(data["image"]), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = copy(pixel_values=pixels, output_text_hidden_states=True)
        targets, mask = copy.knowledge_targets()
        wanted = torch.tensor(data["label"][:])
        ce = functional.cross_entropy(output.logits_per_image, wanted).item()
        knowledge = knowledge_loss(output.text_hidden_states, targets, output.text_mask, mask).item()
    assert knowledge > 0.01
    assert first["ce_loss"] == pytest.approx(ce, abs=1e-5)
    assert first["knowledge_loss"] == pytest.approx(knowledge, abs=1e-6)
    assert first["loss"] == pytest.approx(ce + 2.5 * knowledge, abs=1e-5)
    assert first["accuracy"] == pytest.approx((output.logits_per_image.argmax(1) == wanted).float().mean().item())
    assert run.model.config.kd_weight is None
    run.save_model()
    assert CommaModel.from_pretrained(tmp_path).config.kd_weight == 2.5


def test_targets_are_computed_once_and_texts_are_short(clip, tmp_path):
    model = model_of(clip)
    calls, widths = count_texts(model), []
    model.text_model.embeddings.register_forward_hook(lambda _, __, output: widths.append(output.shape[1]))
    trainer(tmp_path, model).train()
    # 9 steps with 3 classes, and the targets.
    assert calls == [3] * 10
    longest = max(len(tiny_processor().tokenizer(f"a photo of a {name}.").input_ids) for name in NAMES)
    assert set(widths) == {longest}
    calls.clear()
    trainer(tmp_path, model_of(clip), kd_weight=0.0).train()
    vision = model_of(clip, "deep-vision")
    calls = count_texts(vision)
    trainer(tmp_path, vision).train()
    assert calls == [3]  # fixed texts are encoded once for the whole run


@pytest.mark.parametrize("size", [1, 2])
def test_chunks_change_no_gradient_and_no_loss(size, clip, tmp_path):
    def run(size):
        watch, model = Watch(), model_of(clip, dtype=torch.float64, kd_layers=2)
        calls = count_texts(model)
        made = trainer(
            tmp_path, model, class_chunk_size=size, max_steps=4, warmup_epochs=0, options={"callbacks": [watch]}
        )
        made.train()
        assert "encode_classes" not in vars(model)
        return watch.gradients, made.state.log_history, calls

    whole, in_chunks = run(3), run(size)
    for one, other in zip(whole[0], in_chunks[0], strict=True):
        assert one.keys() == other.keys()
        for name, gradient in one.items():
            assert torch.allclose(gradient, other[name], atol=1e-12, rtol=1e-9), name
    for one, other in zip(whole[1][:-1], in_chunks[1][:-1], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    parts = [1, 1, 1] if size == 1 else [2, 1]
    assert whole[2] == [3] * 5
    # In a step: forward, then backward part by part, the last one first; and the targets in parts.
    assert in_chunks[2][: len(parts)] == parts and max(in_chunks[2]) == size
    assert sum(in_chunks[2]) == 3 + 4 * 6


def test_chunks_hold_one_part_in_memory(clip):
    model = model_of(clip).train().set_classes([f"{word} {name}" for word in ("red", "blue") for name in NAMES])

    def kept(size):
        """Bytes that the forward pass keeps for the backward pass."""
        found = {}

        def pack(tensor):
            found[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        own = {p.data_ptr() for p in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), classes_in_chunks(model, size):
            held = model.encode_classes(output_hidden_states=True)
        assert held.text_embeds.shape[0] == 6
        return sum(size for pointer, size in found.items() if pointer not in own)

    assert kept(2) < kept(6) / 5


def test_accumulation_is_exact(clip, tmp_path):
    def run(**changes):
        model = model_of(clip, dtype=torch.float64)
        made = trainer(tmp_path, model, data=labelled(10), dataloader_drop_last=False, **changes)
        made.train()
        return weights(made.model), made.state.log_history

    # Also where the parts are not of one size: 3, 3, 3 and 1 rows.
    expected, log = run(per_device_train_batch_size=10)
    for changes in (
        {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4},
    ):
        found, other = run(**changes)
        assert all(torch.allclose(found[name], value, atol=1e-9, rtol=0) for name, value in expected.items())
        for one, two in zip(log[:-1], other[:-1], strict=True):
            for key in ("loss", "ce_loss", "knowledge_loss", "accuracy", "learning_rate"):
                assert one[key] == pytest.approx(two[key], rel=1e-6), key
    assert not torch.equal(expected["prompts.text.0"], model_of(clip).prompts.text[0].double())


def test_bfloat16(clip, tmp_path):
    losses = {}
    for half in (False, True):
        run = trainer(tmp_path, model_of(clip), bf16=half, random_crop=None)
        kinds = set()
        run.model.visual_projection.register_forward_hook(lambda _, __, out, kinds=kinds: kinds.add(out.dtype))
        run.train()
        assert kinds == {torch.bfloat16 if half else torch.float32}
        assert {value.dtype for value in run.model.state_dict().values()} == {torch.float32}
        losses[half] = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], abs=0.05)


# -- the same run however it is carried out


def _resumed(folder, clip, name, *, stop, **changes):
    settings = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 2, **changes}
    straight = trainer(f"{folder}/{name}", with_dropout(model_of(clip), 0.3), **settings)
    straight.train()
    resumed = trainer(f"{folder}/{name}-again", with_dropout(model_of(clip), 0.3), **settings)
    resumed.train(resume_from_checkpoint=f"{folder}/{name}/checkpoint-{stop}")
    return straight, resumed


@pytest.mark.parametrize(
    ("stop", "changes"),
    [
        (3, {}),  # in the first epoch, at the constant rate
        (12, {}),  # at the end of one
        (8, {"gradient_accumulation_steps": 2}),
        (8, {"save_full_checkpoints": True, "class_chunk_size": 2}),
    ],
)
def test_resuming_is_exact(stop, changes, clip, tmp_path):
    straight, resumed = _resumed(tmp_path, clip, "run", stop=stop, **changes)
    after = weights(resumed.model)
    assert all(torch.equal(value, after[name]) for name, value in weights(straight.model).items())
    assert resumed.state.global_step == straight.state.global_step > stop
    rates = [entry["learning_rate"] for entry in straight.state.log_history if "loss" in entry]
    again = [entry["learning_rate"] for entry in resumed.state.log_history if "loss" in entry]
    assert rates == again
    folder = tmp_path / "run" / f"checkpoint-{stop}"
    whole = "save_full_checkpoints" in changes
    assert (folder / "model.safetensors").is_file() == whole and (folder / PROMPTS_FILE).is_file() != whole
    if not whole:
        kept = load_file(folder / PROMPTS_FILE)
        assert sorted(kept) == sorted(EXPECTED_SHARED)
        assert CommaModel.from_clip(clip, prompts=folder / PROMPTS_FILE).prompts.text[0].equal(kept["text.0"])


EXPECTED_SHARED = ["text.0", "text.1", "text.2", "projections.0.weight", "projections.0.bias"] + [
    f"blocks.0.{part}.{name}" for part in ("norm", "down", "up") for name in ("weight", "bias")
]


def test_a_checkpoint_of_other_settings_is_refused(clip, tmp_path):
    trainer(tmp_path, clip, save_strategy="steps", save_steps=4, max_steps=4).train()
    checkpoint = str(tmp_path / "checkpoint-4")
    for changes, named in (
        ({"template": "this is a {}"}, "was written with template='a photo of a {}.', and the model has 'this is"),
        ({"kd_layers": 2}, "was written with kd_layers=1, and the model has 2"),
    ):
        with pytest.raises(CheckpointError, match=named):
            trainer(tmp_path, clip, **changes).train(resume_from_checkpoint=checkpoint)
    other = save_clip(tmp_path / "other")
    model = CLIPModel.from_pretrained(other)
    with torch.no_grad():
        model.text_projection.weight.add_(1)
    model.save_pretrained(other)
    with pytest.raises(CheckpointError, match="trained on another CLIP"):
        trainer(tmp_path, other).train(resume_from_checkpoint=checkpoint)


def test_new_prompts_follow_the_seed(clip, tmp_path):
    one, same, other = (trainer(tmp_path, clip, seed=seed).model.prompts for seed in (1, 1, 2))
    assert torch.equal(one.text[1], same.text[1]) and not torch.equal(one.text[1], other.text[1])


def _two(folder, clip, **changes):
    model = model_of(clip, dtype=torch.float64)
    run = trainer(
        folder,
        model,
        save_strategy="steps",
        save_steps=2,
        per_device_eval_batch_size=4,
        options={"eval_dataset": labelled(8)},
        **changes,
    )
    run.train()
    again = trainer(folder, model_of(clip, dtype=torch.float64), **changes)
    again.train(resume_from_checkpoint=f"{folder}/checkpoint-4")
    return {
        "weights": weights(run.model),
        "log": [entry for entry in run.state.log_history if "loss" in entry],
        "resumed": weights(again.model),
        "metrics": run.evaluate(),
        "accuracy": run.evaluate(labelled(7))["eval_accuracy"],  # where a process has a row less
    }


PARTS = {
    "plain": {},
    "chunks": {"class_chunk_size": 1},
    "accumulated": {"gradient_accumulation_steps": 3, "num_train_epochs": 8},
}


def _worker(rank, port, folder, clip):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    results = {
        name: _two(f"{folder}/{name}", clip, per_device_train_batch_size=2, **changes)
        for name, changes in PARTS.items()
    }
    torch.save(results, f"{folder}/results_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_worker, args=(port, str(folder), str(clip)), nprocs=2)
    return [torch.load(folder / f"results_{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", PARTS)
def test_two_processes_equal_one(name, two, clip, tmp_path):
    expected = _two(tmp_path, clip, per_device_train_batch_size=4, **PARTS[name])
    for result in two:
        found = result[name]
        for key, value in expected["weights"].items():
            assert torch.allclose(found["weights"][key], value, atol=1e-9, rtol=0), key
            assert torch.equal(found["resumed"][key], found["weights"][key]), key
        for one, other in zip(expected["log"], found["log"], strict=True):
            for key in ("loss", "ce_loss", "knowledge_loss", "accuracy", "grad_norm"):
                assert one[key] == pytest.approx(other[key], rel=1e-6), key
        assert found["accuracy"] == expected["accuracy"]
        assert found["metrics"]["eval_accuracy"] == expected["metrics"]["eval_accuracy"]
        assert found["metrics"]["eval_loss"] == pytest.approx(expected["metrics"]["eval_loss"], rel=1e-6)


# -- settings and schedule


def test_defaults_are_those_of_the_paper(clip, tmp_path):
    args = CommaTrainingArguments(str(tmp_path))
    assert (args.learning_rate, args.optim.value, args.lr_scheduler_type.value) == (0.0035, "sgd", "cosine")
    assert (args.per_device_train_batch_size, args.num_train_epochs, args.kd_weight) == (4, 5, 1.0)
    assert (args.warmup_epochs, args.warmup_lr, args.weight_decay, args.max_grad_norm) == (1.0, 1e-5, 5e-4, 0.0)
    watch = Watch()
    run = CommaTrainer(
        str(clip),
        CommaTrainingArguments(str(tmp_path), report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no"),
        labelled(16),
        callbacks=[watch],
    )
    run.train()
    config = run.model.config
    assert (config.prompt_variant, config.n_ctx, config.text_prompt_depth, config.kd_layers) == ("comma", 2, 3, 1)
    (group,) = [group for group in run.optimizer.param_groups if group["weight_decay"]]
    assert group["momentum"] == 0.9 and isinstance(run.optimizer.optimizer, torch.optim.SGD)
    steps = [0.0035 * (1 + math.cos(math.pi * k / 16)) / 2 for k in range(16)]
    assert [rate for rates in watch.rates for rate in rates] == pytest.approx([1e-5] * 4 + steps, rel=1e-9)


def test_other_schedules(clip, tmp_path):
    def rates(**changes):
        watch = Watch()
        trainer(tmp_path, clip, options={"callbacks": [watch]}, learning_rate=0.1, **changes).train()
        return [rate for step in watch.rates for rate in step]

    assert rates(warmup_epochs=0, lr_scheduler_type="constant") == [0.1] * 9
    assert rates(warmup_epochs=0, warmup_steps=2)[:3] == pytest.approx([0.0, 0.05, 0.1])
    found = rates(warmup_epochs=0.5, warmup_lr=0.01, lr_scheduler_type="constant", gradient_accumulation_steps=2)
    assert found == pytest.approx([0.01] + [0.1] * 5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"use_hard_negatives": True}, "use_hard_negatives=True has no effect on prompts"),
        ({"mini_batch_size": 2}, "or use gradient_accumulation_steps"),
        ({"freeze": "vision"}, "freeze='vision' has no effect"),
        ({"kd_weight": -1.0}, "kd_weight=-1.0 must be 0 or more"),
        ({"kd_weight": "much"}, "kd_weight='much' must be a number"),
        ({"warmup_lr": float("nan")}, "warmup_lr=nan"),
        ({"class_chunk_size": 0}, "class_chunk_size=0 must be at least 1"),
        ({"prompt_variant": "comas"}, "prompt_variant='comas' is not one of zero-shot, coop"),
        ({"warmup_steps": 5}, "give warmup_epochs=0"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "follows the loss"),
        ({"random_crop": 1.5}, "random_crop=1.5"),
    ],
)
def test_wrong_settings_are_named(changes, named, tmp_path):
    with pytest.raises(ArgumentError, match=named):
        CommaTrainingArguments(str(tmp_path), **changes)


def test_a_run_within_the_first_epochs_is_refused(clip, tmp_path):
    with pytest.raises(ArgumentError, match="warmup_epochs=1 are 3 steps, and the run has 3: all of it"):
        trainer(tmp_path, clip, num_train_epochs=1).train()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompt_depth": 4}, "prompt_depth=4 is beyond the 3 blocks of the text tower"),
        ({"template": "a photo"}, "template='a photo' needs one placeholder"),
        ({"knowledge_template": "{} {}"}, "knowledge_template='{} {}' needs one placeholder"),
        ({"n_ctx": 40}, "n_ctx=40 leaves no room for a text in 32 positions"),
        ({"n_ctx": 26, "template": "word " * 26 + "{} of some long text"}, "has room for 6 beside the prompts"),
        ({"kd_layers": 9}, "kd_layers=9 must be between 1 and 3"),
        ({"prompt_variant": "maple", "detach_generator": True}, "has no generator"),
        ({"prompt_variant": "zero-shot"}, "has no prompts to train"),
    ],
)
def test_prompts_that_do_not_fit_are_named(changes, named, clip, tmp_path):
    with pytest.raises(ArgumentError, match=named) as caught:
        trainer(tmp_path, clip, **changes)
    assert "\n" not in str(caught.value)


def test_a_model_with_other_prompts_is_not_changed(clip, tmp_path):
    with pytest.raises(ArgumentError, match="prompt_variant='maple', but the model has 'comma'"):
        trainer(tmp_path, model_of(clip), prompt_variant="maple")
    assert trainer(tmp_path, model_of(clip, "maple"), prompt_variant="maple").model.config.prompt_variant == "maple"
    with pytest.raises(ArgumentError, match="model is a CLIPModel, which has no prompts"):
        trainer(tmp_path, tiny_clip())
    with pytest.raises(CheckpointError, match="there is no such folder"):
        trainer(tmp_path, str(tmp_path / "nothing"))
    with pytest.raises(ArgumentError, match="CLIP, which is frozen here"):
        trainer(tmp_path, clip, options={"peft_config": LoraConfig()})


# -- classes and labels


def _plain(labels, **columns):
    return datasets.Dataset.from_dict({"image": tiny_images(len(labels)), "label": labels, **columns})


@pytest.mark.parametrize(
    ("data", "names", "named"),
    [
        (
            _plain([0, 1, 2]),
            ("cup", "star"),
            r"row 2 of train_dataset has the label 2, which is none of the 2",
        ),
        (_plain([0, -1]), ("cup", "star"), r"row 1 of train_dataset has the label -1"),
        (_plain(["cup", "dog"]), ("cup", "star"), r"row 1 of train_dataset has the label 'dog'"),
        (_plain(["cup", None]), None, r"row 1 of train_dataset has the label None"),
        (_plain([0, 1]), None, "class_names is missing"),
        (_plain([0, 1]), "cup", "is one text"),
        (_plain([0, 1]), ("cup", ""), r"class_names: names\[1\]='' must be a string with a class name"),
        (_plain([0, 1]), ("cup", "cup"), r"names\[1\]='cup' is also names\[0\]"),
        (_plain([0, 1]), ("cup", "dog " * 30), r"has room for 30 beside the prompts"),
        (labelled(), ("cup", "star"), "class_names has 2 names, but the column 'label' has 3 classes"),
        (labelled().remove_columns("label"), None, "train_dataset has no column 'label', only image"),
        (labelled().rename_column("image", "picture"), None, "train_dataset has no column 'image'"),
        (labelled().select([]), None, "train_dataset has no rows"),
        (labelled().to_iterable_dataset(), None, "without a length"),
        ("photos", None, "is a name, not data; pass vlcomp.data.load_image_classes"),
    ],
)
def test_wrong_classes_and_labels_are_named(data, names, named, clip, tmp_path):
    with pytest.raises((ArgumentError, DataError), match=named):
        trainer(tmp_path, clip, data=data, options={"class_names": names})


def test_labels_are_numbers_or_names(clip, tmp_path):
    texts = _plain(["old_dog", "cup", "old_dog", "star"])
    run = trainer(tmp_path, clip, data=texts)
    assert run.model.class_names == ("cup", "old dog", "star")
    rows = [texts[i] for i in range(4)]
    assert run.data_collator(rows)["class_index"].tolist() == [1, 0, 1, 2]
    run = trainer(tmp_path, clip, data=texts, options={"class_names": ["star", "old_dog", "cup"]})
    assert run.data_collator(rows)["class_index"].tolist() == [1, 2, 1, 0]
    run = trainer(tmp_path, clip, options={"class_names": ["mug", "sun", "cat"]})
    assert run.model.class_names == ("mug", "sun", "cat")
    with pytest.raises(DataError, match="row 0 of a batch has no column 'label'"):
        run.data_collator([{"image": rows[0]["image"]}])
    # Classes that the model has already stay as they were set.
    model = model_of(clip).set_classes(["a", "b", "c"], template="this is the {}", tokenizer=tiny_processor())
    before = model.encode_classes().text_embeds
    run = trainer(tmp_path, model, data=_plain([0, 1, 2]))
    assert torch.equal(run.model.encode_classes().text_embeds, before)


def test_evaluation_data_have_the_same_classes(clip, tmp_path):
    other = labelled(names=("star", "red cup", "dog"))
    with pytest.raises(DataError, match="eval_dataset has other classes .*the same ones in another order"):
        trainer(tmp_path, clip, options={"eval_dataset": other})
    with pytest.raises(DataError, match="eval_dataset far has other classes .*'cat' is in only one"):
        trainer(tmp_path, clip, options={"eval_dataset": {"far": labelled(names=("red cup", "star", "cat"))}})


# -- evaluation and results


def test_evaluation_encodes_each_class_once(clip, tmp_path):
    model = model_of(clip)
    run = trainer(tmp_path, model, options={"eval_dataset": labelled(11)}, per_device_eval_batch_size=2)
    calls = count_texts(run.model)
    metrics = run.evaluate()
    assert calls == [3]
    with torch.no_grad():
        data = labelled(11)
        pixels = tiny_processor()(images=list(data["image"]), return_tensors="pt")["pixel_values"]
        logits, wanted = model(pixel_values=pixels).logits_per_image, torch.tensor(data["label"][:])
    assert metrics["eval_accuracy"] == pytest.approx((logits.argmax(1) == wanted).float().mean().item())
    assert metrics["eval_loss"] == pytest.approx(functional.cross_entropy(logits, wanted).item(), abs=1e-5)
    with torch.no_grad():
        for prompt in model.prompts.parameters():
            prompt.zero_()
        model.text_projection.weight.zero_()[0] = 1.0  # all texts alike: ties are wrong
    assert run.evaluate()["eval_accuracy"] == 0.0


def test_the_best_prompts_are_loaded_and_the_result_is_a_whole_model(clip, tmp_path):
    data = load_image_classes(make_class_folder(tmp_path / "data", ("red_cup", "star")))
    run = trainer(
        tmp_path / "out",
        str(clip),
        data=data.dataset,
        options={"eval_dataset": data.dataset},
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # so that it is not the last one
        optim="adamw_torch",
        learning_rate=0.02,
        random_crop=None,
        warmup_epochs=0,
    )
    run.train()
    best = load_file(tmp_path / "out" / f"checkpoint-{run.state.best_global_step}" / PROMPTS_FILE)
    assert all(torch.equal(value, run.model.prompts.state_dict()[name]) for name, value in best.items())
    assert run.state.best_global_step < run.state.global_step
    metrics = run.evaluate()
    run.save_model()
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert isinstance(model, CommaModel) and model.config.kd_weight == 1.0
    # The usual task finds the same accuracy, with the template that is left beside the prompts.
    task = ZeroShotClassification(tmp_path / "data", templates=model.config.learned_template, gallery=False)
    embedder = load_embedder(tmp_path / "out")
    calls = count_texts(embedder.model)
    assert task.run(embedder).scores["accuracy"].value == pytest.approx(metrics["eval_accuracy"])
    assert sum(calls) == 2


# -- views


def test_views_depend_on_row_and_epoch_alone():
    data = labelled(8)
    views = RandomViews(data, 0.3, size=(32, 24), seed=3)
    first = [np.asarray(views[i]["image"]) for i in range(8)]
    again = [np.asarray(row["image"]) for row in RandomViews(data, 0.3, size=(32, 24), seed=3).__getitems__(range(8))]
    assert all(map(np.array_equal, first, again)) and first[0].shape == (32, 24, 3)
    views.set_epoch(1)
    other = [np.asarray(views[i]["image"]) for i in range(8)]
    assert not any(map(np.array_equal, first, other))
    assert [views[i]["label"] for i in range(8)] == data["label"][:]


def test_half_of_the_images_are_mirrored():
    data = labelled(64)
    plain = [np.asarray(image) for image in data["image"]]
    views = [np.asarray(row["image"]) for row in RandomViews(data, None, flip=True)]
    mirrored = [np.array_equal(one, other[:, ::-1]) for one, other in zip(views, plain, strict=True)]
    same = [np.array_equal(one, other) for one, other in zip(views, plain, strict=True)]
    assert all(a or b for a, b in zip(mirrored, same, strict=True)) and 16 < sum(mirrored) < 48
    assert all(map(np.array_equal, (np.asarray(row["image"]) for row in RandomViews(data, flip=False)), plain))


@pytest.mark.parametrize("crop", [None, 0.5])
def test_bad_images(crop, clip, tmp_path):
    folder = make_class_folder(tmp_path / "data", ("cup", "star"))
    (folder / "cup" / "001.png").write_bytes(b"no picture")
    data = load_image_classes(folder).dataset
    with pytest.raises(DataError, match=r"cup.001\.png"):
        trainer(tmp_path, clip, data=data, random_crop=crop).train()
    run = trainer(tmp_path, clip, data=data, skip_bad_images=True, random_crop=crop, dataloader_drop_last=False)
    assert run.train().global_step == 6
