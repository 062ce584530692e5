"""Compare vlcomp.ZeroShotPipeline with the stock zero-shot-image-classification pipeline of transformers.

Both run on the same random CLIP in the same process: 500 labels, 20 images, several batch sizes, and a few labels with
one image, where there is nothing to save. Ends within two minutes on one core:

    python examples/benchmarks/zero_shot_pipeline.py --output zero_shot.json
"""

import argparse
import gc
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import vlcomp
from vlcomp.data.tokenization import train_clip_tokenizer
from vlcomp.models.from_scratch import new_clip, new_processor
from vlcomp.testing import tiny_captions, tiny_images

IMAGE_SIZE = 64
MODEL = {"image_size": IMAGE_SIZE, "patch_size": 8, "width": 128, "layers": 3, "heads": 4, "projection_dim": 128}
LOGIT_SCALE = 100.0  # of OpenAI's CLIPs; the initial 14 would hide differences of the scores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=500, help="number of labels (default: 500)")
    parser.add_argument("--images", type=int, default=20, help="number of images (default: 20)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 8, 20], help="default: 1 4 8 20")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    labels = tiny_captions(arguments.labels)
    images = tiny_images(arguments.images, size=(160, 128))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_clip_tokenizer(labels, vocab_size=1024)
        model = new_clip(tokenizer, **MODEL)
        model.logit_scale.data.fill_(torch.tensor(LOGIT_SCALE).log())
        model.save_pretrained(folder)
        new_processor(tokenizer, IMAGE_SIZE).save_pretrained(folder)
        stock = transformers.pipeline("zero-shot-image-classification", model=folder)
        ours = vlcomp.ZeroShotPipeline(folder)

    def run_stock(batch_size: int | None = None) -> Any:
        options = {} if batch_size is None else {"batch_size": batch_size}
        return stock(images, candidate_labels=labels, **options)

    def run_ours(batch_size: int | None = None) -> Any:
        ours.clear_cache()  # every call pays for its labels, as in the first call of a user
        return ours(images, labels, batch_size=batch_size)

    counted = {"texts": 0}
    hook = ours.embedder.model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: counted.update(texts=counted["texts"] + len(kwargs["input_ids"])),
        with_kwargs=True,
    )
    difference = max_difference(run_stock(), run_ours())
    hook.remove()

    rows = [compare("as called by default", run_stock, run_ours, repeats=1)]
    for size in arguments.batch_sizes:
        repeats = 1 if size == 1 else 3
        rows.append(
            compare(f"batch_size={size}", lambda size=size: run_stock(size), lambda size=size: run_ours(size), repeats)
        )
    for count in (1, 3):
        few = labels[:count]

        def first_call(few: list[str] = few) -> Any:
            ours.clear_cache()
            return ours(images[0], few)

        for name, run in (("first call", first_call), ("next calls", lambda few=few: ours(images[0], few))):
            rows.append(
                compare(
                    f"{count} label{'s' * (count > 1)}, 1 image, {name}",
                    lambda few=few: stock(images[0], candidate_labels=few),
                    run,
                    repeats=100,
                )
            )

    print(f"{arguments.labels} labels x {arguments.images} images, {arguments.threads} thread(s), CLIP {MODEL}")
    print(f"texts encoded by vlcomp: {counted['texts']}; largest difference of a score: {difference:.1e}\n")
    print(f"{'':36}{'stock':>12}{'vlcomp':>12}{'ratio':>9}")
    for row in rows:
        print(f"{row['case']:36}{seconds(row['stock_seconds'])}{seconds(row['vlcomp_seconds'])}{row['ratio']:8.2f}x")
    if arguments.output:
        result = {
            "labels": arguments.labels,
            "images": arguments.images,
            "model": MODEL,
            "threads": arguments.threads,
            "texts_encoded": counted["texts"],
            "max_score_difference": difference,
            "rows": rows,
            "environment": {
                "vlcomp": vlcomp.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "platform": platform.platform(),
            },
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def compare(case: str, stock: Callable[[], Any], ours: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Time both in turn, so that a busy machine disturbs them alike; the median of the pairs' ratios is robust."""
    if repeats > 1:
        stock(), ours()
    pairs = []
    gc.collect()
    for _ in range(repeats):
        pairs.append((timed(stock), timed(ours)))
    return {
        "case": case,
        "stock_seconds": statistics.median(a for a, _ in pairs),
        "vlcomp_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "repeats": repeats,
    }


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def max_difference(stock: list[list[dict[str, Any]]], ours: list[list[dict[str, Any]]]) -> float:
    worst = 0.0
    for one, other in zip(stock, ours, strict=True):
        scores = {entry["label"]: entry["score"] for entry in other}
        if len(scores) != len(one):
            raise RuntimeError(f"the pipelines returned {len(one)} and {len(scores)} labels")
        worst = max(worst, *(abs(entry["score"] - scores[entry["label"]]) for entry in one))
    return worst


def seconds(value: float) -> str:
    return f"{value:10.2f} s" if value >= 1 else f"{1000 * value:9.2f} ms"


if __name__ == "__main__":
    raise SystemExit(main())
