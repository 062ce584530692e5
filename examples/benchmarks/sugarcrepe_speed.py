"""Time the whole of SugarCrepe against encoding each item by itself, on placeholder pictures of COCO's size.

Needs the official JSON files (github.com/RAIVNLab/sugar-crepe, folder data). Pictures are made on the fly, and the
CLIP has random weights in the shapes of ViT-B/32. The other side does what evaluation scripts commonly do: for each of
the 7,511 items it opens the picture and encodes it, encodes the two captions padded to 77 tokens, and compares. It is
measured on a random subset of items, half of it before and half after the other side, and scaled to all of them;
vlcomp runs the whole of SugarCrepe, from files to scores with intervals:

    python examples/benchmarks/sugarcrepe_speed.py path/to/sugarcrepe --output sugarcrepe_speed.json
"""

import argparse
import json
import os
import platform
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

import vlcomp
from vlcomp import Embedder
from vlcomp.data.tokenization import train_clip_tokenizer
from vlcomp.evaluation import get_task
from vlcomp.models.from_scratch import new_processor
from vlcomp.testing import tiny_captions

VIT_B_32 = {"image": {}, "text": {}}  # the defaults of CLIPConfig
TINY = {
    "image": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
}
SIZE = 224
TOKENS = 77


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of SugarCrepe's seven JSON files")
    parser.add_argument("--naive-items", type=int, default=100, help="items encoded one by one (default: 100)")
    parser.add_argument("--items", type=int, help="about how many items vlcomp measures (default: all 7,511)")
    parser.add_argument("--batch-size", type=int, default=32, help="of vlcomp (default: 32)")
    parser.add_argument("--num-workers", type=int, default=2, help="threads of vlcomp that read pictures (default: 2)")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch, for both sides (default: all cores)")
    parser.add_argument("--device", default="cpu", help="for both sides (default: cpu)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to see that the script works")
    parser.add_argument("--seed", type=int, default=0, help="of weights, pictures and the subset (default: 0)")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    items = [
        row for path in sorted(arguments.data.glob("*.json")) for row in json.loads(path.read_text("utf-8")).values()
    ]
    model, processor = make_model(items, TINY if arguments.tiny else VIT_B_32, arguments.seed)
    model.to(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder)
        subset = random.Random(arguments.seed).sample(items, min(arguments.naive_items, len(items)))
        started = time.perf_counter()
        names = {row["filename"] for row in (items if arguments.items is None else subset)}
        if arguments.items is not None:
            probe = get_task(
                "sugarcrepe", data=arguments.data, images=_all_names(items, images), limit=arguments.items
            )
            names |= {Path(source).name for source in probe.prepared.sources}
        size = placeholders(sorted(names), images, arguments.seed)
        print(f"{len(names)} JPEGs of {size / len(names) / 1024:.0f} KiB made in {seconds(started):.0f} s", flush=True)

        # Both sides once on a few items, so that neither pays for the first use of the libraries.
        embedder = Embedder(
            model,
            processor,
            batch_size=arguments.batch_size,
            num_workers=arguments.num_workers,
            device=arguments.device,
        )
        naive(model, processor, subset[:3], images)
        embedder.encode_images([str(images / row["filename"]) for row in subset[:3]])

        # Half of it before and half after, so that a machine that gets slower or faster does not favour a side.
        half = len(subset) // 2
        started = time.perf_counter()
        right, margins = naive(model, processor, subset[:half], images)
        naive_seconds = seconds(started)

        started = time.perf_counter()
        task = get_task(
            "sugarcrepe", data=arguments.data, images=images, limit=arguments.items, references=False, gallery=False
        )
        result = task.run(embedder, progress=os.isatty(2))
        ours_seconds = seconds(started)

        started = time.perf_counter()
        more, others = naive(model, processor, subset[half:], images)
        halves = (naive_seconds, seconds(started))
        naive_seconds, right, margins = sum(halves), right + more, margins + others
        print(f"one by one: {halves[0]:.1f} + {halves[1]:.1f} s for {len(subset)} items", flush=True)

    count = len(task.prepared.items)
    scaled = naive_seconds * count / len(subset)
    difference = largest_difference(result.items, subset, margins)
    report = {
        "items": count,
        "images": len(task.prepared.sources),
        "texts": len(task.prepared.texts),
        "naive_items_measured": len(subset),
        "naive_seconds_measured": naive_seconds,
        "naive_seconds_before_and_after": halves,
        "naive_seconds_scaled": scaled,
        "vlcomp_seconds": ours_seconds,
        "ratio": scaled / ours_seconds,
        "largest_difference_of_a_margin": difference,
        "naive_right_on_subset": right,
        "model": "tiny" if arguments.tiny else "CLIP ViT-B/32, random weights",
        "parameters": sum(p.numel() for p in model.parameters()),
        "settings": {key: str(value) for key, value in vars(arguments).items() if key not in ("data", "output")},
        "environment": {
            "vlcomp": vlcomp.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
            "platform": platform.platform(),
        },
    }
    print(f"vlcomp: {ours_seconds:.1f} s for {count} items ({report['images']} images, {report['texts']} texts)")
    print(
        f"one by one, scaled from {len(subset)} items drawn at random to {count}: {scaled:.1f} s; ratio "
        f"{report['ratio']:.2f}; largest difference of a margin {difference:.1e}"
    )
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def make_model(items: list[dict[str, str]], shape: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """A CLIP with random weights, and a tokenizer that knows the captions."""
    captions = [row[key] for row in items for key in ("caption", "negative_caption")] + tiny_captions(100)
    tokenizer = train_clip_tokenizer(captions, vocab_size=8192)
    torch.manual_seed(seed)
    config = transformers.CLIPConfig(
        vision_config={"image_size": SIZE, "patch_size": 32, **shape["image"]},
        text_config={
            # The table of tokens is as large as CLIP's; the captions need fewer.
            "vocab_size": 49408 if not shape["text"] else len(tokenizer),
            "max_position_embeddings": TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **shape["text"],
        },
    )
    return transformers.CLIPModel(config).eval(), new_processor(tokenizer, SIZE)


def placeholders(names: list[str], folder: Path, seed: int) -> int:
    """A JPEG of 640 x 480 for each name, about as large and as detailed as a photograph; gives their bytes in all."""
    total = 0
    # The grain is one and the same, moved: drawing half a million numbers for each picture would take minutes.
    grain = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (960, 1280, 3), dtype=np.uint8))
    for number, name in enumerate(names):
        rng = np.random.default_rng([seed, number])
        picture = Image.new("RGB", (640, 480))
        for cells, strength in ((3, 1.0), (12, 0.4), (60, 0.25)):
            noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            picture = Image.blend(
                picture, Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC), strength
            )
        left, top = (int(rng.integers(0, side)) for side in (640, 480))
        picture = Image.blend(picture, grain.crop((left, top, left + 640, top + 480)), 0.17)
        path = folder / name
        picture.save(path, format="JPEG", quality=90)
        total += path.stat().st_size
    return total


