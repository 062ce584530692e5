"""Checkpoints written in the layouts of other projects give the same embeddings after conversion, and go back."""

import argparse
import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, CLIPModel, pipeline

import _vlcomp_cli
from vlcomp import CommaModel, IteratedCLIPModel
from vlcomp.errors import ArgumentError, CheckpointError
from vlcomp.hub import codebook, conversion, open_clip
from vlcomp.hub.architecture import expected_names, read_architecture
from vlcomp.hub.conversion import convert
from vlcomp.hub.weights_files import read_weights
from vlcomp.testing import tiny_images, tiny_tokenizer

from .layouts import CodebookCLIP, OpenCLIP, prompt_learner

HEADS = {"vision_heads": 4, "text_heads": 4}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(max_length=20).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vocab():
    return len(tiny_tokenizer())


def inputs(vocab, size=32, positions=20, count=5):
    torch.manual_seed(1)
    pixels = torch.randn(count, 3, size, size)
    ids = torch.randint(0, vocab - 2, (count, positions))
    ids[:, 0] = vocab - 2
    mask = torch.zeros(count, positions, dtype=torch.long)
    for row, length in enumerate((3, 4, 9, 17, positions)):
        ids[row, length - 1 :] = 0
        ids[row, length - 1] = vocab - 1
        mask[row, :length] = 1
    return pixels, ids, mask


def unit(embeds):
    return torch.nn.functional.normalize(embeds.detach(), dim=-1)


def difference(model, theirs, pixels, ids, mask):
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels).pooler_output
        text = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        pairs = zip((image, text), theirs, strict=True)
        return max(float((unit(a) - unit(b)).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("quick", [True, False])
def test_open_clip_gives_the_same_embeddings_and_goes_back_bit_by_bit(tmp_path, tokens, vocab, quick):
    source = OpenCLIP(vocab, quick=quick)
    activation = "quick_gelu" if quick else "gelu"
    file = tmp_path / "epoch_5.pt"
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"epoch": 5, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, file)
    result = convert(file, tmp_path / "clip", activation=activation, tokenizer=tokens, **HEADS)
    assert result.difference < 1e-5
    pixels, ids, mask = inputs(vocab)
    model = AutoModel.from_pretrained(tmp_path / "clip").eval()
    with torch.no_grad():
        theirs = source.encode_image(pixels), source.encode_text(ids)
    assert difference(model, theirs, pixels, ids, mask) < 1e-5
    assert model.logit_scale.item() == 3.0 and model.config.text_config.hidden_act == activation
    # The other activation is not within the tolerance: the comparison above can fail.
    wrong = OpenCLIP(vocab, quick=not quick)
    wrong.load_state_dict(source.state_dict())
    with torch.no_grad():
        assert difference(model, (wrong.encode_image(pixels), wrong.encode_text(ids)), pixels, ids, mask) > 1e-4
    for name in ("back.pt", "back.safetensors"):
        convert(tmp_path / "clip", tmp_path / name, to="open_clip")
        back = torch.load(tmp_path / name) if name.endswith("pt") else load_file(tmp_path / name)
        own = source.state_dict()
        assert set(back) == set(own)
        assert all(torch.equal(back[key], own[key]) for key in own)
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path / "clip"))
    assert len(classify(tiny_images(1)[0], candidate_labels=["a cup", "a star"])) == 2


