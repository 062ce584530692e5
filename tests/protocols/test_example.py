"""The example runs as it stands."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_train_comma(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    script = runpy.run_path(str(ROOT / "examples" / "train_comma.py"))
    small = {"width": 32, "layers": 1, "batch_size": 16, "eval_steps": 2, "eval_items": 4, "progress": False}
    names = script["main"].__globals__
    pretrain, protocol = names["pretrain_on_scenes"], names["base_to_novel"]
    names["pretrain_on_scenes"] = lambda *args, **kwargs: pretrain(*args, **kwargs, **small)
    quick = {"max_steps": 1, "warmup_epochs": 0}
    names["base_to_novel"] = lambda *args, arguments, **kwargs: protocol(
        *args, arguments={**arguments, **quick}, **kwargs
    )
    found = script["main"](str(tmp_path / "out"), pretraining_steps=2, rows=64)
    assert list(found) == ["zero-shot", "coop", "comma"] and all(0 <= value <= 1 for value in found.values())
    printed = capsys.readouterr().out
    assert "classes now: blue key, lime bell" in printed and "scenes/attribute-noun" in printed
