"""Time sparsemax, forward and backward, against entmax's and a textbook implementation, in one process.

entmax (github.com/deep-spin/entmax) takes part if it is installed. Seconds on one core:

    python examples/benchmarks/sparsemax.py --output sparsemax.json
"""

import argparse
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from vlcomp.models.iterated_clip import sparsemax


def textbook(scores: torch.Tensor) -> torch.Tensor:
    """Martins and Astudillo 2016, Algorithm 1, differentiated by autograd."""
    ordered, _ = scores.sort(dim=-1, descending=True)
    sums = ordered.cumsum(-1) - 1
    counts = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype)
    active = (counts * ordered > sums).sum(-1, keepdim=True)
    return torch.relu(scores - sums.gather(-1, active - 1) / active)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64, help="rows (default: 64)")
    parser.add_argument("--codes", type=int, default=4096, help="columns (default: 4096)")
    parser.add_argument("--repeats", type=int, default=30, help="timed calls of each (default: 30)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    others: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"textbook": textbook}
    if importlib.util.find_spec("entmax"):
        from entmax import sparsemax as of_entmax

        others["entmax"] = lambda scores: of_entmax(scores, dim=-1)
    else:
        print("entmax is not installed, so it is not timed")

    torch.manual_seed(0)
    scores = torch.randn(args.batch, args.codes, requires_grad=True)
    target = torch.randn(args.batch, args.codes)
    results, times = {}, {name: [] for name in ("vlcomp", *others)}
    for repeat in range(args.repeats + 2):
        for name, function in {"vlcomp": sparsemax, **others}.items():  # in turn, so that noise meets all alike
            start = time.perf_counter()
            weights = function(scores)
            (gradient,) = torch.autograd.grad((weights * target).sum(), scores)
            if repeat >= 2:
                times[name].append(time.perf_counter() - start)
            results[name] = weights.detach(), gradient
    found = {}
    for name, each in times.items():
        differences = [(a - b).abs().max().item() for a, b in zip(results["vlcomp"], results[name], strict=True)]
        found[name] = {
            "median_ms": 1000 * statistics.median(each),
            "fastest_ms": 1000 * min(each),
            "largest_difference_of_values": differences[0],
            "largest_difference_of_gradients": differences[1],
        }
        print(f"{name:9} {found[name]['median_ms']:7.2f} ms (fastest {found[name]['fastest_ms']:.2f})  {differences}")
    if args.output:
        settings = {"batch": args.batch, "codes": args.codes, "repeats": args.repeats, "threads": args.threads}
        machine = {"torch": torch.__version__, "python": platform.python_version()}
        args.output.write_text(json.dumps({**settings, **machine, "results": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
