"""The README's code runs as pasted, and its commands name verbs and options that exist."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import _vlcomp_cli
from vlcomp.methods import METHODS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_python_block_runs_as_pasted(tmp_path):
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "scenes/swap_attribute/accuracy" in done.stdout
    assert (tmp_path / "runs" / "clip" / "report.html").is_file()


def commands():
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("vlcomp ")]


@pytest.mark.parametrize("command", commands())
def test_commands_name_what_exists(command, capsys):
    words = shlex.split(command)[1:]
    with pytest.raises(SystemExit):
        _vlcomp_cli.main([*words[: 2 if words[0] == "train" else 1], "--help"])
    known = set(re.findall(r"--[a-z_-]+", capsys.readouterr().out))
    if words[0] == "train":  # any field of the method's training arguments is an option too
        known |= {f"--{field.name}" for field in fields(METHODS[words[1]].load("arguments")) if field.init}
    for option in re.findall(r"(?<!\S)--[a-z_-]+", command):
        assert option in known, f"{option} is not an option of vlcomp {words[0]}"


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README):
        if target not in ("without", "it", "a", "sure"):
            assert re.search(rf"^{target}:", makefile, re.M), target


def test_files_named_in_the_documentation_exist():
    for document in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text(encoding="utf-8")):
            if "://" not in link:
                assert (ROOT / link).exists(), f"{document} links to {link}"
