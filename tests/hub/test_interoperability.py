"""Examples that tie the package to other libraries run as they stand."""

import importlib.util
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vlcomp import CommaModel, Embedder, ImcCmrCLIPModel, IteratedCLIPConfig, IteratedCLIPModel
from vlcomp.testing import make_captioned_folder, tiny_captions, tiny_clip, tiny_images, tiny_processor

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = ["clip", "siglip", "imc_cmr_clip", "iterated_clip", "comma"]


def example(name):
    return runpy.run_path(str(EXAMPLES / name))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, clip_checkpoint, siglip_checkpoint):
    """A tiny checkpoint of each kind of dual encoder."""
    folder = tmp_path_factory.mktemp("models")
    towers = {name: getattr(tiny_clip().config, name).to_dict() for name in ("text_config", "vision_config")}
    torch.manual_seed(0)
    models = {
        "imc_cmr_clip": ImcCmrCLIPModel.from_pretrained(clip_checkpoint),
        "iterated_clip": IteratedCLIPModel(
            IteratedCLIPConfig(**towers, projection_dim=32, codebook_size=64, temperature=1.0)
        ),
        "comma": CommaModel.from_clip(clip_checkpoint),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tiny_processor().save_pretrained(folder / name)
    return {"clip": clip_checkpoint, "siglip": siglip_checkpoint, **{name: folder / name for name in models}}


@pytest.mark.parametrize("kind", MODELS)
def test_peft_lora(checkpoints, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    found = example("peft_lora.py")["main"](
        str(checkpoints[kind]), str(tmp_path / "out"), steps=2, rows=24, batch_size=8
    )
    assert 0 < found["trainable"] < found["total"] / 2
    assert found["changed by training"] > 1e-4 > 1e-5 > found["merged against base with adapter"]
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").is_file()
    assert not (tmp_path / "out" / "adapter_config.json").exists()


@pytest.mark.parametrize("kind", MODELS)
def test_export_towers(checkpoints, tmp_path, capsys, kind):
    script = example("export_towers.py")
    found = script["main"](str(checkpoints[kind]), str(tmp_path), 3)
    assert max(found.values()) <= 1e-5
    printed = capsys.readouterr().out
    assert ("exported for 3 at a time" in printed) == (kind in ("iterated_clip", "comma"))
    if importlib.util.find_spec("onnx") is None:
        assert "ONNX: not written, onnx" in printed and not list(tmp_path.glob("*.onnx"))
    if kind != "clip":
        return
    # The files give the embeddings of the package in a process of their own, without transformers.
    embedder = Embedder(load(kind, checkpoints[kind]), tiny_processor())
    torch.save(script["inputs_of"](embedder, 5), tmp_path / "inputs.pt")
    code = (
        "import sys, torch\n"
        "inputs = torch.load('inputs.pt')\n"
        "out = {k: torch.export.load(f'{k}.pt2').module()(inputs[k]).detach() for k in ('image', 'text')}\n"
        "assert 'transformers' not in sys.modules and 'vlcomp' not in sys.modules\n"
        "torch.save(out, 'out.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
    out = torch.load(tmp_path / "out.pt")
    assert torch.allclose(out["image"], embedder.encode_images(tiny_images(5)), atol=1e-5)
    assert torch.allclose(out["text"], embedder.encode_texts(tiny_captions(5)), atol=1e-5)


def load(kind, folder):
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


def test_sentence_transformers_interface(clip_checkpoint, tmp_path, capsys):
    script = example("sentence_transformers_retrieval.py")
    encoder = script["Encoder"](str(clip_checkpoint))
    pictures, texts = tiny_images(3), tiny_captions(2)
    mixed = encoder.encode([texts[0], pictures[0], texts[1], pictures[1]])
    assert isinstance(mixed, np.ndarray) and mixed.shape == (4, encoder.get_sentence_embedding_dimension())
    expected = encoder.embedder.encode_texts(texts), encoder.embedder.encode_images(pictures)
    assert np.allclose(mixed[[0, 2]], expected[0], atol=1e-6) and np.allclose(
        mixed[[1, 3]], expected[1][:2], atol=1e-6
    )
    one = encoder.encode("a cup", convert_to_tensor=True)
    assert one.shape == (mixed.shape[1],) and one.norm().item() == pytest.approx(1.0)
    assert isinstance(encoder.encode(texts, convert_to_numpy=False), list)
    assert encoder.encode([]).shape == (0, mixed.shape[1])
    assert torch.allclose(encoder.similarity(mixed[:1], mixed)[0], torch.tensor(mixed @ mixed[0]), atol=1e-6)
    with pytest.raises(TypeError, match="does not take prompt_name"):
        encoder.encode("a", prompt_name="query")
    with pytest.raises(ValueError, match="always normalised"):
        encoder.encode("a", normalize_embeddings=False)

    folder = make_captioned_folder(tmp_path / "photos", 5)
    hits = script["search"](encoder, str(folder), "a red cup", top_k=3)
    scores = encoder.embedder.similarity(
        encoder.embedder.encode_images([folder / f"{i:04d}.png" for i in range(5)]),
        encoder.embedder.encode_texts(["a red cup"]),
    )[:, 0]
    best = scores.topk(3)
    assert [name for name, _ in hits] == [f"{i:04d}.png" for i in best.indices.tolist()]
    assert [score for _, score in hits] == pytest.approx(best.values.tolist(), abs=1e-6)
    if importlib.util.find_spec("sentence_transformers") is None:
        assert "sentence-transformers is not installed" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no pictures"):
        (tmp_path / "empty").mkdir()
        script["search"](encoder, str(tmp_path / "empty"), "a cup")


def test_gradio_demo_functions(clip_checkpoint):
    from vlcomp import ZeroShotPipeline, load_embedder

    script = example("gradio_demo.py")
    embedder = load_embedder(clip_checkpoint)
    pipeline, picture = ZeroShotPipeline(embedder), tiny_images(1)[0]
    shares = script["classify"](pipeline, picture, "cup\n\n star \ncup", "a photo of a {}.")
    assert set(shares) == {"cup", "star"} and sum(shares.values()) == pytest.approx(1.0)
    expected = pipeline(picture, ["cup", "star"], hypothesis_template="a photo of a {}.")
    assert shares == {row["label"]: row["score"] for row in expected}
    texts = tiny_captions(3)
    rows, verdict = script["match"](embedder, picture, "\n".join(texts))
    scores = embedder.similarity(embedder.encode_images([picture]), embedder.encode_texts(texts))[0]
    assert rows[0] == [texts[int(scores.argmax())], round(float(scores.max()), 4)] and rows[0][0] in verdict
    # Captions that only differ in case are one to this tokenizer.
    assert "tie" in script["match"](embedder, picture, "a cup\nA cup")[1]
    for call, message in (
        (lambda: script["classify"](pipeline, None, "a\nb", "{}"), "choose a picture"),
        (lambda: script["classify"](pipeline, picture, "a", "{}"), "at least two labels"),
        (lambda: script["classify"](pipeline, picture, "a\nb", "photo"), "needs one {}"),
        (lambda: script["match"](embedder, None, "a\nb"), "choose a picture"),
        (lambda: script["match"](embedder, picture, " \n"), "at least two captions"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_gradio_demo_page(clip_checkpoint):
    script = example("gradio_demo.py")
    if importlib.util.find_spec("gradio") is None:
        with pytest.raises(SystemExit, match="pip install gradio"):
            script["build"](Embedder(tiny_clip(), tiny_processor()))
        return
    assert script["build"](Embedder(tiny_clip(), tiny_processor())) is not None


@pytest.mark.parametrize("name", ["export_towers.py", "gradio_demo.py", "sentence_transformers_retrieval.py"])
def test_examples_without_arguments_say_how(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit, match=rf"usage: python \S*{name} CHECKPOINT"):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def commands():
    text = (EXAMPLES / "accelerate_launch.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S)).replace("\\\n", " ")
    return [shlex.split(line) for line in blocks.splitlines() if line.startswith("accelerate launch")]


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words in commands() if "--use_cpu" in words], ids=lambda words: words[-1])
def test_accelerate_launch(clip_checkpoint, tmp_path, words):
    """The documented command for two CPU processes, word by word, in a folder with what it names."""
    make_captioned_folder(tmp_path / "photos", 24)
    shutil.copytree(clip_checkpoint, tmp_path / "openai" / "clip-vit-base-patch32")
    tool = Path(sys.executable).with_name("accelerate")
    program = [str(Path(sys.executable).with_name("vlcomp")) if word == "vlcomp" else word for word in words[1:]]
    extra = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--logging_steps", "1"]
    done = subprocess.run([str(tool), *program, *extra], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    output = tmp_path / words[words.index("--output") + 1]
    state = json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())
    # 24 pairs at 2 x 4 a step: three steps an epoch, where one process would need six.
    assert state["epoch"] == pytest.approx(2 / 3)
    assert Embedder(load("clip", output), tiny_processor()).encode_images([Image.new("RGB", (32, 32))]).shape == (
        1,
        32,
    )
