"""A training step of a discriminative LVLM in one pass over [image, prompt, caption], against two passes.

Two passes read [image, prompt] for the embedding and [image, prompt, caption] for the next-token loss; both sides are
given the features of the vision tower, so that two passes reuse them. Lengths are those of LLaVA-1.5 (576 tokens an
image, readings and short captions as its tokenizer makes them) with long captions of 200 tokens; the language model is
a random LLaMA small enough for a CPU, with LoRA and soft prompts to train. A step is forward and backward of the
contrastive and the next-token loss. Times are medians of repetitions in turn, in one process; peaks of memory are
medians of as many processes for each side, above what they hold before the step. On a CPU this needs Linux:

    python examples/benchmarks/lvlm_single_pass.py --output lvlm_single_pass.json

Beside the two, `in_turn` is two passes with a backward pass after each: slower and another order of the same sums, but
only one of the graphs is held at a time.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

import vlcomp
from vlcomp.losses import contrastive_loss, next_token_loss
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel
from vlcomp.testing import tiny_lvlm_processor

SIDES = ("one_pass", "two_passes", "in_turn")
# "USER: <image>\nSummarize the provided image in one word: ASSISTANT:", in tokens of LLaVA-1.5.
READING = {"before": 5, "between": 2, "prompt": 9, "after": 5}
SHORT_CAPTION = 12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2, help="in a batch (default: 2)")
    parser.add_argument("--image-tokens", type=int, default=576, help="tokens of an image (default: 576)")
    parser.add_argument("--caption-tokens", type=int, default=200, help="tokens of a long caption (default: 200)")
    parser.add_argument("--width", type=int, default=512, help="of the language model (default: 512)")
    parser.add_argument("--layers", type=int, default=8, help="of the language model (default: 8)")
    parser.add_argument("--vocabulary", type=int, default=32_000, help="words (default: 32,000)")
    parser.add_argument("--repetitions", type=int, default=5, help="timed steps of each side (default: 5)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (default: all cores)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and numbers (default: 0)")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.side:
        print(json.dumps({"peak": measure_peak(arguments)}))
        return 0

    peaks = {}
    for side in SIDES:  # first, while this process holds nothing
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        found = []
        for _ in range(arguments.repetitions):  # the system may take pages back in the middle of one
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout)["peak"])
        peaks[side] = statistics.median(found)
    report = measure_time(arguments)
    for side in SIDES:
        report[side]["peak"] = peaks[side]
        print(f"{side}: {report[side]['median']:.2f} s, {report[side]['peak'] / 2**20:,.0f} MiB", flush=True)
    one = report["one_pass"]
    report["times_as_fast"] = {side: report[side]["median"] / one["median"] for side in SIDES[1:]}
    report["times_the_memory"] = {side: report[side]["peak"] / one["peak"] for side in SIDES[1:]}
    report["tokens"] = tokens(arguments)
    report["settings"] = {key: value for key, value in vars(arguments).items() if key not in ("output", "side")}
    report["environment"] = {
        "vlcomp": vlcomp.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }
    print(
        f"one pass is {report['times_as_fast']['two_passes']:.2f} times as fast as two (tokens read: "
        f"{report['tokens']['ratio']:.2f} times as many), with {report['times_the_memory']['two_passes']:.2f} times "
        f"less memory; embeddings differ by {report['difference']['embeddings']:.1e}, losses by "
        f"{report['difference']['loss']:.1e}, gradients by {report['difference']['gradients']:.1e} of their norm"
    )
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


class Step:
    """A model, a batch, and training steps on it.

    Args:
        arguments (`argparse.Namespace`):
            Of the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        processor = tiny_lvlm_processor("llava")
        width = arguments.width
        config = LlavaConfig(
            # Its features are given; it only has to be there.
            vision_config=CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=28,
                patch_size=14,
            ),
            text_config=LlamaConfig(
                hidden_size=width,
                intermediate_size=43 * width // 16,  # as in LLaMA-7B: 11008 of 4096
                num_hidden_layers=arguments.layers,
                num_attention_heads=max(1, width // 64),
                vocab_size=arguments.vocabulary,
                max_position_embeddings=4096,
            ),
            image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        )

        def ids(*shape: int) -> torch.Tensor:
            return torch.randint(100, min(600, arguments.vocabulary), shape)

        reading = {part: ids(count).tolist() for part, count in READING.items()}
        self.model = DiscriminativeLVLMModel.from_lvlm(
            LlavaForConditionalGeneration(config), processor=processor, image_reading=reading, text_reading=reading
        ).to(arguments.device)
        with torch.no_grad():  # a LoRA begins at zero, where half of its gradients are zero too
            for name, parameter in self.model.trainable_parameters().items():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
        self.model.train()
        count = arguments.images
        features = torch.randn(count, arguments.image_tokens, width).to(arguments.device)
        given = BaseModelOutputWithPooling(pooler_output=list(features))
        self.model.lvlm.model.get_image_features = lambda pixel_values, return_dict=True: given
        self.pixels = torch.zeros(count, 3, 28, 28, device=arguments.device)
        self.long = ids(count, arguments.caption_tokens).to(arguments.device)
        self.short = ids(count, SHORT_CAPTION).to(arguments.device)

    def run(self, side: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward; the gradients stay in the parameters.

        Args:
            side (`str`):
                One of `SIDES`.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: embeddings of the images, and the loss.
        """
        model = self.model
        for parameter in model.trainable_parameters().values():
            parameter.grad = None
        if side == "in_turn":
            continued = self._continued(model.forward_with_caption(self.pixels, self.long))
            continued.backward()
            embeds = model.get_image_features(self.pixels).pooler_output
            contrasted = self._contrasted(embeds)
            contrasted.backward()
            return embeds.detach(), (contrasted + continued).detach()
        if side == "two_passes":
            embeds = model.get_image_features(self.pixels).pooler_output
            read = model.forward_with_caption(self.pixels, self.long)
        else:
            read = model.forward_with_caption(self.pixels, self.long)
            embeds = read.pooler_output
        loss = self._contrasted(embeds) + self._continued(read)
        loss.backward()
        return embeds.detach(), loss.detach()

    def _contrasted(self, embeds: torch.Tensor) -> torch.Tensor:
        texts = self.model.get_text_features(self.short).pooler_output
        normalised = (torch.nn.functional.normalize(values, dim=1) for values in (embeds, texts))
        return contrastive_loss(*normalised, self.model.logit_scale.exp())

    def _continued(self, read: Any) -> torch.Tensor:
        return next_token_loss(read.caption_hidden_states, self.model.lm_head, read.caption_labels)


def tokens(arguments: argparse.Namespace) -> dict[str, float]:
    """Tokens that the language model reads in a step: what the times would be if only these counted."""
    image = arguments.image_tokens + sum(READING.values())
    text = SHORT_CAPTION + sum(READING.values())
    one = arguments.images * (image + arguments.caption_tokens + text)
    two = one + arguments.images * image
    return {"one_pass": one, "two_passes": two, "ratio": two / one}


def measure_time(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each side in turn, and how far their results lie apart."""
    step = Step(arguments)
    results: dict[str, Any] = {}
    for side in SIDES:  # also warms up
        embeds, loss = step.run(side)
        gradients = [parameter.grad.flatten() for parameter in step.model.trainable_parameters().values()]
        results[side] = embeds, loss, torch.cat(gradients)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.repetitions):
        for side in SIDES:
            started = time.perf_counter()
            step.run(side)
            if torch.device(arguments.device).type == "cuda":
                torch.cuda.synchronize()
            seconds[side].append(time.perf_counter() - started)
    (embeds, loss, gradients), (others, other_loss, other_gradients) = results["one_pass"], results["two_passes"]
    report: dict[str, Any] = {
        side: {"median": statistics.median(values), "seconds": values} for side, values in seconds.items()
    }
    unit, other_unit = (torch.nn.functional.normalize(values, dim=1) for values in (embeds, others))
    report["difference"] = {
        "embeddings": (unit - other_unit).abs().max().item(),
        "loss": (loss - other_loss).abs().item(),
        "gradients": ((gradients - other_gradients).norm() / other_gradients.norm()).item(),
    }
    return report


def measure_peak(arguments: argparse.Namespace) -> int:
    """Most bytes that a step holds above what is held before it, in this process."""
    small = argparse.Namespace(**{**vars(arguments), "image_tokens": 4, "caption_tokens": 4, "layers": 1})
    Step(small).run(arguments.side)  # so that what the first step sets up is not counted
    step = Step(arguments)
    before = peak(arguments.device, reset=True)
    step.run(arguments.side)
    return peak(arguments.device) - before


def peak(device: str, *, reset: bool = False) -> int:
    """Most bytes held since the last reset; at a reset those that are held now."""
    if torch.device(device).type == "cpu":
        if reset:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew at what is held now
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(status["VmHWM"].split()[0])
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


if __name__ == "__main__":
    raise SystemExit(main())