def test_a_wrong_mapping_is_refused_and_nothing_written(tmp_path, tokens, vocab, monkeypatch):
    file = tmp_path / "clip.safetensors"
    save_file(OpenCLIP(vocab).state_dict(), file)
    real = open_clip.to_transformers

    def swapped(tensors):
        state = real(tensors)
        a, b = (f"vision_model.encoder.layers.0.self_attn.{x}_proj.weight" for x in "qv")
        state[a], state[b] = state[b], state[a]
        return state

    monkeypatch.setattr(open_clip, "to_transformers", swapped)
    with pytest.raises(CheckpointError, match="largest difference .* nothing was written"):
        convert(file, tmp_path / "out", activation="gelu", tokenizer=tokens, **HEADS)
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="nan"):
        conversion._close_enough(float("nan"), "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("visual.ln_pre.bias"), "lacks visual.ln_pre.bias"),
        (lambda s: s.pop("transformer.resblocks.1.mlp.c_fc.weight"), "lacks transformer.resblocks.1.mlp.c_fc.weight"),
        (
            lambda s: s.update({"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(2)}),
            "has .*ls_1.gamma, unknown",
        ),
        (lambda s: s.update(logit_bias=torch.ones(())), "sigmoid loss"),
        (lambda s: s.update({"visual.trunk.x": torch.ones(2)}), "vision tower of timm"),
        (lambda s: s.update({"visual.layer1.0.conv1.weight": torch.ones(2)}), "a ResNet"),
        (lambda s: s.update({"text_projection": torch.ones(48, 7)}), r"text_projection has shape \[48, 7\]; expected"),
        (lambda s: s.update({"logit_scale": torch.tensor(float("nan"))}), "logit_scale is NaN"),
        (lambda s: s.update({"visual.positional_embedding": torch.ones(16, 32)}), "16 places"),
    ],
)
def test_missing_superfluous_and_misshapen_weights_are_named(tmp_path, tokens, vocab, change, message):
    state = dict(OpenCLIP(vocab).state_dict())
    change(state)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "x.safetensors", tmp_path / "out", activation="gelu", tokenizer=tokens, **HEADS)


