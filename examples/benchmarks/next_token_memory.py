"""Peak memory of the next-token loss in parts of the vocabulary, against the plain cross-entropy of all logits.

Each side runs in a process of its own, forward and backward, on the same numbers: hidden states as of a batch of long
captions, and a frozen language head of 32,000 words (LLaVA-1.5's). What is compared is how far the peak of the process
(or of the GPU's allocator) lies above what it held before the step. On a CPU it needs Linux:

    python examples/benchmarks/next_token_memory.py --output next_token_memory.json
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import vlcomp
from vlcomp.losses import next_token_loss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=32_000, help="words (default: 32,000)")
    parser.add_argument("--tokens", type=int, default=1_600, help="tokens that count (default: 8 captions of 200)")
    parser.add_argument("--width", type=int, default=1024, help="of the hidden states (default: 1024)")
    parser.add_argument("--chunk-size", type=int, default=8192, help="words at a time (default: 8192)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (default: all cores)")
    parser.add_argument("--seed", type=int, default=0, help="of the numbers (default: 0)")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    parser.add_argument("--side", choices=("plain", "chunked"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments)))
        return 0

    sides = {}
    for side in ("plain", "chunked"):
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        sides[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{side}: {sides[side]['peak'] / 2**20:,.0f} MiB, {sides[side]['seconds']:.2f} s", flush=True)
    plain, chunked = sides["plain"], sides["chunked"]
    report = {
        "plain": plain,
        "chunked": chunked,
        "ratio_of_peaks": plain["peak"] / chunked["peak"],
        "difference_of_losses": abs(plain["loss"] - chunked["loss"]),
        "difference_of_gradient_norms": abs(plain["gradient_norm"] - chunked["gradient_norm"]),
        "logits_in_bytes": 4 * arguments.vocabulary * arguments.tokens,
        "settings": {key: value for key, value in vars(arguments).items() if key not in ("output", "side")},
        "environment": {"vlcomp": vlcomp.__version__, "torch": torch.__version__, "platform": platform.platform()},
    }
    print(
        f"peak {report['ratio_of_peaks']:.1f} times lower; losses differ by {report['difference_of_losses']:.1e}, "
        f"norms of the gradient by {report['difference_of_gradient_norms']:.1e}"
    )
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward of one side in this process."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(arguments.seed)
    hidden = torch.randn(arguments.tokens, arguments.width, generator=generator)
    weight = torch.randn(arguments.vocabulary, arguments.width, generator=generator) / arguments.width**0.5
    labels = torch.randint(0, arguments.vocabulary, (arguments.tokens,), generator=generator)
    hidden, weight, labels = (tensor.to(arguments.device) for tensor in (hidden, weight, labels))
    hidden.requires_grad_()
    # Once on one token, so that what the first multiplication sets up is not counted.
    step(arguments, hidden[:1], weight, labels[:1])
    before = peak(arguments.device, reset=True)
    started = time.perf_counter()
    loss = step(arguments, hidden, weight, labels)
    return {
        "peak": peak(arguments.device) - before,
        "seconds": time.perf_counter() - started,
        "loss": loss.item(),
        "gradient_norm": hidden.grad.norm().item(),
    }


def step(
    arguments: argparse.Namespace, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    if arguments.side == "plain":
        loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, weight), labels)
    else:
        loss = next_token_loss(hidden, weight, labels, chunk_size=arguments.chunk_size)
    if hidden.is_leaf:
        hidden.grad = None
    loss.backward()
    return loss


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
