"""The example script runs as it stands."""

import runpy
from pathlib import Path

from transformers import AutoModel


def test_train_clip(tmp_path, capsys):
    script = runpy.run_path(str(Path(__file__).resolve().parents[2] / "examples" / "train_clip.py"))
    scores = script["main"](str(tmp_path), rows=128, epochs=1)
    assert 0 <= scores["image_to_text/recall@1"] <= scores["image_to_text/recall@10"] <= 1
    assert "retrieval/image_to_text/recall@1" in capsys.readouterr().out
    AutoModel.from_pretrained(tmp_path)