def test_what_cannot_be_known_is_asked_for(tmp_path, tokens, vocab):
    save_file(OpenCLIP(vocab).state_dict(), tmp_path / "x.safetensors")
    ask = {"source": tmp_path / "x.safetensors", "output": tmp_path / "out"}
    with pytest.raises(ArgumentError, match="--vision-heads is needed: the vision tower is 32 wide"):
        convert(**ask, activation="gelu", tokenizer=tokens)
    with pytest.raises(ArgumentError, match="--activation is needed"):
        convert(**ask, tokenizer=tokens, **HEADS)
    with pytest.raises(ArgumentError, match="--tokenizer is needed: the model has"):
        convert(**ask, activation="gelu", **HEADS)
    with pytest.raises(ArgumentError, match="--vision-heads 5 does not divide"):
        convert(**ask, activation="gelu", tokenizer=tokens, vision_heads=5, text_heads=4)
    with pytest.raises(ArgumentError, match="cannot be loaded"):
        convert(**ask, activation="gelu", tokenizer=tmp_path / "none", **HEADS)
    tiny_tokenizer(["other words"] * 9).save_pretrained(tmp_path / "other")
    with pytest.raises(ArgumentError, match="ends texts with token"):
        convert(**ask, activation="gelu", tokenizer=tmp_path / "other", **HEADS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(ArgumentError, match="exists; name a new folder"):
        convert(**ask, activation="gelu", tokenizer=tokens, **HEADS)


SHAPES = {
    "ViT-B-32": (32, 224, 768, 12, 12, 3072, 512, 12, 8, 512),
    "ViT-B-16": (16, 224, 768, 12, 12, 3072, 512, 12, 8, 512),
    "ViT-L-14": (14, 224, 1024, 24, 16, 4096, 768, 12, 12, 768),
    "ViT-L-14-336": (14, 336, 1024, 24, 16, 4096, 768, 12, 12, 768),
    "ViT-H-14": (14, 224, 1280, 32, 16, 5120, 1024, 24, 16, 1024),
    "ViT-g-14": (14, 224, 1408, 40, 16, 6144, 1024, 24, 16, 1024),
    "ViT-bigG-14": (14, 224, 1664, 48, 16, 8192, 1280, 32, 20, 1280),
}


@pytest.mark.parametrize("name", SHAPES)
def test_published_architectures_are_read_off_their_shapes(name):
    patch, size, width, layers, heads, inner, text, text_layers, text_heads, dim = SHAPES[name]
    with torch.device("meta"):
        tensors = dict.fromkeys(expected_names(layers, text_layers))
        for key in tensors:
            w, m = (width, inner) if key.startswith("visual.") else (text, 4 * text)
            ends = {
                "in_proj_weight": (3 * w, w), "in_proj_bias": (3 * w,), "out_proj.weight": (w, w),
                "c_fc.weight": (m, w), "c_fc.bias": (m,), "c_proj.weight": (w, m),
            }  # fmt: skip
            shape = next((s for end, s in ends.items() if key.endswith(end)), (w,))
            tensors[key] = torch.empty(shape)
        tensors["visual.conv1.weight"] = torch.empty(width, 3, patch, patch)
        tensors["visual.positional_embedding"] = torch.empty((size // patch) ** 2 + 1, width)
        tensors["visual.proj"], tensors["text_projection"] = torch.empty(width, dim), torch.empty(text, dim)
        tensors["token_embedding.weight"], tensors["positional_embedding"] = (
            torch.empty(49408, text),
            torch.empty(77, text),
        )
        tensors["logit_scale"] = torch.empty(())
        found = read_architecture(tensors)
        config = {key: value.shape for key, value in open_clip.to_transformers(tensors).items()}
        model = CLIPModel(conversion_config(found))
    assert found.name == name and (found.vision_heads, found.text_heads) == (heads, text_heads)
    assert (found.image_size, found.vision_mlp, found.projection_dim) == (size, inner, dim)
    assert config == {key: value.shape for key, value in model.state_dict().items()}


def conversion_config(found):
    from transformers import CLIPConfig

    return CLIPConfig(**found.towers("gelu"))


class Scripted(torch.nn.Module):
    """OpenAI's archives: a traced model in half precision, with its sizes as buffers."""

    def __init__(self, clip):
        super().__init__()
        for name, value in clip.named_children():
            setattr(self, name, value)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, getattr(clip, name))
        for name, value in (("input_resolution", 32), ("context_length", 20), ("vocab_size", 600)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, pixels, ids):
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x.transpose(0, 1)))
        return self.visual(pixels), x @ self.text_projection * self.logit_scale


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quick", [True, False])
def test_a_torchscript_archive_is_read_without_running_it(tmp_path, tokens, vocab, monkeypatch, quick):
    source = OpenCLIP(vocab, quick=quick)
    pixels, ids, mask = inputs(vocab)
    file = tmp_path / "ViT-tiny.pt"
    torch.jit.save(torch.jit.trace(Scripted(source), (pixels, ids), check_trace=False), file)
    monkeypatch.setattr(torch.jit, "load", None)
    weights = read_weights(file)
    assert weights.kind == "torchscript" and weights.activation == ("quick_gelu" if quick else "gelu")
    result = convert(file, tmp_path / "clip", tokenizer=tokens, **HEADS)
    assert "read in the program of the archive" in result.notes[0]
    model = AutoModel.from_pretrained(tmp_path / "clip").eval()
    with torch.no_grad():
        theirs = source.encode_image(pixels), source.encode_text(ids)
    assert difference(model, theirs, pixels, ids, mask) < 1e-5


class Harm:
    def __reduce__(self):
        return (open, ("harm.txt", "w"))


