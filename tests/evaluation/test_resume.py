"""A killed evaluation goes on where it stopped, and ends with the same files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlcomp import Embedder, evaluate
from vlcomp.errors import ArgumentError, DataError
from vlcomp.evaluation import Report, Task, TaskResult, get_task, suite
from vlcomp.evaluation.diagnostics import signature
from vlcomp.evaluation.resume import UNFINISHED, Part, Unfinished
from vlcomp.evaluation.task import Score
from vlcomp.testing import make_captioned_folder, tiny_clip, tiny_processor

from .common import HashModel

TASKS = ["scenes/swap_object", "scenes/swap_attribute", "scenes/retrieval"]


@pytest.fixture(autouse=True, scope="module")
def scenes_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class Fails(Task):
    name, source, licence, convention = "fails", "here", "MIT", "none"

    def run(self, model, *, progress=False):
        raise RuntimeError("no")


def run(model, output, tasks=TASKS, **options):
    return evaluate(model, tasks=tasks, output=output, progress=False, **({"size": 12} | options))


def files(folder: Path) -> dict[str, bytes]:
    """What was written, without the time at which it was."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    results = json.loads(found["results.json"])
    assert results.pop("created")
    return found | {"results.json": json.dumps(results).encode()}


class Breaks(HashModel):
    """Stops at the n-th call; what it is asked for afterwards is counted."""

    def __init__(self, calls: int | None):
        super().__init__()
        self.calls = calls

    def encode_images(self, images):
        if self.calls == 0:
            raise KeyboardInterrupt
        if self.calls is not None:
            self.calls -= 1
        return super().encode_images(images)


def test_finished_tasks_are_kept_and_not_done_again(tmp_path, caplog):
    run(Breaks(None), tmp_path / "whole", name="m")
    with pytest.raises(KeyboardInterrupt):
        run(Breaks(2), tmp_path / "run", name="m")
    assert "2 of 3 tasks are finished" in caplog.text
    left = tmp_path / "run" / UNFINISHED
    kept = sorted(path.name for path in left.glob("*.json") if path.name != "run.json")
    assert kept == ["scenes%2Fswap_attribute.task.json", "scenes%2Fswap_object.task.json"]
    assert len(list(left.glob("*.items.parquet"))) == 2
    assert not (tmp_path / "run" / "results.json").exists()
    again = Breaks(None)
    measured = []
    with pytest.MonkeyPatch.context() as patch:
        measure = suite._measure
        patch.setattr(suite, "_measure", lambda task, *more: measured.append(task.name) or measure(task, *more))
        run(again, tmp_path / "run", name="m")
    assert measured == ["scenes/retrieval"]
    assert len(again.images) == 12  # those of retrieval only
    assert not left.exists()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "gallery.json",
        "items.parquet",
        "results.json",
    ]
    assert files(tmp_path / "run") == files(tmp_path / "whole")


_KILLED = """
import os, signal, sys
from vlcomp import evaluate, load_embedder
embedder = load_embedder(sys.argv[1], batch_size=7)
left = [int(sys.argv[3])]
if left[0]:
    features = embedder.model.get_image_features
    def get_image_features(**inputs):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return features(**inputs)
    embedder.model.get_image_features = get_image_features
from vlcomp.evaluation import cache
cache.CHUNK = 14
evaluate(embedder, tasks=%r, output=sys.argv[2], progress=False, size=40, name="clip", diagnostics=True)
"""


def test_a_process_that_is_killed_within_a_task_ends_with_the_same_files(clip_checkpoint, tmp_path):
    code = _KILLED % (TASKS,)

    def start(output, calls):
        command = [sys.executable, "-c", code, str(clip_checkpoint), str(tmp_path / output), str(calls)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = start("whole", 0)
    assert whole.returncode == 0, whole.stderr
    assert start("run", 9).returncode == -9
    left = tmp_path / "run" / UNFINISHED
    assert len(list(left.glob("*.task.json"))) == 1
    stored = len(list(left.rglob("images/*.keys.npy")))
    assert stored >= 4  # the first task whole, the second in part
    assert start("run", 0).returncode == 0
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_embeddings_of_the_unfinished_task_are_not_computed_again(tmp_path, monkeypatch):
    from vlcomp.evaluation import cache

    monkeypatch.setattr(cache, "CHUNK", 5)
    with pytest.raises(KeyboardInterrupt):
        run(Breaks(2), tmp_path, tasks=["scenes/swap_object"])
    again = Breaks(None)
    run(again, tmp_path, tasks=["scenes/swap_object"])
    assert len(again.images) == 2  # of 12, in parts of 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 13}, "size=12; now it is 13"),
        ({"fit": "pad"}, "fit=None; now it is 'pad'"),
        ({"references": False}, "references=None; now it is False"),
        ({"diagnostics": True}, "diagnostics=False; now it is True"),
    ],
)
def test_other_settings_are_refused(tmp_path, change, message):
    def model(**options):
        return Embedder(tiny_clip(), tiny_processor(), name="clip", **options)

    tasks = ["scenes/swap_object", "scenes/retrieval"]
    with pytest.raises(RuntimeError):
        run(model(), tmp_path, tasks=[tasks[0], Fails()])
    fit = change.pop("fit", None)
    with pytest.raises(ArgumentError, match=message):
        run(model(fit=fit), tmp_path, tasks=tasks, **change)
    # Nothing was lost by the refusal, and how fast it runs may change.
    again = model(batch_size=5)
    assert run(again, tmp_path, tasks=tasks).metrics


