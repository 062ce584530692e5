"""What is published, what stays at home, and what is said where it cannot be done."""

import json
import os
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

import _vlcomp_cli
import vlcomp
from vlcomp import ContrastiveTrainer, ContrastiveTrainingArguments
from vlcomp.errors import ArgumentError, CheckpointError, DataError
from vlcomp.hub.leaks import is_path, without_leaks
from vlcomp.hub.push import HubError, push_folder, push_to_hub
from vlcomp.models.imc_cmr_clip import ImcCmrCLIPModel
from vlcomp.testing import (
    make_captioned_folder,
    save_tiny_checkpoint,
    tiny_captions,
    tiny_clip,
    tiny_images,
    tiny_processor,
)

SECRET = "hf_" + "Q7w8" * 8


@pytest.fixture
def folder(tmp_path):
    return save_tiny_checkpoint(tmp_path / "model")


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def report():
    return vlcomp.evaluate(tiny_clip(), tiny_processor(), tasks="scenes/swap_object", size=20, progress=False)


# -- what is published


def test_a_trained_folder(hub, tmp_path, capsys, monkeypatch):
    """All that `vlcomp train` writes, and what a stranger's folder may hold beside it."""
    data = make_captioned_folder(tmp_path / "photos", 12)
    run = tmp_path / "run"
    command = ["train", "clip", "--data", str(data), "--from-scratch", "small", "--output", str(run)]
    sizes = ["--image-size", "32", "--patch-size", "16", "--width", "32", "--layers", "1", "--batch-size", "4"]
    more = ["--max-steps", "2", "--test-fraction", "0.3", "--report_to", "none", "--save_steps", "1"]
    assert _vlcomp_cli.main([*command, *sizes, *more]) == 0
    train = (run / "train.yaml").read_text()
    assert str(tmp_path) in train  # or there were nothing to take out
    (run / "train.yaml").write_text(train + f"hub_token: {SECRET}\n")
    (run / "optimizer.pt").write_bytes(b"x")
    capsys.readouterr()
    assert _vlcomp_cli.main(["push", str(run), "ann/run", "--dry-run", str(tmp_path / "dry")]) == 0
    out = capsys.readouterr().out
    assert "left out: checkpoint-1/, checkpoint-2/, evaluation/gallery.json, evaluation/items.parquet" in out
    assert "training_args.bin" in out and "optimizer.pt" in out and "no licence is stated" in out
    assert _vlcomp_cli.main(["push", str(run), "ann/run"]) == 0
    assert f"{hub.url}/ann/run/commit/" in capsys.readouterr().out
    written, received = files(tmp_path / "dry"), hub.files("ann/run")
    assert received.pop(".gitattributes") and written == received
    assert sorted(written) == [
        "README.md",
        "config.json",
        "evaluation/results.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "train.yaml",
    ]
    for name, content in written.items():
        for word in (str(tmp_path), SECRET, str(tmp_path.home()), "hub_token"):
            assert word.encode() not in content, (name, word)
    assert "data: photos\n" in written["train.yaml"].decode()
    card = ModelCard.load("ann/run")
    results = json.loads(written["evaluation/results.json"])
    scores = results["tasks"]["retrieval"]["scores"]
    assert results["model"]["name"] == "ann/run"
    found = {each.metric_name: each for each in card.data.eval_results}
    assert set(found) == {f"retrieval/{name}" for name in scores}
    for name, score in scores.items():
        each = found[f"retrieval/{name}"]
        assert each.metric_value == pytest.approx(score["value"], abs=1e-4) and each.metric_args["n"] == score["n"]
    assert "learning_rate: 0.001" in card.content and "Trained on `photos`" in card.content
    assert "Measured on few items: retrieval" in card.content
    assert "Trained from random weights" in card.content
    # The weights at home are not touched, and a second push writes the same.
    assert _vlcomp_cli.main(["push", str(run), "ann/run"]) == 0
    again = hub.files("ann/run")
    assert again.pop(".gitattributes") and again == received


