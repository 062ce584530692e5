"""Cards are made of result files, and those of the repository are up to date."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import _vlcomp_cli
from vlcomp.cli.cards import cards
from vlcomp.hub.papers import about, bibtex, paper_of
from vlcomp.methods import METHODS
from vlcomp.testing import save_tiny_checkpoint

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"


@pytest.fixture(scope="module")
def made():
    return cards(CARDS / "results", CARDS)


def test_the_cards_of_the_repository_are_up_to_date(made):
    assert set(made) == {f"{name}.md" for name in METHODS}
    stale = [
        name
        for name, text in made.items()
        if not (CARDS / name).is_file() or (CARDS / name).read_text(encoding="utf-8") != text
    ]
    assert not stale, f"{', '.join(stale)}: run `vlcomp cards` in the repository"


def test_cards_can_be_read_and_quote_the_result_files(made):
    for name, text in made.items():
        card = ModelCard(text)
        method = METHODS[name.removesuffix(".md")]
        assert card.data.model_name in (None, method.title) and card.data.library_name == "transformers"
        files = sorted((CARDS / "results" / method.name).glob("*/seed*.json"))
        runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        runs = [run for run in runs if run["configuration"] in method.load("study").configurations]
        if not runs:
            continue
        assert card.data.eval_results
        for each in card.data.eval_results:
            chosen = [run for run in runs if run["configuration"] == each.metric_args["configuration"]]
            task = method.load("study").task
            metric = f"{each.dataset_name}/{each.metric_type}".removeprefix(f"{task}/" if task else "")
            if task.startswith("scenes/classification"):
                assert each.task_type == "zero-shot-image-classification"
            values = [run["metrics"][metric] for run in chosen if metric in run["metrics"]]
            assert each.metric_args["seeds"] == len(values)
            assert each.metric_value == pytest.approx(sum(values) / len(values), abs=1e-4)
            assert f"{100 * each.metric_value:.0f}"[0] in text


def test_snippets_of_the_cards_run(made, server, environment, tmp_path):
    start = save_tiny_checkpoint(tmp_path / "clip")
    server.repos.clear()
    server.down = False
    server.add("openai/clip-vit-base-patch32", {path.name: path.read_bytes() for path in start.iterdir()})
    snippets = {name: code for name, text in made.items() for code in re.findall(r"```python\n(.*?)```", text, re.S)}
    assert {"clip.md", "imc-cmr.md"} <= set(snippets)
    # In one process, since each import takes seconds; each has names of its own.
    program = "".join(f"exec({code!r}, {{}})\nprint('ran', {name!r})\n" for name, code in snippets.items())
    del environment["HF_TOKEN"]  # the starting model is public
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(r"^ran (.*)$", done.stdout, re.M) == list(snippets)
    assert done.stdout.count("a red square") == len(snippets)


def _run(configuration, seed, settings, **metrics):
    return {
        "schema": "vlcomp-run/1",
        "study": "clip",
        "study_version": "1",
        "configuration": configuration,
        "seed": seed,
        "settings": settings,
        "metrics": metrics,
        "best_step": 1,
        "curve": [],
    }


def test_what_got_worse_and_what_is_missing(tmp_path, capsys):
    study = METHODS["clip"].load("study")
    first, second = list(study.configurations)[:2]
    columns = list(study.columns)[:2]
    for seed, (better, worse) in enumerate([(0.5, 0.6), (0.6, 0.5), (0.55, 0.55)]):
        for name, values in ((first, (0.4, 0.8)), (second, (better, worse))):
            file = tmp_path / "results" / "clip" / name / f"seed{seed}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            metrics = dict(zip(columns, values, strict=True))
            file.write_text(json.dumps(_run(name, seed, dict(study.configurations[name]), **metrics)))
    command = ["cards", "--results", str(tmp_path / "results"), "--output", str(tmp_path / "out")]
    assert _vlcomp_cli.main([*command, "--check"]) == 2
    assert "not up to date; run `vlcomp cards`" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert _vlcomp_cli.main(command) == 0 and _vlcomp_cli.main([*command, "--check"]) == 0
    text = (tmp_path / "out" / "clip.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"- {second}: "))
    assert line == f"- {second}: {study.columns[columns[1]]} -25.0 ± 12.4"
    assert "No results yet" in (tmp_path / "out" / "imc-cmr.md").read_text()
    assert str(tmp_path) not in text and "[result files](../results/clip)" in text
    file.write_text("{")
    assert _vlcomp_cli.main(command) == 2 and "not a result file" in capsys.readouterr().err
    assert _vlcomp_cli.main(["cards", "--results", str(tmp_path / "nothing")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_text_and_a_paper(name):
    model_class = METHODS[name].model.rpartition(":")[2]
    assert not about(model_class).what.startswith("A model of class"), "add it to hub/papers.py"
    paper = paper_of(model_class)
    assert "title = {" in bibtex(paper) and f"eprint = {{{paper}}}" in bibtex(paper)
