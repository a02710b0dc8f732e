"""What vLLM needs to serve a model, and how fast it answers, by a roofline.

Reading a prompt is bound by matrix products, writing an answer by the bytes that each step reads: the weights once for all
users, and each user's own keys and values (Williams, Waterman and Patterson 2009, doi 10.1145/1498765.1498785; for transformers
Pope et al. 2022, arXiv 2211.05102). benchmarks/advice.py compares it with measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmbench.estimate.measure import Hardware
from llmbench.estimate.shapes import Shape

__all__ = ["PRECISIONS", "Load", "Serving", "precisions", "serving"]

GIB = 2**30
PRECISIONS = ("bf16", "fp8", "int8", "w4a16")
"""Of the weights in linear layers: 16 bits; eight-bit floats or integers, activations too; four bits, activations in 16."""
_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "w4a16": 0.52}
"""A weight of a linear layer; of four bits with a scale of 16 bits and a zero point of four for each 128."""
_PLAIN = 2
"""Bytes of a number in an embedding, a head, or the cache of keys and values, which stay in bfloat16 in all of these."""
_SHARE = {"cuda": (0.755, 0.5), "cpu": (0.8, 0.7)}
"""Of the bandwidth and of the matrix products that serving reaches, against what the maker states (cuda) or `advise` measures
(cpu). The first of CUDA and the step below solve two published measurements of Llama-3.1-8B under vLLM: 13.3 ms a token on an
A100 40GB, 6.48 ms on an H100; the second is an assumption."""
_STEP = {"cuda": 0.55e-3, "cpu": 5e-3}
"""Seconds that a step takes whatever the model is: scheduling, sampling, launching."""
_PROCESS = {"cuda": 1.5 * GIB, "cpu": 2.0 * GIB}
"""Memory of the process itself: CUDA's context and captured graphs, or Python with torch and vLLM."""
_CHUNK = 8192
"""Tokens of prompts that vLLM computes in one step."""
USABLE = {"cuda": 0.9, "cpu": 1.0}
"""Of the memory: `engine.gpu_memory_utilization`."""


@dataclass(frozen=True)
class Load:
    """What is asked at once."""

    users: int = 1
    context: int = 2048
    """Tokens that each user's prompt and answer take."""
    answer: int = 256
    """Tokens of an answer, of the context."""

    @property
    def prompt(self) -> int:
        """Tokens of a prompt."""
        return max(self.context - self.answer, 1)


@dataclass(frozen=True)
class Serving:
    """What serving a model takes, and how fast it is."""

    precision: str
    weights: int
    cache: int
    """Bytes of keys and values of all users at the end of their answers."""
    overhead: int
    """Bytes of the process, of activations and of logits."""
    first: float
    """Seconds to the first token of a prompt that comes alone, beside the steps of the other users."""
    token: float
    """Seconds between two tokens of one user while all write and no prompt is read."""
    users: int

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.weights + self.cache + self.overhead

    @property
    def tokens_per_second(self) -> float:
        """Of all users together."""
        return self.users / self.token


def precisions(there: Hardware) -> tuple[str, ...]:
    """The precisions that vLLM serves on it: no eight-bit floats on a CPU; on a GPU without their products as weights only."""
    return PRECISIONS if there.device == "cuda" else ("bf16", "int8", "w4a16")


def serving(found: Shape, there: Hardware, precision: str, load: Load) -> Serving:
    """What serving takes and how fast it is.

    Args:
        found: the model.
        there: the hardware.
        precision: one of PRECISIONS.
        load: users and tokens.
    """
    each, plain = _BYTES[precision], _PLAIN * found.embedding
    weights = each * found.body + plain
    chunk = min(_CHUNK, load.prompt * load.users)
    activations = chunk * (4 * found.hidden + 2 * max(found.intermediate, found.queries)) * 2
    overhead = _PROCESS[there.device] + activations + 4 * load.users * found.vocabulary
    bandwidth, rate = (a * b for a, b in zip(_SHARE[there.device], (there.bandwidth, _rate(there, precision)), strict=True))
    head = found.vocabulary * found.hidden

    def step(tokens: int, scored: int, reads: float, attended: float) -> float:
        """Seconds in which so many tokens go through the model.

        `reads` are bytes of keys and values, `attended` products of queries with them and back.
        """
        moved = each * (found.body - found.experts + _reached(found, tokens)) + _PLAIN * head + reads
        products = 2.0 * tokens * found.active + 2.0 * scored * head + attended
        return max(moved / bandwidth, products / rate) + _STEP[there.device]

    middle = load.context - load.answer // 2
    far = _attended(found, middle)
    token = step(load.users, load.users, load.users * _cache(found, middle), 4.0 * load.users * found.queries * far)
    first = step(load.prompt, 1, 0.0, 2.0 * found.queries * load.prompt * _attended(found, load.prompt))
    first += token if load.users > 1 else 0.0
    return Serving(
        precision, int(weights), int(load.users * _cache(found, load.context)), int(overhead), first, token, load.users
    )


def _rate(there: Hardware, precision: str) -> float:
    """FLOP/s: weights in eight-bit floats are multiplied in 16 bits where there is nothing faster."""
    match precision:
        case "fp8":
            return there.fp8 or there.bf16
        case "int8":
            return there.int8
    return there.bf16


def _attended(found: Shape, tokens: int) -> float:
    """Positions that a token sees, over all layers: no more than the window in those that have one."""
    return (found.layers - found.windowed) * tokens + found.windowed * min(tokens, found.window or tokens)


def _cache(found: Shape, tokens: int) -> float:
    """Bytes of keys and values of one user."""
    return 2.0 * _PLAIN * found.keys * _attended(found, tokens)


def _reached(found: Shape, tokens: int) -> float:
    """Parameters of the experts that a batch goes through, where each token is sent to any of them alike."""
    if not found.experts:
        return 0.0
    return found.experts * (1 - (found.idle / found.experts) ** tokens)
