"""Which models a run holds, and charts."""

import math
import shutil
import xml.etree.ElementTree as ElementTree

import pytest

from vlcomp.analysis import line_chart, list_checkpoints, write_figure
from vlcomp.errors import ArgumentError, CheckpointError
from vlcomp.testing import tiny_iterated_clip


def test_checkpoints_of_a_run(tmp_path):
    model = tiny_iterated_clip()
    for step, generation in ((400, 1), (1200, 3), (800, 2)):
        model.config.generation = generation
        model.logit_scale.data += 1
        model.save_pretrained(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-9").mkdir()  # of a run that was killed while it saved
    found = list_checkpoints(tmp_path)
    assert [(c.label, c.step, c.generation) for c in found] == [
        ("step 400", 400, 1),
        ("step 800", 800, 2),
        ("step 1200", 1200, 3),
    ]
    # The final model is listed once: not if it is the last checkpoint, but if it is another (the best one averaged).
    shutil.copytree(tmp_path / "checkpoint-800", tmp_path, dirs_exist_ok=True)
    assert len(list_checkpoints(tmp_path)) == 3
    model.save_pretrained(tmp_path)
    model.logit_scale.data += 1
    model.save_pretrained(tmp_path)
    assert [c.label for c in list_checkpoints(tmp_path)][-1] == "final"
    (only,) = list_checkpoints(tmp_path / "checkpoint-800")
    assert (only.step, only.generation, only.where) == (None, 2, str(tmp_path / "checkpoint-800"))
    assert list_checkpoints("openai/clip-vit-base-patch32")[0].where == "openai/clip-vit-base-patch32"
    with pytest.raises(CheckpointError, match="there is no model"):
        list_checkpoints(tmp_path / "checkpoint-9")


def test_line_chart(tmp_path):
    lines = {"first & <last>": [(0, 1.0), (10, 3.0)], "second": [(0, 2.0), (5, math.nan), (10, 2.0)]}
    figure = line_chart(lines, title="T", x_label="step", y_label="log")
    root = ElementTree.fromstring(figure)  # well-formed
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"T", "step", "log", "first & <last>", "second", "1", "3", "10"} <= set(texts)
    paths = [n.get("d") for n in root.iter("{http://www.w3.org/2000/svg}path") if "L" in n.get("d")]
    ends = [[tuple(map(float, point.split())) for point in path[1:].split("L")] for path in paths]
    assert len(ends) == 2 and all(len(line) == 2 for line in ends)
    (low, high), (left, right) = ends
    assert high[1] < left[1] == right[1] < low[1]  # upwards is a smaller coordinate
    assert low[0] == left[0] < high[0] == right[0]
    path = write_figure(figure, tmp_path / "new" / "chart.svg")
    assert path.read_text(encoding="utf-8") == figure
    line_chart({"one": [(3, 3)]}, title="", x_label="", y_label="")
    # Means that differ by rounding alone, and values of any size.
    for values in ([0.1 * 3 * 100, 30], [1e-14, 3e-14], [1e13, 1e13 + 1]):
        drawn = line_chart({"one": list(enumerate(values))}, title="", x_label="", y_label="")
        assert drawn.count("<circle") == 2 and "nan" not in drawn and "inf" not in drawn
    with pytest.raises(ArgumentError, match="no finite point"):
        line_chart({"a": [(math.nan, 1)]}, title="", x_label="", y_label="")
    with pytest.raises(ArgumentError, match="ends in .svg"):
        write_figure(figure, tmp_path / "chart.png")