def _all_names(items: list[dict[str, str]], folder: Path) -> Path:
    """Empty files for all pictures: to learn which ones a smaller run needs."""
    for row in items:
        (folder / row["filename"]).touch()
    return folder


@torch.inference_mode()
def naive(model: Any, processor: Any, items: list[dict[str, str]], images: Path) -> tuple[int, list[float]]:
    """Each item by itself: one picture and two captions of 77 tokens; gives what is right, and all margins."""
    margins = []
    for row in items:
        picture = Image.open(images / row["filename"]).convert("RGB")
        pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"].to(model.device)
        image = model.get_image_features(pixel_values=pixels).pooler_output
        captions = [row["caption"], row["negative_caption"]]
        tokens = processor.tokenizer(
            captions, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        texts = model.get_text_features(**tokens.to(model.device)).pooler_output
        scores = torch.nn.functional.cosine_similarity(image, texts)
        margins.append(float(scores[0] - scores[1]))
    return sum(margin > 0 for margin in margins), margins


def largest_difference(rows: list[dict[str, Any]], items: list[dict[str, str]], margins: list[float]) -> float:
    """Between the margins of both sides, on the items that both measured."""
    ours = {(row["image"], row["text"], row["false_text"]): row["margin"] for row in rows}
    keys = [(item["filename"], item["caption"], item["negative_caption"]) for item in items]
    pairs = [(ours[key], margin) for key, margin in zip(keys, margins, strict=True) if key in ours]
    return max((abs(a - b) for a, b in pairs), default=float("nan"))


def seconds(since: float) -> float:
    return time.perf_counter() - since


if __name__ == "__main__":
    raise SystemExit(main())