def test_a_file_with_code_is_refused_and_its_code_never_runs(tmp_path, tokens, vocab, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = OpenCLIP(vocab).state_dict()
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1), "harm": Harm()}, "x.pt")
    with pytest.raises(CheckpointError, match=r"holds objects of argparse.Namespace, .*open beside its weights"):
        read_weights("x.pt")
    weights = read_weights("x.pt", ignore_objects=True)
    assert len(weights.ignored) == 2 and all(torch.equal(weights.tensors[k], v) for k, v in state.items())
    # Weights as views of one storage, and as parameters.
    both = torch.arange(6.0)
    torch.save({"a": both[:3], "b": both.view(2, 3).T, "c": torch.nn.Parameter(both), "x": Harm()}, "y.pt")
    views = read_weights("y.pt", ignore_objects=True).tensors
    assert views["b"].tolist() == [[0, 3], [1, 4], [2, 5]] and views["c"].tolist() == both.tolist()
    with open("z.pt", "wb") as stream:
        pickle.dump({"state_dict": state, "harm": Harm()}, stream)
    with pytest.raises(CheckpointError, match="z.pt"):
        read_weights("z.pt", ignore_objects=True)
    torch.save(state, "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights("old.pt").tensors["visual.proj"], state["visual.proj"])
    assert not (tmp_path / "harm.txt").exists()
    pickle.loads(pickle.dumps(Harm())).close()
    assert (tmp_path / "harm.txt").exists()  # the trap works


def test_damaged_and_empty_files(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"no checkpoint" * 9)
    (tmp_path / "b.safetensors").write_bytes(b"no checkpoint" * 9)
    torch.save({"epoch": 3}, tmp_path / "c.pt")
    torch.save([torch.ones(2)], tmp_path / "d.pt")
    torch.save({"x": torch.ones(4000)}, tmp_path / "whole.pt")
    (tmp_path / "e.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-600])
    for name, message in {
        "a.pt": "damaged",
        "b.safetensors": "damaged",
        "c.pt": "no weights in it; it holds 'epoch'",
        "d.pt": "holds a list",
        "e.pt": "damaged",
        "f.pt": "there is no such file",
        ".": "no open_clip_model.safetensors or open_clip_pytorch_model.bin",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            read_weights(tmp_path / name)


def test_an_open_clip_folder_tells_activation_heads_and_pictures(tmp_path, tokens, vocab):
    source = OpenCLIP(vocab, quick=False)
    folder = tmp_path / "hub"
    folder.mkdir()
    custom = {
        (name if name.startswith(("visual.", "logit_scale")) else f"text.{name}"): value
        for name, value in source.state_dict().items()
    }
    save_file({**custom, "text.attn_mask": torch.ones(20, 20)}, folder / "open_clip_model.safetensors")
    model = {"embed_dim": 24, "vision_cfg": {"width": 32, "head_width": 8}, "text_cfg": {"width": 48, "heads": 4}}
    pictures = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pictures}))
    result = convert(folder, tmp_path / "clip", tokenizer=tokens)
    assert "gelu (from open_clip_config.json)" in result.notes[0]
    image_processor = AutoProcessor.from_pretrained(tmp_path / "clip").image_processor
    assert list(image_processor.image_mean) == [0.1, 0.2, 0.3] and int(image_processor.resample) == 2
    assert not image_processor.do_center_crop
    pixels, ids, mask = inputs(vocab)
    with torch.no_grad():
        theirs = source.encode_image(pixels), source.encode_text(ids)
    assert difference(AutoModel.from_pretrained(tmp_path / "clip"), theirs, pixels, ids, mask) < 1e-5


def test_codebook_checkpoint(tmp_path, tokens, vocab):
    source = CodebookCLIP(vocab)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"model": state, "optimizer": {}, "last_iter": 72000}, tmp_path / "c.pth.tar")
    result = convert(tmp_path / "c.pth.tar", tmp_path / "out", tokenizer=tokens, temperature=0.5, **HEADS)
    assert result.difference < 1e-5 and any("mask token" in note for note in result.notes)
    assert any("logit_scale_sd" in note for note in result.notes)
    model = IteratedCLIPModel.from_pretrained(tmp_path / "out").eval()
    pixels, ids, mask = inputs(vocab)
    shifted = torch.where(ids >= vocab - 2, ids + 1, ids)
    with torch.no_grad():
        theirs = source.encode_images(pixels), source.encode_texts(shifted, mask)
    assert difference(model, theirs, pixels, ids, mask) < 1e-5
    assert model.logit_scale.item() == 3.0 and model.config.temperature == 0.5
    # With the temperature wrong, embeddings differ: it is used.
    model.codebook.divisor *= 4
    assert difference(model, theirs, pixels, ids, mask) > 1e-3
    processor = AutoProcessor.from_pretrained(tmp_path / "out").image_processor
    assert processor.size["shortest_edge"] == 37 and processor.crop_size["height"] == 32


