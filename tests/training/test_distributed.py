"""Two processes give the loss, gradients and weights of one process with the whole batch."""

import os
import socket

import pytest
import torch
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from vlcomp.errors import ArgumentError
from vlcomp.losses import contrastive_loss
from vlcomp.testing import tiny_clip
from vlcomp.training import cached_backward, gather_embeddings, split_batch
from vlcomp.training.distributed import gather_batch

from .common import rows, trainer, weights, with_dropout
from .test_grad_cache import IDS, MASK, Towers, _batch
from .test_imc_cmr import TYPES, imc_trainer, typed_rows

# Rows of each process, and how many slots for hard negatives it has: neither is equal.
SHARES = [(slice(0, 4), 3), (slice(4, 7), 2)]


def _whole():
    mask = MASK.clone()
    mask[4:, 2] = False
    return {**_batch(), "ids": IDS, "mask": mask}


def _loss(embeds, batch):
    return contrastive_loss(
        embeds["image"],
        embeds["text"],
        embeds["scale"],
        image_ids=batch["ids"],
        negative_text_embeds=embeds["negatives"],
        negative_mask=batch["mask"],
    )


def _local(rank):
    share, slots = SHARES[rank]
    batch = {key: value[share] for key, value in _whole().items()}
    return {**batch, "negatives": batch["negatives"][:, :slots], "mask": batch["mask"][:, :slots]}


def _losses(rank, mini_batch):
    torch.manual_seed(0)
    model = DistributedDataParallel(Towers(), find_unused_parameters=True)
    batch = _local(rank)

    def loss_function(embeds):
        together = gather_embeddings({**embeds, "ids": batch["ids"], "mask": batch["mask"]})
        return _loss(together, together), None

    if mini_batch:
        parts = split_batch(batch, mini_batch)
        loss, _ = cached_backward(model, parts, loss_function, no_sync=model.no_sync)
    else:
        loss, _ = loss_function(model(batch))
        loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.module.named_parameters()}}


def _gathered(rank):
    value = torch.full((2 + rank, 1 + rank), float(rank + 1), requires_grad=True)
    gathered = gather_embeddings({"x": value, "flag": value.detach() > 0, "scalar": torch.tensor(rank)})
    (gathered["x"] * (rank + 1)).sum().backward()
    mismatch = ""
    try:
        gather_embeddings({"x" if rank else "y": value})
    except ArgumentError as error:
        mismatch = str(error)
    return {**{k: v.detach() for k, v in gathered.items()}, "grad": value.grad, "mismatch": mismatch}


def _one_sided(rank):
    """Only the second process has hard negatives."""
    texts = torch.ones(2, 4, requires_grad=True)
    embeds, batch = {"text_embeds": texts * 1}, {"image_ids": torch.arange(2)}
    if rank:
        embeds["negative_text_embeds"] = texts[:, None] * 3
        batch["negative_mask"] = torch.tensor([[True], [False]])
        batch["negative_type_ids"] = torch.tensor([[3], [0]])
    embeds, batch = gather_batch(embeds, batch)
    valid = batch["negative_mask"][..., None]
    (embeds["text_embeds"].sum() + embeds["negative_text_embeds"].masked_fill(~valid, 0.0).sum()).backward()
    return {key: value.detach() for key, value in embeds.items()}, batch, texts.grad


def _trained(folder, **changes):
    run = trainer(
        folder,
        model=tiny_clip(dtype=torch.float64),
        data=rows(24, captions=2, negatives=True),
        use_hard_negatives=True,
        max_steps=4,  # into the second epoch
        **changes,
    )
    run.train()
    return {"weights": weights(run.model), "log": run.state.log_history}


def _ranked(folder, **changes):
    """A run with hard negatives of several types and adaptive thresholds, into its second epoch."""
    run = imc_trainer(
        folder,
        model=tiny_clip(dtype=torch.float64),
        data=typed_rows(empty_from=12),  # also processes and batches without any negative
        max_steps=8,
        save_strategy="steps",
        save_steps=4,
        **changes,
    )
    run.train()
    straight = {"weights": weights(run.model), "log": run.state.log_history, "thresholds": run.rank_thresholds}
    again = imc_trainer(
        folder, model=tiny_clip(dtype=torch.float64), data=typed_rows(empty_from=12), max_steps=8, **changes
    )
    again.train(resume_from_checkpoint=f"{folder}/checkpoint-4")
    return {**straight, "resumed": weights(again.model), "resumed thresholds": again.rank_thresholds}


def _resumed(folder):
    """A run into its second epoch, and one that continues it from there."""

    def run(name):
        changes = {"per_device_train_batch_size": 4, "random_crop": 0.5, "save_strategy": "steps", "save_steps": 1}
        return trainer(f"{folder}/{name}", model=with_dropout(tiny_clip()), data=rows(24), max_steps=6, **changes)

    straight, resumed = run("straight"), run("resumed")
    straight.train()
    resumed.train(resume_from_checkpoint=f"{folder}/straight/checkpoint-4")
    return {"straight": weights(straight.model), "resumed": weights(resumed.model)}


def _evaluated(folder):
    calls = []

    def evaluator(embedder):
        calls.append(1)
        return {"score": 0.25 + embedder.encode_texts(["a"]).shape[0]}

    run = trainer(folder, options={"evaluators": [evaluator]})
    return {"metrics": run.evaluate(), "calls": len(calls)}


