"""`vlcomp train comma --protocol ...` as a stranger would run it."""

import json

import pytest

from _vlcomp_cli import main
from vlcomp.data.classification_facts import ELEVEN
from vlcomp.testing import make_class_folder

QUICK = ["--max-steps", "2", "--warmup_epochs", "0", "--prompt_depth", "2", "--shots", "2", "--use_cpu", "true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_class_folder(tmp_path_factory.mktemp("sets") / "zoo", ("cup", "star", "dog", "house"), n=8)


def command(clip, folder, output, *more, protocol="base-to-novel"):
    words = ["train", "comma", "--protocol", protocol, "--data", folder, "--model", clip, "--output", output, *more]
    return main([str(word) for word in words])


def test_a_protocol_prints_its_table_and_continues(clip_checkpoint, folder, tmp_path, capsys):
    assert command(clip_checkpoint, folder, tmp_path, *QUICK, "--seeds", "1", "2") == 0
    printed = capsys.readouterr().out
    assert "[2/2] zoo, seed 2: base " in printed and "| zoo        |     2 |" in printed
    table = (tmp_path / "README.md").read_text()
    assert table.startswith("# base-to-novel: comma, 2 shots\n") and "harmonic mean" in table
    record = json.loads((tmp_path / "zoo" / "seed1.json").read_text())
    assert record["arguments"] == {"max_steps": 2, "warmup_epochs": 0.0, "prompt_depth": 2, "use_cpu": True}
    assert command(clip_checkpoint, folder, tmp_path, *QUICK, "--seeds", "1", "2") == 0
    assert capsys.readouterr().out.count("done before") == 2
    assert command(clip_checkpoint, folder, tmp_path, *QUICK, "--n_ctx", "3") == 2
    assert "seed1.json was made with arguments=" in capsys.readouterr().err


def test_a_transfer_protocol_and_a_config_file(clip_checkpoint, folder, tmp_path, capsys):
    other = make_class_folder(tmp_path / "farm", ("cat", "tree"), n=8, seed=3)
    config = tmp_path / "run.yaml"
    config.write_text(
        f"protocol: cross-dataset\ndata: {folder}\ntargets: [{other}]\nmodel: {clip_checkpoint}\nshots: 2\n"
        f"seeds: ['3']\nmax_steps: 2\nwarmup_epochs: 0\nmeasure: validation\nprompt_variant: coop\n"
    )
    assert main(["train", "comma", "--config", str(config), "--output", str(tmp_path / "out")]) == 0
    assert "| zoo        |     1 |" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "zoo" / "seed3.json").read_text())
    assert record["split"] == "validation" and set(record["metrics"]) == {"source", "farm", "mean"}
    assert record["arguments"]["prompt_variant"] == "coop" and record["arguments"]["learning_rate"] == 0.0026


BAD = {
    "a typo": (["--protocol", "base-to-new"], "--protocol 'base-to-new' is not known; did you mean base-to-novel?"),
    "a seed": (["--seeds", "one"], "--seeds 'one' is not a whole number"),
    "one seed": (["--seed", "3"], "--seed does not go with --protocol, which has several: use --seeds"),
    "targets": (["--targets", "dtd"], "--targets goes with --protocol cross-dataset or domain-generalization"),
    "shots": (["--shots", "50"], "class 'cup' of the training split of 'zoo' has 4 images, fewer than the 50 shots"),
    "no shots": (["--shots", "0"], "shots=0 must be at least 1"),
    "split": (["--measure", "dev"], "split='dev' is not one of test, validation"),
    "variant": (["--prompt_variant", "cocoop"], "prompt_variant='cocoop' is not one of"),
    "option": (["--shot", "4"], "argument '--shot' is not known; did you mean --shots"),
    "set": (["--data", "oxford_pest"], "'oxford_pest' is neither a classification set nor a folder; did you mean"),
    "missing": (
        ["--data", "oxford_pets", "--data-root", "."],
        "set 'oxford_pets': found no split_zhou_OxfordPets.json",
    ),
    "depth": (["--prompt_depth", "9"], "prompt_depth=9 is beyond the 2 blocks of the text tower"),
}


@pytest.mark.parametrize("what", BAD)
def test_mistakes_are_told_in_one_line(what, clip_checkpoint, folder, tmp_path, capsys):
    more, message = BAD[what]
    assert command(clip_checkpoint, folder, tmp_path, *QUICK, *more) == 2
    error = capsys.readouterr().err.strip()
    assert message in error.splitlines()[-1]


def test_options_of_a_protocol_need_one(clip_checkpoint, folder, tmp_path, capsys):
    words = ["train", "comma", "--data", folder, "--model", clip_checkpoint, "--output", tmp_path, "--seeds", "1"]
    assert main([str(word) for word in words]) == 2
    assert "--seeds belongs to a few-shot protocol; give --protocol too" in capsys.readouterr().err
    words = ["train", "comma", "--protocol", "cross-dataset", "--data", folder, "--output", tmp_path]
    assert main([str(word) for word in words]) == 2
    assert "--model is missing: the CLIP" in capsys.readouterr().err


def test_several_sets_and_all_eleven():
    from vlcomp.cli._protocol import _sets

    assert _sets("eleven") == list(ELEVEN) and _sets("dtd, eurosat") == ["dtd", "eurosat"]


def test_help_shows_the_protocols(capsys):
    with pytest.raises(SystemExit):
        main(["train", "comma", "--help"])
    text = capsys.readouterr().out
    assert "--protocol NAME" in text and "--protocol base-to-novel --data oxford_pets" in text
    assert "{" not in text.split("few-shot protocols:")[1].replace("{}", "")
