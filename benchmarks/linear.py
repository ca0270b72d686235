"""oneDNN's fp32 linear layers against PyTorch's own (MKL), forward and backward, at the shapes of the benchmarks.

    python benchmarks/linear.py

The two run in turn; figures are medians of GFLOP/s, and of the ratio within a round.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minirlhf.models.products import linear

# tokens, inputs, outputs: GPT-2's four products and its head in an update; the head in decoding; a small model's
SHAPES = (
    *((980, 768, 2304), (980, 768, 768), (980, 768, 3072), (980, 3072, 768), (212, 768, 50257), (8, 768, 50257)),
    *((2400, 128, 512), (768, 128, 2048)),
)


def seconds(function, inputs, weight, bias, gradient) -> float:
    """Time of one forward and backward pass."""
    for leaf in (inputs, weight, bias):
        leaf.grad = None
    start = time.perf_counter()
    function(inputs, weight, bias).backward(gradient)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| tokens x in x out | PyTorch GFLOP/s | oneDNN GFLOP/s | times |\n| --- | --- | --- | --- |")
    for shape in SHAPES:
        tokens, width, out = shape
        tensors = [torch.randn(size, requires_grad=True) for size in ((tokens, width), (out, width), (out,))]
        gradient = torch.randn(tokens, out)
        times = []
        for _ in range(args.rounds + 1):
            times.append([seconds(f, *tensors, gradient) for f in (torch.nn.functional.linear, linear)])
        plain, ours = zip(*times[1:], strict=True)  # the first round warms up
        work = 3 * 2 * tokens * width * out / 1e9
        ratio = statistics.median(a / b for a, b in zip(plain, ours, strict=True))
        speeds = [f"{work / statistics.median(of):.0f}" for of in (plain, ours)]
        print(f"| {' x '.join(map(str, shape))} | {' | '.join(speeds)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