def test_the_card_says_what_got_worse(tmp_path, report):
    model = tiny_clip(seed=3)
    own = vlcomp.evaluate(model, tiny_processor(), tasks="scenes/swap_object", size=20, progress=False)
    for item in report.items:
        item["correct"] = True
    for item in own.items:
        item["correct"] = False
    where = push_to_hub(
        model, tiny_processor(), "ann/m", report=own, base_report=report, license="mit", dry_run=tmp_path / "dry"
    )
    card = ModelCard.load(f"{where}/README.md")
    assert card.data.license == "mit"
    assert "Worse than where training started: scenes/swap_object." in card.content
    assert "-1.000" in card.content and "drawn pictures only" in card.content


def test_the_trainer_publishes_the_same(hub, tmp_path, report):
    data = Dataset.from_dict({"image": tiny_images(8), "caption": tiny_captions(8)})
    arguments = ContrastiveTrainingArguments(
        str(tmp_path / "run"),
        hub_model_id="ann/trained",
        hub_token=None,
        per_device_train_batch_size=4,
        max_steps=2,
        learning_rate=1e-3,
        disable_tqdm=True,
        report_to=[],
    )
    model = ImcCmrCLIPModel.from_pretrained(save_tiny_checkpoint(tmp_path / "start"))
    trainer = ContrastiveTrainer(model, arguments, data, processing_class=tiny_processor())
    trainer.train()
    # An evaluation of other weights that lies there is not taken for one of these.
    report.save(tmp_path / "run" / "evaluation")
    address = trainer.push_to_hub(license="apache-2.0", private=True)
    assert address.startswith(f"{hub.url}/ann/trained/commit/")
    received = hub.files("ann/trained")
    assert hub.repos["model", "ann/trained"].private
    assert {"modeling_imc_cmr_clip.py", "train.yaml", "README.md"} <= set(received)
    assert not {"training_args.bin", "evaluation/results.json"} & set(received)
    assert not [name for name in received if "checkpoint-" in name]
    assert str(tmp_path).encode() not in b"".join(received.values())
    settings = received["train.yaml"].decode()
    assert "learning_rate: 0.001" in settings and "hub_" not in settings
    assert (tmp_path / "run" / "README.md").read_text() == received["README.md"].decode()
    weights = trainer.model.state_dict()
    (tmp_path / "got.safetensors").write_bytes(received["model.safetensors"])
    for name, value in load_file(tmp_path / "got.safetensors").items():
        assert torch.equal(value, weights[name]), name
    with pytest.raises(ArgumentError, match="finetuned_from='x' has no place in the card"):
        trainer.create_model_card(finetuned_from="x")


def test_pushing_while_training(hub, tmp_path):
    data = Dataset.from_dict({"image": tiny_images(8), "caption": tiny_captions(8)})
    arguments = ContrastiveTrainingArguments(
        str(tmp_path / "run"),
        push_to_hub=True,
        hub_model_id="ann/often",
        hub_strategy="every_save",
        save_steps=1,
        per_device_train_batch_size=4,
        max_steps=2,
        disable_tqdm=True,
        report_to=[],
    )
    trainer = ContrastiveTrainer(tiny_clip(), arguments, data, processing_class=tiny_processor())
    trainer.train()
    titles = [commit.title for commit in hub.repos["model", "ann/often"].branches["main"]]
    assert titles[1:] == ["Training in progress, step 1", "Training in progress, step 2"]
    with torch.no_grad():
        trainer.model.logit_scale.add_(0.1)  # a push of what is there already makes no commit
    trainer.save_model()
    assert [commit.title for commit in hub.repos["model", "ann/often"].branches["main"][3:]] == ["Model save"]
    assert "training_args.bin" not in hub.files("ann/often")


def test_model_push_to_hub_stays_that_of_transformers(hub, clip_checkpoint):
    ImcCmrCLIPModel.from_pretrained(clip_checkpoint).push_to_hub("ann/plain")
    received = hub.files("ann/plain")
    assert (
        not [name for name in received if name.endswith(".py")] and "auto_map" not in received["config.json"].decode()
    )


