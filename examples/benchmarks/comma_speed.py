"""What short class texts save when prompts are trained, and how much memory many classes take.

Random weights in the shapes of OpenAI's CLIPs, one process, on the CPU:

- text encoding and whole training steps (100 classes, batch 4, ViT-B/16), texts as long as the longest class needs
  against 77 positions, timed in turn;
- how many texts an evaluation of 1,000 images on 100 classes encodes;
- peak memory of a training run with 1,000 classes (ViT-B/32), in a process of its own.

    python examples/benchmarks/comma_speed.py --output comma_speed.json
"""

import argparse
import gc
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from PIL import Image
from torch.nn import functional

import vlcomp
from vlcomp import CommaConfig, CommaModel, CommaTrainer, CommaTrainingArguments
from vlcomp.data.tokenization import train_clip_tokenizer
from vlcomp.losses import knowledge_loss
from vlcomp.models.from_scratch import new_processor
from vlcomp.testing import save_tiny_checkpoint, tiny_images

PARTS = ("speed", "evaluation", "memory")
TEMPLATE = "a photo of a {}."
POSITIONS = 77
WORDS = (
    ("red", "green", "blue", "yellow", "black", "white", "purple", "orange", "grey", "brown"),
    ("small", "large", "old", "new", "round", "flat", "striped", "dotted", "soft", "hard"),
    ("cup", "star", "dog", "house", "ball", "tree", "car", "lamp", "chair", "boat"),
    ("beside",),
    ("water",),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--classes", type=int, default=100, help="classes of the first two parts (default: 100)")
    parser.add_argument("--batch", type=int, default=4, help="images in a step (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, help="timed pairs (default: 5)")
    parser.add_argument("--many-classes", type=int, default=1000, help="classes of the last part (default: 1000)")
    parser.add_argument("--steps", type=int, default=3, help="training steps of the last part (default: 3)")
    parser.add_argument("--chunk", type=int, default=128, help="class_chunk_size of the last part (default: 128)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.child:
        print(json.dumps(train_many(arguments)))
        return 0

    result: dict[str, Any] = {"threads": arguments.threads}
    if "speed" in arguments.parts:
        result["speed"] = speed(arguments)
    if "evaluation" in arguments.parts:
        result["evaluation"] = evaluation(arguments)
    if "memory" in arguments.parts:
        child = [sys.executable, __file__, *sys.argv[1:], "--child"]
        done = subprocess.run(child, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        result["memory"] = json.loads(done.stdout.strip().splitlines()[-1])
        print_memory(result["memory"])
    result["environment"] = {
        "vlcomp": vlcomp.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": platform.platform(),
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def class_names(count: int) -> list[str]:
    """Names of five words, each one token of the tokenizer."""
    return [" ".join(words) for words in itertools.islice(itertools.product(*WORDS), count)]


def new_comma(names: list[str], patch_size: int) -> tuple[CommaModel, Any]:
    """A COMMA of random weights in the shapes of CLIP ViT-B, and its processor."""
    tokenizer = train_clip_tokenizer([TEMPLATE.format(name) for name in names] * 2, max_length=POSITIONS)
    text = {"vocab_size": 49408, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = CommaConfig(
        text_config={**text, "hidden_size": 512, "intermediate_size": 2048, "projection_dim": 512},
        vision_config={"patch_size": patch_size, "image_size": 224, "projection_dim": 512},
        projection_dim=512,
        template=TEMPLATE,
    )
    model = CommaModel(config).train()
    return model.set_classes(names, tokenizer=tokenizer), new_processor(tokenizer, 224)


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time text encoding and whole steps, with short texts and with 77 positions."""
    names = class_names(arguments.classes)
    model, processor = new_comma(names, patch_size=16)
    texts = [model.config.learned_template.format(name) for name in names]
    pixels = torch.randn(arguments.batch, 3, 224, 224)
    wanted = torch.arange(arguments.batch)
    targets, target_mask = model.knowledge_targets()
    room = model.config.max_text_length
    inputs = {
        "trimmed": dict(processor.tokenizer(texts, padding=True, return_tensors="pt")),
        "77": dict(processor.tokenizer(texts, padding="max_length", max_length=room, return_tensors="pt")),
    }

    def encode(kind: str) -> float:
        model.zero_grad(set_to_none=True)
        output = model.get_text_features(inputs[kind]["input_ids"], inputs[kind]["attention_mask"]).pooler_output
        output.square().sum().backward()
        return float(output.detach().square().sum())

    def step(kind: str) -> float:
        model.zero_grad(set_to_none=True)
        output = model(**inputs[kind], pixel_values=pixels, output_text_hidden_states=True)
        loss = functional.cross_entropy(output.logits_per_image, wanted)
        loss = loss + knowledge_loss(output.text_hidden_states, targets, output.text_mask, target_mask)
        loss.backward()
        return float(loss.detach())

    length = inputs["trimmed"]["input_ids"].shape[1] + model.config.n_ctx
    print(
        f"{len(names)} classes of {length} positions, batch {arguments.batch}, CLIP ViT-B/16 shapes, "
        f"{arguments.threads} thread(s)"
    )
    rows = []
    for case, call in (("text encoding, forward and backward", encode), ("whole training step", step)):
        row = compare(case, lambda call=call: call("trimmed"), lambda call=call: call("77"), arguments.repeats)
        rows.append(row)
        print(
            f"{case:38}{row['trimmed_seconds']:8.2f} s  at {POSITIONS}: {row['padded_seconds']:8.2f} s  "
            f"{row['ratio']:6.2f}x"
        )
    return {"classes": len(names), "positions": length, "batch": arguments.batch, "rows": rows}


def compare(case: str, trimmed: Callable[[], float], padded: Callable[[], float], repeats: int) -> dict[str, Any]:
    """Time both in turn, so that a busy machine disturbs them alike."""
    one, other = trimmed(), padded()
    if abs(one - other) > 1e-3 * max(1.0, abs(other)):
        raise RuntimeError(f"{case}: {one} with short texts, {other} with long ones")
    gc.collect()
    pairs = [(timed(trimmed), timed(padded)) for _ in range(repeats)]
    return {
        "case": case,
        "trimmed_seconds": statistics.median(a for a, _ in pairs),
        "padded_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "pairs": pairs,
        "difference": abs(one - other),
    }


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def evaluation(arguments: argparse.Namespace, images: int = 1000) -> dict[str, Any]:
    """Count the texts that an evaluation encodes; on a tiny model, as the number does not depend on its size."""
    names = class_names(arguments.classes)
    rows = labelled(images, names, (32, 32))
    with tempfile.TemporaryDirectory() as folder:
        clip = save_tiny_checkpoint(Path(folder, "clip"))
        trainer = CommaTrainer(str(clip), settings(folder, per_device_eval_batch_size=100), eval_dataset=rows)
        counted: list[int] = []
        embeddings = trainer.model.text_model.embeddings
        embeddings.register_forward_hook(lambda module, given, output: counted.append(len(output)))
        trainer.evaluate()
    found = {"images": images, "classes": len(names), "texts_encoded": sum(counted)}
    print(f"evaluation of {images:,} images on {len(names)} classes: {found['texts_encoded']} texts encoded")
    return found


def settings(folder: str | Path, **changes: Any) -> CommaTrainingArguments:
    """Settings of a run that writes and prints nothing."""
    common = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    return CommaTrainingArguments(str(folder), **{**common, **changes})


def labelled(count: int, names: list[str], size: tuple[int, int]) -> datasets.Dataset:
    """Pictures with labels."""
    pictures = [image.resize(size, Image.Resampling.NEAREST) for image in tiny_images(min(count, 20))]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {
        "image": [pictures[i % len(pictures)] for i in range(count)],
        "label": [i % len(names) for i in range(count)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def train_many(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with many classes, and read the peak of resident memory."""
    names = class_names(arguments.many_classes)
    model, processor = new_comma(names, patch_size=32)
    rows = labelled(arguments.batch * arguments.steps, names, (224, 224))
    before = peak_gib()
    with tempfile.TemporaryDirectory() as folder:
        changes = {
            "per_device_train_batch_size": arguments.batch,
            "max_steps": arguments.steps,
            "warmup_epochs": 0,
            "class_chunk_size": arguments.chunk,
            "logging_strategy": "no",
        }
        trainer = CommaTrainer(model, settings(folder, **changes), rows, processing_class=processor)
        seconds = timed(trainer.train)
    return {
        "classes": len(names),
        "batch": arguments.batch,
        "steps": arguments.steps,
        "class_chunk_size": arguments.chunk,
        "seconds": seconds,
        "peak_gib_before_training": before,
        "peak_gib": peak_gib(),
        "loss": trainer.state.log_history[-1]["train_loss"],
    }


def peak_gib() -> float:
    """Peak of resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def print_memory(found: dict[str, Any]) -> None:
    print(
        f"{found['steps']} step(s) with {found['classes']:,} classes, batch {found['batch']}, CLIP ViT-B/32 shapes: "
        f"{found['seconds']:.0f} s, peak {found['peak_gib']:.2f} GiB (before training "
        f"{found['peak_gib_before_training']:.2f})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
