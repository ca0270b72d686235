"""What this machine is and how fast it multiplies; on a CPU, whether the right library does. JSON as it is found.

python benchmarks/bench/arithmetic.py        # `minirlhf bench` shows it as a table
"""

import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from common import clock_options, say, set_clock

from minirlhf.models import products
from minirlhf.runtime import arithmetic, processor

# tokens, inputs, outputs: GPT-2's four products and its head in an update; a small model's; the head in decoding
SHAPES = ((980, 768, 2304), (980, 768, 768), (980, 768, 3072), (980, 3072, 768), (212, 768, 50257), (2400, 128, 512))
DECODING = ((8, 768, 50257), (32, 768, 50257), (64, 128, 2048))
ROUNDS = 7


def main() -> None:
    args = clock_options(__doc__).parse_args()
    set_clock(args)
    found = machine() | {"threads": args.threads}
    say(found)
    found["flops"] = {precision: speed(found["device"], precision) for precision in found["precisions"]}
    say(found)
    if found["device"] == "cpu" and products._ONEDNN_LINEAR is not None:
        found["products"] = []
        for shape, learns in [*((shape, True) for shape in SHAPES), *((shape, False) for shape in DECODING)]:
            found["products"].append(compare(shape, learns))
            say(found)


def machine() -> dict:
    """The device that a run would take, and the precisions that it has units for."""
    found = {"device": "cpu", "name": processor.name(), "arithmetic": arithmetic.description()}
    bf16 = processor.multiplies_bf16()
    if torch.cuda.is_available():
        found |= {"device": "cuda", "name": torch.cuda.get_device_name()}
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return found | {"precisions": ["fp32", *(["bf16"] if bf16 else [])], "torch": torch.__version__}


def speed(device: str, precision: str) -> float:
    """Multiply-adds (counted twice) a second of a large matrix product: the best of ten, by the faster library."""
    size, dtype = 8192 if device == "cuda" else 2048, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for function in (torch.nn.functional.linear, by_onednn):
        for _ in range(10):
            start = time.perf_counter()
            function(left, right, None)
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def by_onednn(*tensors: torch.Tensor | None) -> torch.Tensor:
    """A linear layer in fp32 by oneDNN, whatever the rule says; in bf16 PyTorch asks oneDNN by itself."""
    with mock.patch.object(products, "PRODUCTS", "onednn"):
        return products.linear(*tensors)


def compare(shape: tuple[int, int, int], learns: bool) -> dict:
    """How often as fast as the other library the one is that the rule takes, with its gradients if it `learns`.

    Median of rounds in turn.
    """
    tokens, width, out = shape
    tensors = [torch.randn(size, requires_grad=learns) for size in ((tokens, width), (out, width), (out,))]
    gradient = torch.randn(tokens, out)
    libraries = {"onednn": by_onednn, "pytorch": torch.nn.functional.linear}
    with torch.set_grad_enabled(learns):
        chosen = "onednn" if products._is_onednns(tensors[0], tensors[1]) else "pytorch"
        [other] = libraries.keys() - {chosen}
        ratios = []
        for _ in range(ROUNDS + 1):
            spent = {name: seconds(function, tensors, gradient, learns) for name, function in libraries.items()}
            ratios.append(spent[other] / spent[chosen])
    ratio = statistics.median(ratios[1:])  # the first round warms up
    what = "forward and backward" if learns else "forward"
    return {"shape": " x ".join(map(str, shape)), "pass": what, "by_rule": chosen, "times_the_other": ratio}


def seconds(function: Callable, tensors: list[torch.Tensor], gradient: torch.Tensor, learns: bool) -> float:
    """Time of one pass."""
    for leaf in tensors:
        leaf.grad = None
    start = time.perf_counter()
    product = function(*tensors)
    if learns:
        product.backward(gradient)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