def test_an_adapter_alone(tmp_path):
    from peft import LoraConfig

    from vlcomp.training.adapters import add_adapter

    folder = tmp_path / "adapter"
    model = add_adapter(tiny_clip(), LoraConfig(r=2))
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    assert "More Information Needed" in (folder / "README.md").read_text()  # that of peft
    with pytest.raises(CheckpointError, match="adapter alone, and its base None is not on the Hub"):
        push_folder(folder, "ann/adapter", dry_run=tmp_path / "dry")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "openai/clip-vit-base-patch32"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    done = push_folder(folder, "ann/adapter", dry_run=tmp_path / "dry")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(done.files)
    card = ModelCard.load(tmp_path / "dry" / "README.md")
    assert card.data.base_model == "openai/clip-vit-base-patch32" and card.data.library_name == "peft"
    with pytest.raises(ArgumentError, match="model is a PeftModel"):
        push_to_hub(model, tiny_processor(), "ann/adapter", dry_run=tmp_path / "another")


def test_a_card_that_a_person_wrote_is_kept(folder, tmp_path):
    (folder / "README.md").write_text("# Mine\n")
    push_folder(folder, "ann/m", dry_run=tmp_path / "dry")
    assert (tmp_path / "dry" / "README.md").read_text() == "# Mine\n"
    # One of ours is renewed.
    push_folder(save_tiny_checkpoint(tmp_path / "other"), "ann/m", dry_run=tmp_path / "first")
    (tmp_path / "other" / "README.md").write_bytes((tmp_path / "first" / "README.md").read_bytes())
    push_folder(tmp_path / "other", "ann/renamed", dry_run=tmp_path / "second")
    assert "# ann/renamed" in (tmp_path / "second" / "README.md").read_text()


# -- negatives


@pytest.mark.parametrize("copied", [True, False])
def test_negatives_are_pushed_as_a_data_set(hub, tmp_path, capsys, environment, copied):
    data = make_captioned_folder(tmp_path / "photos" / "deep", 12)
    out = tmp_path / "negatives"
    command = ["negatives", "--data", str(data), "--output", str(out), "--types", "all"]
    assert _vlcomp_cli.main([*command, *(["--copy-images"] if copied else [])]) == 0
    push = ["push", str(out), "ann/negatives", "--dataset", "--license", "cc-by-4.0"]
    assert _vlcomp_cli.main([*push, "--dry-run", str(tmp_path / "dry")]) == 0
    assert _vlcomp_cli.main(push) == 0
    received = hub.files("ann/negatives", "dataset")
    assert received.pop(".gitattributes") and received == files(tmp_path / "dry")
    assert str(tmp_path).encode() not in b"".join(received.values())
    rows = [json.loads(line) for line in received["metadata.jsonl"].splitlines()]
    assert len(rows) == 12 and any(row["negative_captions"] for row in rows)
    assert json.loads(received["negatives.json"])["data"] == "deep"
    card = received["README.md"].decode()
    assert "license: cc-by-4.0" in card and "Made by rules and read by nobody" in card
    assert ("12 pictures are part of" in card) == copied and ("file_name" in rows[0]) == copied
    code = "import sys; from datasets import load_dataset; rows = load_dataset(sys.argv[1], split='train');"
    code += "print(len(rows), sorted(rows.column_names))"
    load = [sys.executable, "-c", code, "ann/negatives"]
    done = subprocess.run(load, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("12 ['caption'") and "'negative_captions'" in done.stdout
    assert ("'image'" in done.stdout) == copied
    if not copied:
        assert rows[0]["image_file"] == "0000.png"


def test_negatives_need_a_licence_and_a_finished_folder(folder, tmp_path):
    with pytest.raises(ArgumentError, match="license is needed for a data set.*cc-by-4.0"):
        push_folder(folder, "ann/n", dataset=True, dry_run=tmp_path / "dry")
    with pytest.raises(DataError, match="has no negatives.json; --dataset publishes a finished folder"):
        push_folder(folder, "ann/n", dataset=True, license="mit", dry_run=tmp_path / "dry")
    assert not (tmp_path / "dry").exists()


# -- secrets and paths


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("README.md", f"# Mine\ntoken {SECRET}\n", "README.md holds what looks like a secret"),
        ("README.md", "# Mine\ntrained on /home/ann/photos\n", "absolute path '/home/ann/photos'"),
        ("README.md", "# Mine\n`C:\\Users\\ann`\n", r"absolute path 'C:"),
        ("chat_template.jinja", SECRET, "chat_template.jinja holds what looks like a secret"),
        ("generation_config.json", '{"a": ["/data/ann/x"]}', "generation_config.json holds the absolute path"),
        ("tokenizer_config.json", '{"x": "-----BEGIN RSA PRIVATE KEY-----"}', "secret"),
    ],
)
def test_secrets_and_paths_are_refused(hub, folder, name, content, named):
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=named) as caught:
        push_folder(folder, "ann/m")
    assert SECRET not in str(caught.value) and not hub.repos