def _worker(rank, port, folder):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    results = {
        # The trainer first: it makes the process group.
        "plain": _trained(f"{folder}/plain", per_device_train_batch_size=4),
        "cached": _trained(f"{folder}/cached", per_device_train_batch_size=4, mini_batch_size=3),
        "accumulated": _trained(
            f"{folder}/accumulated", per_device_train_batch_size=4, mini_batch_size=3, gradient_accumulation_steps=2
        ),
        "ranked": _ranked(f"{folder}/ranked", per_device_train_batch_size=4),
        "ranked cached": _ranked(f"{folder}/ranked_cached", per_device_train_batch_size=4, mini_batch_size=3),
        "ranked accumulated": _ranked(
            f"{folder}/ranked_accumulated", per_device_train_batch_size=4, gradient_accumulation_steps=2
        ),
        "resumed": _resumed(f"{folder}/resumed"),
        "evaluated": _evaluated(f"{folder}/evaluated"),
        "loss": _losses(rank, None),
        "loss cached": _losses(rank, 2),
        "gathered": _gathered(rank),
        "one-sided": _one_sided(rank),
    }
    torch.save(results, f"{folder}/results_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_worker, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"results_{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", ["loss", "loss cached"])
def test_loss_and_gradients_equal_one_process(results, name):
    torch.manual_seed(0)
    model, batch = Towers(), _whole()
    loss = _loss(model(batch), batch)
    loss.backward()
    assert len(set(batch["ids"].tolist())) < len(batch["ids"])  # several captions per image
    for rank in range(2):
        found = results[rank][name]
        assert found.pop("loss").item() == pytest.approx(loss.item(), abs=1e-12)
        for parameter, gradient in found.items():
            expected = model.get_parameter(parameter).grad
            assert torch.allclose(gradient, expected, atol=1e-12, rtol=0), parameter


def test_gathering_unequal_shapes(results):
    for rank in range(2):
        found = results[rank]["gathered"]
        assert found["x"].tolist() == [[1, 0], [1, 0], [2, 2], [2, 2], [2, 2]]
        assert found["flag"].tolist() == [[True, False]] * 2 + [[True, True]] * 3
        assert found["scalar"] == rank
        assert torch.equal(found["grad"], torch.full((2 + rank, 1 + rank), 3.0))  # summed over processes
        assert "different tensors" in found["mismatch"]


def test_hard_negatives_on_one_process_only(results):
    for rank, result in enumerate(results):
        embeds, batch, gradient = result["one-sided"]
        assert embeds["negative_text_embeds"].shape == (4, 1, 4)
        assert batch["negative_mask"].flatten().tolist() == [False, False, True, False]
        assert batch["negative_type_ids"].flatten().tolist() == [0, 0, 3, 0]
        assert batch["image_ids"].tolist() == [0, 1, 0, 1]
        # Both take part in the backward pass: 2 from the texts, and 2 * 3 more where there is a negative.
        assert gradient.tolist() == [[8.0] * 4 if rank else [2.0] * 4, [2.0] * 4]


@pytest.mark.parametrize("name", ["plain", "cached", "accumulated"])
def test_trainer_equals_one_process(results, name, tmp_path):
    changes = {"gradient_accumulation_steps": 2} if name == "accumulated" else {}
    expected = _trained(tmp_path, **changes)
    for rank in range(2):
        found = results[rank][name]
        for key, value in expected["weights"].items():
            assert torch.allclose(found["weights"][key], value, atol=1e-9, rtol=0), key
        for entry, other in zip(expected["log"][:-1], found["log"][:-1], strict=True):
            for key in ("loss", "itc_loss", "logit_scale", "grad_norm"):
                assert entry[key] == pytest.approx(other[key], rel=1e-6), key


@pytest.mark.parametrize("name", ["ranked", "ranked cached", "ranked accumulated"])
def test_thresholds_equal_one_process(results, name, tmp_path):
    changes = {"gradient_accumulation_steps": 2} if name == "ranked accumulated" else {}
    expected = _ranked(tmp_path, **changes)
    assert expected["thresholds"].max() > 0
    logged = [f"rank_threshold/{kind}" for kind in TYPES] + [f"valid_negatives/{kind}" for kind in TYPES]
    for rank in range(2):
        found = results[rank][name]
        assert torch.allclose(found["thresholds"], expected["thresholds"], atol=1e-9, rtol=0)
        for key, value in expected["weights"].items():
            assert torch.allclose(found["weights"][key], value, atol=1e-9, rtol=0), key
        for entry, other in zip(expected["log"][:-1], found["log"][:-1], strict=True):
            for key in ("loss", "itc_loss", "imc_loss", "cmr_loss", *logged):
                assert entry[key] == pytest.approx(other[key], rel=1e-6, abs=1e-7), key
        assert torch.equal(found["resumed thresholds"], found["thresholds"])
        for key, value in found["weights"].items():
            assert torch.equal(found["resumed"][key], value), key


def test_resumed_equals_straight(results):
    for result in results:
        for name, value in result["resumed"]["straight"].items():
            assert torch.equal(result["resumed"]["resumed"][name], value), name


def test_evaluators_run_once_and_all_processes_know(results):
    assert [result["evaluated"]["calls"] for result in results] == [1, 0]
    for result in results:
        assert result["evaluated"]["metrics"]["eval_score"] == 1.25


def test_one_process_gets_its_own_back():
    value = torch.ones(2, 3, requires_grad=True)
    assert gather_embeddings(value) is value