def test_padding_as_in_the_code_of_the_authors_makes_a_difference_that_is_told(tmp_path, tokens, vocab):
    # So high a temperature that every code is active, also those that no token of a short text matches.
    source = CodebookCLIP(vocab, temperature=100.0)
    model, found, _ = codebook.read_codebook(source.state_dict(), temperature=100.0, tokens=vocab, **HEADS)
    ours, theirs = codebook.compare_codebook(model, source.state_dict(), found)
    assert ours < 1e-5 < 1e-3 < theirs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("txt_query_model.q_map.4.bias"), "lacks text_projection.fc2.bias"),
        (lambda s: s.update({"q": torch.ones(1)}), "has q, unknown"),
        (lambda s: s.update({"visual.conv1.weight_orig": torch.ones(1)}), "has visual.conv1.weight_orig"),
        (lambda s: s.update({"space_dict": torch.ones(40, 7)}), "do not fit the codebook model"),
    ],
)
def test_codebook_mistakes_are_named(vocab, change, message):
    state = dict(CodebookCLIP(vocab).state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        codebook.read_codebook(state, temperature=1.0, **HEADS)


@pytest.fixture(scope="module")
def plain_clip(tmp_path_factory, tokens, vocab):
    """A CLIP in both layouts."""
    folder = tmp_path_factory.mktemp("plain")
    source = OpenCLIP(vocab, layers=(3, 3))
    save_file(source.state_dict(), folder / "c.safetensors")
    convert(folder / "c.safetensors", folder / "clip", activation="quick_gelu", tokenizer=tokens, **HEADS)
    return source, folder / "clip"


@pytest.mark.parametrize("kind", ["maple", "comma"])
@pytest.mark.parametrize("depth", [2, 3])
def test_prompts(tmp_path, plain_clip, tokens, kind, depth):
    clip, folder = plain_clip
    tokenizer, template, classes = tiny_tokenizer(max_length=20), "a photo of a {}.", ["red cup", "blue star"]
    state, text, vision = prompt_learner(kind, clip, tokenizer, classes, template, depth=depth)
    torch.save({"state_dict": state, "epoch": 5, "val_result": None}, tmp_path / "model.pth.tar-5")
    result = convert(tmp_path / "model.pth.tar-5", tmp_path / "out", clip=folder)
    assert result.difference < 1e-5 and not any("not checked" in note for note in result.notes)
    model = CommaModel.from_pretrained(tmp_path / "out").eval()
    assert model.config.prompt_variant == ("maple" if kind == "maple" else "independent")
    pixels, _, _ = inputs(len(tokenizer))
    ids = torch.tensor(tokenizer([template.format(c) for c in classes], padding="max_length", max_length=20).input_ids)
    ends = (ids == tokenizer.eos_token_id).int().argmax(1, keepdim=True)
    ids = torch.where(torch.arange(20) <= ends, ids, 0)
    with torch.no_grad():
        image, text_embeds = clip.encode_image(pixels, vision), clip.encode_text(ids, text)
        ours = model.get_image_features(pixel_values=pixels).pooler_output
        named = model.set_classes(classes).encode_classes().text_embeds
    assert (unit(ours) - unit(image)).abs().max() < 1e-5
    assert (unit(named) - unit(text_embeds)).abs().max() < 1e-5
    # Prompts are there and matter.
    with torch.no_grad():
        assert (unit(clip.encode_image(pixels)) - unit(image)).abs().max() > 1e-3


def test_prompt_mistakes_are_named(tmp_path, plain_clip, vocab):
    clip, folder = plain_clip
    tokenizer = tiny_tokenizer(max_length=20)
    state, _, _ = prompt_learner("maple", clip, tokenizer, ["cup"], "a photo of a {}.")
    file = tmp_path / "m.pth.tar"

    def attempt(state, message, error=CheckpointError, **kwargs):
        torch.save({"state_dict": state}, file)
        with pytest.raises(error, match=message):
            convert(file, tmp_path / "out", **{"clip": folder, **kwargs})

    attempt(state, "--clip is needed", ArgumentError, clip=None)
    attempt(state, "cannot be loaded", ArgumentError, clip=tmp_path / "none")
    attempt(state, "after them stood 'of a cup", ArgumentError, template="a picture of one {}.")
    attempt({**state, "prompt_learner.bias": torch.ones(2)}, "prompt_learner has bias")
    broken = {k: v for k, v in state.items() if k != "prompt_learner.proj.bias"}
    attempt(broken, "lacks proj.bias")
    attempt({**state, "prompt_learner.ctx": torch.ones(3, 2, 48)}, "prompts of single classes")
    other = {**state, "image_encoder.proj": state["image_encoder.proj"] + 1}
    attempt(other, "trained on another CLIP .* image_encoder.proj differs")
    wide, _, _ = prompt_learner("maple", OpenCLIP(vocab, width=(32, 64)), tokenizer, ["cup"], "a photo of a {}.")
    wide = {k: v for k, v in wide.items() if k.startswith("prompt_learner.")}
    attempt(wide, "other widths")


def command(capsys, *arguments):
    code = _vlcomp_cli.main(["convert", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_line(tmp_path, tokens, vocab, capsys):
    file = tmp_path / "ViT-x-quickgelu.safetensors"
    save_file(OpenCLIP(vocab).state_dict(), file)
    heads = ["--vision-heads", 4, "--text-heads", 4]
    code, out, _ = command(capsys, file, "--output", tmp_path / "clip", "--tokenizer", tokens, *heads)
    assert code == 0 and "check:  largest difference between embeddings of random inputs" in out
    assert "quick_gelu (from the name of the file)" in out and f"wrote:  {tmp_path / 'clip'}" in out
    code, out, _ = command(capsys, tmp_path / "clip", "--to", "open_clip", "--output", tmp_path / "back.pt")
    assert code == 0 and (tmp_path / "back.pt").is_file()
    code, out, _ = command(capsys, file, "--output", tmp_path / "bare", "--no-tokenizer", *heads)
    assert code == 0 and "No tokenizer was written" in out and not (tmp_path / "bare" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pt"], "nothing.pt: there is no such file"),
        (["{clip}"], "is converted with `--to open_clip`"),
        (["{clip}", "--to", "openclip"], "to='openclip' is not one of"),
        (["{clip}", "--to", "open_clip"], "must be a file that ends in"),
        (["{clip}/model.safetensors"], "a CLIP of transformers, which needs no conversion"),
        (["x.pt", "--activation", "relu"], "activation='relu' is not one of"),
        (["x.pt", "--dtype", "int8"], "dtype='int8' is not one of"),
        (["x.pt", "--vision-heads", "0"], "--vision-heads 0 must be at least 1"),
        (["x.pt", "--temperature", "0"], "temperature=0.0 must be above 0"),
        (["x.pt", "--template", "a cup"], "needs one {} for the class name"),
        (["x.pt", "--tokenizer", "a", "--no-tokenizer"], "exclude each other"),
    ],
)
def test_mistakes_are_one_line(tmp_path, clip_checkpoint, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("{clip}", str(clip_checkpoint)) for word in arguments]
    code, _, error = command(capsys, *words, "--output", "out")
    assert code == 2 and error.count("\n") == 1 and message in error
    assert list(tmp_path.iterdir()) == []


def test_other_models_do_not_go_to_open_clip(tmp_path, siglip_checkpoint, clip_checkpoint):
    with pytest.raises(CheckpointError, match="open_clip has no place|lacks"):
        convert(siglip_checkpoint, tmp_path / "x.pt", to="open_clip")
    folder = shutil.copytree(clip_checkpoint, tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_act"] = "relu"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="computes relu and quick_gelu"):
        convert(folder, tmp_path / "x.pt", to="open_clip")
