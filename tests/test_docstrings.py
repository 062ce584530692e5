"""The examples in docstrings run and give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules():
    """Modules whose text has an example."""
    for path in sorted((SOURCE / "vlcomp").rglob("*.py")):
        # Metric modules have a test of their own: `evaluate` loads them by path.
        if ">>> " in path.read_text(encoding="utf-8") and "metrics" not in path.parts:
            yield ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", list(modules()))
def test_examples_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    found = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert found.attempted and not found.failed, capsys.readouterr().out