def test_the_token_in_use_and_notes_in_the_weights(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "a-long-key-of-a-service")
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt", "by": "a-long-key-of-a-service"})
    with pytest.raises(DataError, match="model.safetensors holds what looks like a secret"):
        push_folder(folder, "ann/m", dry_run=tmp_path / "one")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt", "from": str(tmp_path / "x")})
    with pytest.raises(DataError, match="model.safetensors holds the absolute path"):
        push_folder(folder, "ann/m", dry_run=tmp_path / "two")


def test_what_is_a_path():
    paths = ["/a/b", "/data", "~/x", "C:\\a", "file:///x/y", "\\\\server\\x"]
    others = ["a/b", "./a", "openai/clip", "https://a/b", "</s>", "/", "^[^:]*", "", "a photo of a {}."]
    assert all(map(is_path, paths)) and not any(map(is_path, others))
    settings = {"a": paths, "b": {"wandb_api_key": "x", "eos_token": "</s>"}, "hub_token": "x", "n": 1, "t": None}
    assert without_leaks(settings) == {
        "a": ["b", "data", "x", "a", "y", "x"],
        "b": {"eos_token": "</s>"},
        "n": 1,
        "t": None,
    }


# -- what cannot be published


def test_folders_that_cannot_be_published(folder, tmp_path):
    def refused(match, error=CheckpointError, source=folder, **options):
        with pytest.raises(error, match=match):
            push_folder(source, "ann/m", dry_run=tmp_path / "dry", **options)
        assert not (tmp_path / "dry").exists()

    refused("there is no such folder", source=tmp_path / "nothing")
    refused("is a file; pass the folder", source=folder / "config.json")
    (tmp_path / "outer").mkdir()
    folder.rename(tmp_path / "outer" / "checkpoint-7")
    refused("no config.json in this folder.*did you mean .*checkpoint-7", source=tmp_path / "outer")
    (tmp_path / "outer" / "checkpoint-7").rename(folder)
    (folder / "config.json").rename(folder / "c")
    refused("no config.json in this folder")
    (folder / "c").rename(folder / "config.json")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    refused(r"no weights \(model.safetensors\) in this folder; save the model with model.save_pretrained")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    refused("no weights.*pytorch_model.bin may run code when it is loaded")
    (folder / "model.safetensors").write_bytes(b"12345678901234567890")
    refused("model.safetensors cannot be read")
    save_file({**weights, "logit_scale": torch.tensor(float("nan"))}, folder / "model.safetensors")
    refused("logit_scale is NaN or infinite")
    save_file(weights, folder / "model.safetensors")
    (folder / "tokenizer.json").rename(tmp_path / "t")
    refused("no tokenizer in this folder")
    (tmp_path / "t").rename(folder / "tokenizer.json")
    (folder / "processor_config.json").rename(tmp_path / "p")
    refused("no image processor in this folder")
    (tmp_path / "p").rename(folder / "processor_config.json")
    index = {"weight_map": {"logit_scale": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused("names model-00002-of-00002.safetensors, which is not in this folder")
    (folder / "model.safetensors.index.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "base_name_or_path": str(tmp_path)}))
    refused("holds an adapter alone, and its base")
    (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ArgumentError, match="is not empty; give a new folder"):
        push_folder(folder, "ann/m", dry_run=tmp_path / "full")


def test_reports_of_other_models_are_refused(folder, tmp_path, report):
    other = {**report.results, "model": {**report.results["model"], "model_type": "siglip"}}
    wider = json.loads(json.dumps(report.results))
    wider["model"]["config"]["projection_dim"] = 64
    for results, named in ((other, "a model of type 'siglip'"), (wider, "projection_dim 64, here 32")):
        with pytest.raises(ArgumentError, match=named):
            push_folder(folder, "ann/m", report=vlcomp.Report(results), dry_run=tmp_path / named)
    with pytest.raises(DataError, match="report: .*does not exist"):
        push_folder(folder, "ann/m", report=tmp_path / "none", dry_run=tmp_path / "dry")
    with pytest.raises(ArgumentError, match="base_report is compared with report"):
        push_folder(folder, "ann/m", base_report=report, dry_run=tmp_path / "dry")
    report.save(folder / "evaluation")
    (folder / "model.safetensors").touch()
    os.utime(folder / "evaluation" / "results.json", (0, 0))
    with pytest.raises(ArgumentError, match="results.json is older than the weights"):
        push_folder(folder, "ann/m", dry_run=tmp_path / "dry")
    push_folder(folder, "ann/m", report=folder / "evaluation", dry_run=tmp_path / "dry")


@pytest.mark.parametrize("name", ["m", "a/b/c", "ann/", "ann/a b", "-x/y", "ann/x..y", ""])
def test_names_that_are_none(folder, name, tmp_path):
    with pytest.raises(ArgumentError, match="repo_id="):
        push_folder(folder, name, dry_run=tmp_path / "dry")


# -- the Hub says no


def one_line(capsys, *arguments):
    assert _vlcomp_cli.main(["push", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_no_token(hub, folder, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "no token of the Hugging Face Hub; log in with `hf auth login`, or set HF_TOKEN" in one_line(
        capsys, folder, "ann/m"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept the token" in one_line(capsys, folder, "ann/m")
    assert not hub.repos


def test_no_network(hub, folder, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the Hub at http://127.0.0.1:9 cannot be reached" in one_line(capsys, folder, "ann/m")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, so nothing can be pushed" in one_line(capsys, folder, "ann/m")
    assert _vlcomp_cli.main(["push", str(folder), "ann/m", "--dry-run", str(folder.parent / "dry")]) == 0


def test_the_hub_is_down(hub, folder, capsys, monkeypatch):
    hub.down = True
    assert "status 503" in one_line(capsys, folder, "ann/m")


def test_names_of_others(hub, folder, capsys):
    assert "bob/m is not yours to write: the name 'bob' belongs to another" in one_line(capsys, folder, "bob/m")
    hub.add("bob/m", {"config.json": b'{"model_type": "clip"}'})
    assert "bob/m is not yours to write" in one_line(capsys, folder, "bob/m")


def test_names_that_are_taken(hub, folder, capsys):
    hub.add("ann/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"})
    assert "ann/bert is taken: it holds a 'bert' model" in one_line(capsys, folder, "ann/bert")
    hub.add("ann/notes", {"thesis.tex": b"x"})
    assert "ann/notes is taken: it holds other files (thesis.tex)" in one_line(capsys, folder, "ann/notes")
    hub.add("ann/open", {".gitattributes": b"", "README.md": b"soon"})
    assert "ann/open exists already and is public" in one_line(capsys, folder, "ann/open", "--private")
    assert _vlcomp_cli.main(["push", str(folder), "ann/open"]) == 0


def test_options(hub, folder, capsys, monkeypatch):
    assert "argument '--privat' is not known; did you mean --private?" in _error(capsys, folder, "ann/m", "--privat")
    assert _vlcomp_cli.main(["push", str(folder), "ann/m", "--private", "--revision", "a/b", "--message", "hi"]) == 0
    repo = hub.repos["model", "ann/m"]
    assert repo.private and repo.branches["a/b"][-1].title == "hi" and len(repo.branches["main"]) == 1
    with pytest.raises(ArgumentError, match="CLIPTokenizer is not a processor of images and texts"):
        push_to_hub(tiny_clip(), tiny_processor().tokenizer, "ann/m")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="no token"):
        push_to_hub(tiny_clip(), tiny_processor(), "ann/m")
    assert isinstance(CLIPModel.from_pretrained(folder), CLIPModel)


def _error(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        _vlcomp_cli.main(["push", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err
