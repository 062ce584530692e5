"""Pushed models load in new processes: with vlcomp, and with its code only, where vlcomp is not installed."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from transformers import CLIPModel

import vlcomp
from vlcomp import testing
from vlcomp.hub.push import push_folder
from vlcomp.models.comma import CommaModel
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel
from vlcomp.models.imc_cmr_clip import ImcCmrCLIPModel
from vlcomp.testing import tiny_captions, tiny_images, tiny_processor

LABELS = tiny_captions(4)
LOAD = """
import json, sys
absent = [name for name in sys.argv[1].split(",") if name]
for name in absent:
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} can be imported, so this shows nothing")
if not absent:
    import vlcomp
from PIL import Image
from transformers import AutoModel, AutoModelForZeroShotImageClassification, AutoProcessor, pipeline
from transformers.utils.logging import disable_progress_bar
disable_progress_bar()
picture, labels = Image.open(sys.argv[2]), json.loads(sys.argv[3])
remote = {"trust_remote_code": True} if absent else {}
for name in sys.argv[4:]:
    model = AutoModel.from_pretrained(name, **remote)
    other = AutoModelForZeroShotImageClassification.from_pretrained(name, **remote)
    assert type(other).__name__ == type(model).__name__
    processor = AutoProcessor.from_pretrained(name, **remote)
    found = pipeline("zero-shot-image-classification", model=name, **remote)(picture, candidate_labels=labels)
    found = {entry["label"]: entry["score"] for entry in found}
    print(json.dumps([name, type(model).__name__, type(model).__module__, type(processor).__name__, found]))
"""


@pytest.fixture(scope="module")
def models(clip_checkpoint, lvlm):
    """One model of each method."""
    torch.manual_seed(0)
    made = {
        "clip": CLIPModel.from_pretrained(clip_checkpoint),
        "imc-cmr": ImcCmrCLIPModel.from_pretrained(clip_checkpoint),
        "iterated": testing.tiny_iterated_clip(),
        "comma": CommaModel.from_clip(clip_checkpoint).eval(),
    }
    with torch.no_grad():
        for parameter in made["comma"].prompts.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    # With all weights, and with those alone that go onto an LVLM of the Hub.
    made["lvlm"] = DiscriminativeLVLMModel.from_lvlm(testing.tiny_llava(), processor=testing.tiny_lvlm_processor())
    made["lvlm-adapters"] = DiscriminativeLVLMModel.from_lvlm(lvlm, lora_rank=4)
    made["lvlm-adapters"].config.base_name_or_path = "ann/tiny-llava"
    return made


@pytest.fixture(scope="module")
def lvlm(tmp_path_factory):
    return testing.save_tiny_lvlm(tmp_path_factory.mktemp("lvlm") / "base")


def processor_of(model):
    return testing.tiny_lvlm_processor() if isinstance(model, DiscriminativeLVLMModel) else tiny_processor()


def expected(model):
    """What the stock pipeline computes, from the model in memory."""
    processor = processor_of(model)
    texts = [f"This is a photo of {label}." for label in LABELS]
    inputs = processor(text=texts, images=tiny_images(1), return_tensors="pt", padding=True)
    with torch.no_grad():
        scores = model(**inputs).logits_per_image.softmax(-1)[0].tolist()
    return dict(zip(LABELS, scores, strict=True))


def run(python, code, arguments, environment):
    done = subprocess.run(
        [*python, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def check(output, models, module):
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    assert [line[0] for line in lines] == [f"ann/{name}" for name in models]
    for (_, name, where, processor, found), (key, model) in zip(lines, models.items(), strict=True):
        assert name == type(model).__name__ and processor == type(processor_of(model)).__name__
        assert where.startswith("transformers.models.clip" if key == "clip" else module), where
        assert found == pytest.approx(expected(model), abs=1e-5), name


def test_every_method_makes_the_round_trip(hub, models, lvlm, environment, tmp_path):
    hub.add("ann/tiny-llava", {path.name: path.read_bytes() for path in lvlm.iterdir()})
    for name, model in models.items():
        address = vlcomp.push_to_hub(model, processor_of(model), f"ann/{name}", license="apache-2.0")
        assert address.startswith(f"{hub.url}/ann/{name}/commit/")
        folder = vlcomp.push_to_hub(
            model, processor_of(model), f"ann/{name}", license="apache-2.0", dry_run=tmp_path / "dry" / name
        )
        written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.*")}
        received = hub.files(f"ann/{name}")
        assert received.pop(".gitattributes")
        assert written == received  # the exact folder, byte by byte
        large = hub.repos["model", f"ann/{name}"].branches["main"][-1].files["model.safetensors"]
        assert ("PUT", f"/lfs-storage/{large}") in hub.requests
        assert bool([path for path in received if path.endswith(".py")]) == (name != "clip")
        card = ModelCard.load(f"ann/{name}")
        assert card.data.license == "apache-2.0" and card.data.eval_results is None
    tiny_images(1)[0].save(tmp_path / "picture.png")
    arguments = [tmp_path / "picture.png", json.dumps(LABELS)]
    names = [f"ann/{name}" for name in models]
    check(run([sys.executable], LOAD, ["", *arguments, *names], environment), models, "vlcomp.models.")

    # Nothing but transformers, torch and Pillow with what these need: no vlcomp, and no site-packages.
    environment["HF_HOME"] = str(tmp_path / "another-home")
    for packages, absent, chosen in (
        (["transformers", "torch", "pillow"], "vlcomp,datasets,accelerate,peft", list(models)[:4]),
        (["transformers", "torch", "pillow", "peft"], "vlcomp,datasets", list(models)[4:]),
    ):
        place = _environment_of(tmp_path / f"packages{len(packages)}", *packages)
        code = f"import sys; sys.path.append({str(place)!r})\n{LOAD}"
        names = [f"ann/{name}" for name in chosen]
        output = run([sys.executable, "-I", "-S"], code, [absent, *arguments, *names], environment)
        check(output, {name: models[name] for name in chosen}, "transformers_modules.")

    # The snippet of a card runs as it stands.
    snippets = [
        re.findall(r"```python\n(.*?)```", hub.files(f"ann/{name}")["README.md"].decode(), re.S) for name in models
    ]
    assert all(len(found) == 1 for found in snippets)
    program = "".join(f"exec({code!r}, {{}})\n" for (code,) in snippets)
    assert run([sys.executable], program, [], environment).count("a red square") == len(models)


def test_a_model_is_read_by_revision(hub, models, environment, tmp_path):
    model = models["imc-cmr"]
    vlcomp.push_to_hub(model, tiny_processor(), "ann/imc-cmr")
    first = hub.repos["model", "ann/imc-cmr"].branches["main"][-1].sha
    other = ImcCmrCLIPModel(model.config).eval()
    vlcomp.push_to_hub(other, tiny_processor(), "ann/imc-cmr", revision="trial", commit_message="another")
    assert hub.repos["model", "ann/imc-cmr"].branches["main"][-1].sha == first
    assert hub.repos["model", "ann/imc-cmr"].branches["trial"][-1].title == "another"
    code = """