def test_other_weights_are_refused_unless_overwritten(tmp_path):
    models = [Embedder(tiny_clip(seed=seed), tiny_processor(), name="clip") for seed in (0, 1)]

    with pytest.raises(RuntimeError):
        run(models[0], tmp_path, tasks=["scenes/swap_object", Fails()])
    with pytest.raises(ArgumentError, match="1 finished task.*weights=.*overwrite=True"):
        run(models[1], tmp_path, tasks=["scenes/swap_object"])
    report = run(models[1], tmp_path, tasks=["scenes/swap_object"], overwrite=True)
    assert report.metrics == run(models[1], tmp_path / "fresh", tasks=["scenes/swap_object"]).metrics
    # The same evaluation made again replaces the one before; one that would lose results does not.
    run(models[0], tmp_path, tasks=["scenes/swap_object"])
    more = ["scenes/swap_object", "scenes/add_object"]
    both = run(models[0], tmp_path, tasks=more)
    with pytest.raises(ArgumentError, match="holds results of 'scenes/add_object', which .*overwrite=True"):
        run(models[0], tmp_path, tasks=more[:1])
    other = Embedder(tiny_clip(), tiny_processor(), name="other")
    with pytest.raises(ArgumentError, match="holds results of the model 'clip', which"):
        run(other, tmp_path, tasks=more)
    assert Report.load(tmp_path).metrics == both.metrics
    run(other, tmp_path, tasks=more[:1], overwrite=True)
    assert list(Report.load(tmp_path).results["settings"]["tasks"]) == more[:1]


def test_an_evaluation_with_nothing_finished_is_in_nobodys_way(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Breaks(0), tmp_path, size=12)
    assert run(HashModel(), tmp_path, size=8).metrics


def test_a_task_of_other_items_is_refused(tmp_path):
    part = Part.of(TaskResult("mine", "3", {"accuracy": Score(0.5, 2)}))
    unfinished = Unfinished(tmp_path, {"model": "m"})
    unfinished.add(part, "as it was")
    assert unfinished.get("other", "x") is None
    again = Unfinished(tmp_path, {"model": "m"})
    assert again.get("mine", "as it was").entry == part.entry and part.entry["version"] == "3.1"
    with pytest.raises(ArgumentError, match="other items or options"):
        again.get("mine", "changed")
    (tmp_path / UNFINISHED / "run.json").write_text("{")
    with pytest.raises(DataError, match="delete the folder"):
        Unfinished(tmp_path, {"model": "m"})


@pytest.mark.parametrize("name", ["scenes/winoground", "scenes/swap_object", "scenes/retrieval"])
def test_signatures_tell_items_apart(name):
    first, same, other, fewer = (
        signature(get_task(name, **options))
        for options in ({"size": 8}, {"size": 8}, {"size": 9}, {"size": 8, "limit": 4})
    )
    assert first == same and len({first, other, fewer}) == 3


def test_a_damaged_picture_is_named_and_what_was_finished_stays(clip_checkpoint, tmp_path):
    folder = make_captioned_folder(tmp_path / "data", 6)
    picture = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))[2]
    whole = picture.read_bytes()
    picture.write_bytes(whole[:60])
    options = {"tasks": ["scenes/swap_object", "retrieval"], "data": str(folder)}
    with pytest.raises(DataError, match=picture.name):
        run(str(clip_checkpoint), tmp_path / "run", **options)
    assert len(list((tmp_path / "run" / UNFINISHED).glob("*.task.json"))) == 1
    skipping = run(str(clip_checkpoint), tmp_path / "skip", skip_bad_images=True, **options)
    assert skipping.score("retrieval/image_to_text/recall@1").n == 5
    picture.write_bytes(whole)
    assert run(str(clip_checkpoint), tmp_path / "run", **options).score("retrieval/image_to_text/recall@1").n == 6
