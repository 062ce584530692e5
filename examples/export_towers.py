"""Export both towers of a model with `torch.export`, and with ONNX where it is installed, and compare the outputs.

    python examples/export_towers.py CHECKPOINT OUTPUT_FOLDER [BATCH]

Writes `image.pt2` and `text.pt2`, which run without transformers and vlcomp:

    program = torch.export.load("image.pt2").module()
    image_embeds = program(pixel_values)          # [images, dim], L2-normalised

Texts are token ids padded on the right to the length of the model; no mask is needed, as CLIP's attention is causal
and SigLIP reads its padding. Any number of images or texts goes in, where the model's code allows that; otherwise
BATCH of them (8), and the output says so.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from torch import nn

from vlcomp import Embedder, load_embedder
from vlcomp.testing import tiny_captions, tiny_images


class ImageTower(nn.Module):
    """From pixel values to normalised embeddings."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        embeds = self.model.get_image_features(pixel_values=pixel_values).pooler_output
        return nn.functional.normalize(embeds, dim=-1)


class TextTower(nn.Module):
    """From token ids to normalised embeddings."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        embeds = self.model.get_text_features(input_ids=input_ids).pooler_output
        return nn.functional.normalize(embeds, dim=-1)


def inputs_of(embedder: Embedder, count: int) -> dict[str, torch.Tensor]:
    """Preprocessed pictures and captions."""
    processor, config = embedder.processor, embedder.model.config
    pixels = processor.image_processor(tiny_images(count), return_tensors="pt")["pixel_values"]
    # Prompts of a prompted model need places of their own.
    length = getattr(config, "max_text_length", None) or config.text_config.max_position_embeddings
    texts = processor.tokenizer(
        tiny_captions(count), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return {"image": pixels, "text": texts["input_ids"]}


def export(tower: nn.Module, example: torch.Tensor, name: str) -> tuple[torch.export.ExportedProgram, bool]:
    """A program for any number of inputs if that can be had, otherwise for as many as in the example."""
    with torch.no_grad():
        try:
            any_number = ({0: torch.export.Dim("batch", min=1, max=4096)},)
            return torch.export.export(tower, (example,), dynamic_shapes=any_number), True
        except torch._dynamo.exc.UserError:
            print(f"{name}: the model's code fixes the number of inputs; exported for {len(example)} at a time")
            return torch.export.export(tower, (example,)), False


def main(checkpoint: str, output: str, batch: int = 8) -> dict[str, float]:
    embedder = load_embedder(checkpoint, device="cpu")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    towers = {"image": ImageTower(embedder.model).eval(), "text": TextTower(embedder.model).eval()}
    examples, more = inputs_of(embedder, batch), inputs_of(embedder, batch + 3)
    found, exports = {}, {}
    for name, tower in towers.items():
        program, any_number = export(tower, examples[name], name)
        torch.export.save(program, folder / f"{name}.pt2")
        # Compared on other inputs than it was traced with, and where possible on another number of them.
        inputs = more[name] if any_number else more[name][3:]
        exports[name] = (examples[name], inputs, any_number)
        with torch.no_grad():
            loaded = torch.export.load(folder / f"{name}.pt2").module()
            found[name] = float((loaded(inputs) - tower(inputs)).abs().max())
        print(f"{folder / name}.pt2: largest difference {found[name]:.1e}")
        if not found[name] <= 1e-5:
            raise SystemExit(f"the exported {name} tower gives other embeddings")
    missing = [
        library for library in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(library) is None
    ]
    if missing:
        print(f"ONNX: not written, {' and '.join(missing)} not installed (pip install onnx onnxscript onnxruntime)")
        return found
    for name, tower in towers.items():
        found[f"{name} onnx"] = export_onnx(tower, *exports[name], folder / f"{name}.onnx")
        print(f"{folder / name}.onnx: largest difference {found[f'{name} onnx']:.1e}")
    return found


def export_onnx(tower: nn.Module, example: torch.Tensor, inputs: torch.Tensor, any_number: bool, path: Path) -> float:
    import onnxruntime

    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) if any_number else None
    torch.onnx.export(tower, (example,), path, dynamo=True, dynamic_shapes=shapes)
    session = onnxruntime.InferenceSession(path)
    with torch.no_grad():
        out = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
        return float((torch.from_numpy(out) - tower(inputs)).abs().max())


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(f"usage: python {sys.argv[0]} CHECKPOINT OUTPUT_FOLDER [BATCH]")
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
