"""What an adapter costs a linear layer in vLLM's CPU worker, with vLLM's own functions and with llmbench's.

    python benchmarks/cpu_lora.py [--rank 16]

Milliseconds for the LoRA part of one layer (`add_lora_linear`, bfloat16), for batches of prompts and of single tokens, least of
20; and the root of the mean squared difference of both outputs, by that of the output (bfloat16 rounds by up to 0.0039).
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Sequence

os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch

from llmbench.engine import cpu_lora

SHAPES = {"576 to 1,536 (135M)": (576, 1536), "1,024 to 3,072 (0.6B)": (1024, 3072), "4,096 to 14,336 (8B)": (4096, 14336)}
BATCHES = {
    "a prompt of 600 tokens": [1] * 600,
    "a prompt beside one of the base": [1] * 300 + [0] * 300,
    "8 single tokens of one adapter": [1] * 8,
    "8 single tokens, mixed": [1, 0, 2, 1, 0, 0, 1, 2],
}


class Layer:
    """One layer's adapters in vLLM's slots, the last one empty."""

    def __init__(self, shape: tuple[int, int], rank: int) -> None:
        dice = torch.Generator().manual_seed(0)
        self.first = torch.randn(3, 1, rank, shape[0], generator=dice).bfloat16()
        self.second = torch.randn(3, 1, shape[1], rank, generator=dice).bfloat16()
        self.first[2], self.second[2] = 0, 0
        self.x = torch.randn(600, shape[0], generator=dice).bfloat16()
        self.y = torch.randn(600, shape[1], generator=dice).bfloat16()

    def run(self, ids: Sequence[int]) -> tuple[torch.Tensor, float]:
        """The output, and the least milliseconds."""
        mapping = importlib.import_module("vllm.lora.layers").LoRAMapping(tuple(ids), tuple(ids), is_prefill=True)
        wrapper = importlib.import_module("vllm.lora.punica_wrapper.punica_cpu").PunicaWrapperCPU(1024, 1024, "cpu")
        wrapper.update_metadata(mapping, [1, 2, None], 3, 1000)
        least = float("inf")
        for _ in range(20):
            y, x = self.y[: len(ids)].clone(), self.x[: len(ids)]
            began = time.perf_counter()
            wrapper.add_lora_linear(y, x, (self.first,), (self.second,), 0.5, (y.shape[1],))
            least = min(least, (time.perf_counter() - began) * 1e3)
        return y, least


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rank", type=int, default=16)
    options = arguments.parse_args()
    layers = {name: Layer(shape, options.rank) for name, shape in SHAPES.items()}
    own = {(name, batch): layer.run(ids) for name, layer in layers.items() for batch, ids in BATCHES.items()}
    if not cpu_lora.install():
        raise SystemExit("this vLLM has other functions")
    print("| layer | batch | vLLM's own, ms | llmbench's, ms | times faster | difference |\n|---|---|---|---|---|---|")
    for (name, batch), (output, before) in own.items():
        found, after = layers[name].run(BATCHES[batch])
        apart = ((found.float() - output.float()).norm() / output.float().norm()).item()
        print(f"| {name} | {batch} | {before:.2f} | {after:.2f} | {before / after:.1f} | {apart:.0e} |")


if __name__ == "__main__":
    main()
