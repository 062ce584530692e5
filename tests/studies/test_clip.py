from vlcomp.data.scenes.items import CATEGORIES
from vlcomp.studies.clip import SELECTION_METRIC, STEPS, STUDY, curve_table, pretrain_on_scenes


def test_the_best_validation_checkpoint_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    result = pretrain_on_scenes(
        tmp_path / "m",
        steps=6,
        num_images=64,
        batch_size=16,
        eval_steps=2,
        eval_items=4,
        width=32,
        layers=1,
        learning_rate=1e-2,
        progress=False,
    )
    assert [entry["step"] for entry in result.curve] == [2, 4, 6]
    best = max(entry[SELECTION_METRIC] for entry in result.curve)
    kept = next(entry for entry in result.curve if entry["step"] == result.best_step)
    assert kept[SELECTION_METRIC] == best

    from vlcomp import load_embedder
    from vlcomp.evaluation.tasks import ScenesRetrieval

    task = ScenesRetrieval(split="validation", image_size=40, references=False, gallery=False)
    assert task.run(load_embedder(result.folder)).metrics[SELECTION_METRIC] == best
    table = curve_table(result.curve)
    assert table.count("\n") == 4 and all(name.replace("_", "-") in table for name in CATEGORIES)


def test_the_long_run_is_three_times_as_long():
    steps = [settings["steps"] for settings in STUDY.configurations.values()]
    assert steps == [STEPS, 3 * STEPS] and len(STUDY.seeds) >= 3
