"""`vlcomp train comma`, called as from the shell."""

import json

import pytest
import yaml
from transformers import AutoModel

from _vlcomp_cli import main
from vlcomp import CommaModel
from vlcomp.testing import make_class_folder, save_tiny_checkpoint

QUICK = ["--epochs", "2", "--disable_tqdm", "true", "--use_cpu", "--logging-steps=1"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    for split in ("train", "test"):
        make_class_folder(folder / split, ("red_cup", "star", "dog"), n=6)
    return str(folder)


def test_few_shots_of_a_folder(pets, clip, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = ["train", "comma", "--data", pets, "--shots", "4", "--model", clip, "--output", str(output), *QUICK]
    assert main([*arguments, "--prompt_variant", "maple", "--n_ctx", "3", "--save_steps", "4"]) == 0
    printed = capsys.readouterr().out
    assert "12 images of 3 classes to train on" in printed and "chance" in printed
    assert "knowledge_loss" in printed and "ce_loss" in printed
    results = json.loads((output / "evaluation" / "results.json").read_text())
    (task,) = results["tasks"].values()
    assert task["scores"]["accuracy"]["n"] == 18
    model = AutoModel.from_pretrained(output)
    assert isinstance(model, CommaModel) and (model.config.prompt_variant, model.config.n_ctx) == ("maple", 3)
    recorded = yaml.safe_load((output / "train.yaml").read_text())
    assert recorded["shots"] == 4 and recorded["learning_rate"] == 0.0035 and recorded["prompt_variant"] == "maple"
    # What was recorded is a config file; and the run goes on from its last checkpoint.
    (output / "train.yaml").rename(tmp_path / "train.yaml")
    again = ["train", "comma", "--config", str(tmp_path / "train.yaml"), "--output", str(output), *QUICK]
    assert main([*again, "--resume_from_checkpoint", "last"]) == 0
    other = AutoModel.from_pretrained(output)
    assert all(value.equal(other.state_dict()[name]) for name, value in model.state_dict().items())


def test_broken_pictures_show_before_training_or_are_left_out(clip, tmp_path, capsys):
    for split in ("train", "test"):
        make_class_folder(tmp_path / "pets" / split, ("red_cup", "star"), n=6)
    for split in ("test", "train"):
        broken = sorted((tmp_path / "pets" / split / "star").iterdir())[2]
        broken.write_bytes(broken.read_bytes()[:60])
    arguments = ["train", "comma", "--data", str(tmp_path / "pets"), "--model", clip, *QUICK]
    assert main([*arguments, "--output", str(tmp_path / "a")]) == 2
    printed = capsys.readouterr()
    assert "cannot read" in printed.err and "--skip-bad-images" in printed.err and "to train on" not in printed.out
    assert main([*arguments, "--output", str(tmp_path / "b"), "--skip_bad_images", "true"]) == 0
    (task,) = json.loads((tmp_path / "b" / "evaluation" / "results.json").read_text())["tasks"].values()
    assert task["scores"]["accuracy"]["n"] == 11


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["--shots", "9"], "class 'dog' of the training split of"),
        (["--promt_variant", "maple"], "did you mean --prompt_variant"),
        (["--prompt_variant", "mapel"], "prompt_variant='mapel' is not one of zero-shot, coop"),
        (["--prompt_depth", "5"], "prompt_depth=5 is beyond the 2 blocks of the text tower"),
        (["--template", "a photo"], "template='a photo' needs one placeholder"),
        (["--use_hard_negatives", "true"], "use_hard_negatives=True has no effect on prompts"),
        (["--freeze", "vision"], "freeze='vision' has no effect on prompts; leave it out, or use prompt_variant"),
        (["--data", "nowhere"], "'nowhere' is neither a classification set nor a folder"),
        (["--model", "nowhere/at/all"], "there is no such folder"),
        (["--epochs", "1"], "warmup_epochs=1 are 3 steps, and the run has 3"),
    ],
)
def test_mistakes_are_one_line(line, named, pets, clip, tmp_path, capsys):
    given = {"--data": pets, "--model": clip, "--output": str(tmp_path / "run"), "--epochs": "2"}
    given.update({line[0]: line[1]} if line[0] in given else {})
    rest = [] if line[0] in given else line
    words = [word for pair in given.items() for word in pair]
    assert main(["train", "comma", *words, *rest, "--disable_tqdm", "true", "--use_cpu"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and named in error


def test_what_is_missing_is_named(clip, pets, capsys):
    assert main(["train", "comma", "--data", pets, "--output", "x"]) == 2
    assert "--model is missing" in capsys.readouterr().err
    assert main(["train", "comma", "--model", clip]) == 2
    assert "--data is missing" in capsys.readouterr().err