import sys, vlcomp
for revision in sys.argv[2:]:
    model = vlcomp.ImcCmrCLIPModel.from_pretrained(sys.argv[1], revision=revision)
    print(repr(model.visual_projection.weight.double().sum().item()))
"""
    sums = run([sys.executable], code, ["ann/imc-cmr", "main", "trial", first], environment).split()
    wanted = [each.visual_projection.weight.double().sum().item() for each in (model, other, model)]
    assert [float(value) for value in sums] == wanted


def test_a_second_push_leaves_nothing_of_the_first(hub, models, clip_checkpoint, tmp_path):
    folder = tmp_path / "parts"
    models["clip"].save_pretrained(folder, max_shard_size="100KB")
    tiny_processor().save_pretrained(folder)
    (folder / "train.yaml").write_text("seed: 1\n")
    done = push_folder(folder, "ann/clip")
    assert len([name for name in done.files if name.endswith(".safetensors")]) > 1
    assert "model.safetensors.index.json" in hub.files("ann/clip") and "train.yaml" in hub.files("ann/clip")
    push_folder(clip_checkpoint, "ann/clip")
    assert [name for name in hub.files("ann/clip") if "safetensors" in name] == ["model.safetensors"]
    assert "train.yaml" not in hub.files("ann/clip")


def _environment_of(folder, *names):
    """A folder with these distributions and what they require, and nothing else."""
    folder.mkdir()
    wanted, done = list(names), set()
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in done:
            continue
        done.add(name)
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
        requirements = map(Requirement, distribution.requires or ())
        wanted += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert "vlcomp" not in done
    return folder
