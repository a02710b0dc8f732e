"""What a training will need, before it starts: memory, disk and time, from the model's config.json and the rows' lengths.

Nothing heavy is imported. Activations follow the architecture exactly (each coefficient below is what autograd keeps, counted
with saved-tensor hooks); what depends on the machine (the libraries' own memory, speeds) was fitted to measured runs, and is
corrected by the finished runs of this workspace. `benchmarks/estimates.py` compares estimates with runs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmbench.estimate import gpus
from llmbench.estimate.shapes import Shape
from llmbench.hardware import Machine
from llmbench.recipe import TrainRecipe

__all__ = ["GIB", "METHODS", "Estimate", "Work", "estimate", "spread", "unquantized", "work"]

GIB = 2**30
METHODS = ("sft", "pretrain", "dpo", "orpo", "kto", "reward")
"""What is estimated. Nobody knows how long the answers of a GRPO round will be, nor yet what a teacher takes."""

_QK_NORM = {"qwen3", "qwen3_moe", "gemma3", "gemma3_text", "olmo2", "olmo3"}
_KEPT = {
    # Bytes a token and layer that autograd keeps, by width: hidden, intermediate, queries, keys/values, heads, and a constant.
    # (bfloat16 computation, adapter): with norms on queries and keys, and without.
    (True, True): ((18, 8, 9.87, 8.13, 12, 8), (18, 8, 6, 4, 4, 8)),
    (False, True): ((16, 16, 15.87, 12.13, 12, 8), (16, 16, 12, 8, 4, 8)),
    (True, False): ((26, 8, 11.87, 10.13, 12, 8), (26, 8, 6, 4, 4, 8)),
    (False, False): ((24, 16, 19.88, 16.12, 12, 8), (24, 16, 12, 8, 4, 8)),
}
_LINEARS = 7
"""Projections of a layer: queries, keys, values, output, gate, up, down."""
_OPTIMIZER_BYTES = {
    "adamw_torch_fused": 8, "adamw_torch": 8, "adamw_8bit": 2.1, "paged_adamw_8bit": 2.1, "lion_8bit": 1.05, "muon": 4.5,
    "adafactor": 0.1, "sgd": 0,
}  # fmt: skip
"""Of state, a trained parameter."""
_LIBRARIES = {"cpu": 0.8 * GIB, "cuda": 3.0 * GIB}
"""Host memory of Python with torch, transformers, TRL, PEFT and datasets loaded."""
_ROWS = {"cpu": 128, "cuda": 2048}
"""Positions whose logits exist at a time, see training/kernels/chunked_head.py."""
_HELD = {("cpu", True): 1.4, ("cpu", False): 1.4, ("cuda", True): 0.9, ("cuda", False): 1.2}
"""How many times activations are really held, by device and whether layers pass on 16 bits: on a CPU with copies on the way
back and what the allocator keeps. For a CPU this and the next two were fitted to sixteen runs; for CUDA (allocated bytes)
this one to seven of LoRA in 16 bits and to one in float32.
"""
_COPIES = 8
"""Bytes a parameter that full training holds beside the parameter, its gradient and the optimizer's state."""


@dataclass(frozen=True)
class Work:
    """The rows that are trained on, and how they fall into batches."""

    lengths: np.ndarray
    """Tokens of each row (int)."""
    learned: float
    """Share of tokens that are learned."""
    rows: int
    """Rows (or bins) in a batch."""
    steps: int
    accumulation: int
    end_to_end: bool
    """Without padding."""
    tokens_per_batch: int | None = None
    sequences: int = 1
    """Sequences that a row makes: two of a pair, each as long as the row's longer one."""

    @cached_property
    def batch_tokens(self) -> float:
        """Tokens of a batch on average, padding counted."""
        return float(self._drawn.mean())

    @cached_property
    def largest_batch(self) -> float:
        """Tokens of the largest batch, padding counted."""
        return float(self._drawn.max())

    @cached_property
    def real(self) -> float:
        """Tokens of a batch on average without padding."""
        return (
            float(self.lengths.mean()) * min(self.rows, len(self.lengths)) * self.sequences
            if self.tokens_per_batch is None
            else self.batch_tokens
        )

    @cached_property
    def _drawn(self) -> np.ndarray:
        if self.tokens_per_batch is not None:
            return np.array([float(max(self.tokens_per_batch, int(self.lengths.max())))])
        count = max(min(self.steps * self.accumulation, 2000), 1)
        wanted = count * self.rows
        shuffled = np.random.default_rng(0).permutation(self.lengths)
        drawn = np.resize(shuffled, wanted).reshape(count, self.rows)
        tokens: np.ndarray = drawn.sum(1) if self.end_to_end else drawn.max(1) * self.rows
        return tokens * self.sequences


@dataclass(frozen=True)
class Estimate:
    """What one training needs."""

    device: str
    memory: dict[str, int]
    """Bytes at the worst moment, by what takes them: on the GPU for cuda, else of the host."""
    host: int
    """Bytes of host memory."""
    disk: int
    """Bytes written under outputs/ at the worst moment."""
    seconds: float
    uncorrected_seconds: float
    """Before finished runs had their say."""
    tokens_per_second: float
    """Real tokens, without padding."""
    corrected_by: int
    """Finished runs of this workspace and machine that the time was corrected with."""

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return sum(self.memory.values())

    @property
    def dominated_by(self) -> str:
        """The largest part."""
        return max(self.memory, key=lambda name: self.memory[name])


@dataclass(frozen=True)
class Trained:
    """What is trained of a model."""

    parameters: int
    adapter: bool
    rank: int
    """Of LoRA; 0 without."""


def trained(recipe: TrainRecipe, found: Shape) -> Trained:
    """How many parameters a recipe trains: LoRA beside the linear layers, or all parameters."""
    if not recipe.adapts:
        return Trained(found.parameters, adapter=False, rank=0)
    if recipe.lora is None:
        return Trained(16 * found.layers * found.hidden, adapter=True, rank=0)  # OFT, VeRA, IA3, prompts: next to nothing
    widths = 2 * (found.hidden + found.queries) + 2 * (found.hidden + found.keys) + found.linears
    share = 1.0
    targets = recipe.lora.target_modules
    if isinstance(targets, list):
        share = min(len(targets) / _LINEARS, 1.0)
    return Trained(round(recipe.lora.r * widths * found.layers * share), adapter=True, rank=recipe.lora.r)


def estimate(recipe: TrainRecipe, found: Shape, work: Work, there: Machine, *, correction: Sequence[float] = ()) -> Estimate:
    """What a training will need.

    Args:
        recipe: with `dtype`, `padding_free` and the like settled or left open (open ones count as `auto` chooses).
        found: the model.
        work: the rows.
        there: the machine.
        correction: measured / estimated seconds of earlier runs here; their median multiplies the time.
    """
    spec, what = recipe.training, trained(recipe, found)
    low = recipe.model.dtype in ("bfloat16", "float16") or (recipe.model.dtype == "auto" and there.bfloat16)
    narrow = low and recipe.quantization is None  # the norms beside quantised layers are float32, and so is what they pass on
    needed: dict[str, float] = {
        "weights": _weights(recipe, found, what, low=low),
        "trained": what.parameters * (4 + 4 + _OPTIMIZER_BYTES[spec.optim] + (0 if what.adapter else _COPIES)),
        "activations": _activations(recipe, found, what, work, low=narrow) * _HELD[there.device, narrow],
        "logits": _logits(recipe, found, what, work, there.device, low=low),
    }
    if recipe.method in _FORWARDS and _FORWARDS[recipe.method] and not what.adapter:
        needed["reference"] = 4.0 * found.parameters  # the frozen model that is started from; an adapter's is the base
    parts = {name: int(size) for name, size in needed.items()}
    libraries = int(_LIBRARIES[there.device])
    if there.device == "cpu":
        parts = {"libraries": libraries, **parts}
        host = sum(parts.values())
    else:
        host = libraries + found.stored // 4
    uncorrected = _seconds(recipe, found, what, work, there, low=low)
    seconds = uncorrected * statistics.median(correction or (1.0,)) + _FIRST_STEP[there.device]
    saved = what.parameters * 4
    checkpoint = int(what.parameters * (4 + _OPTIMIZER_BYTES[spec.optim]))
    tokens = work.real * work.steps * work.accumulation
    return Estimate(
        there.device,
        parts,
        host,
        saved + checkpoint * (spec.save_total_limit + 1),
        seconds,
        uncorrected,
        tokens / seconds,
        len(correction),
    )


def _weights(recipe: TrainRecipe, found: Shape, what: Trained, *, low: bool) -> float:
    """Of the frozen base, and for full training the copies in the computation's precision that autocast keeps."""
    if not what.adapter:
        return 2.0 * found.parameters if low else 0.0  # float32 itself is counted as trained
    width = 2 if low else 4
    quantization = recipe.quantization
    if quantization is None:
        return width * found.parameters
    each = 0.516 if quantization.bnb_4bit_use_double_quant else 0.5625  # 4 bits, and a scale for each 64 weights
    if quantization.bits == 8:
        each = 1.0
    largest = max(found.intermediate, found.queries) * found.hidden * width  # one layer at a time is written out again
    plain = found.embedding + found.experts  # bitsandbytes quantises linear layers, and experts are fused
    return each * (found.body - found.experts) + width * plain + largest


def _activations(recipe: TrainRecipe, found: Shape, what: Trained, work: Work, *, low: bool) -> float:
    """What autograd keeps from the largest batch, and twice a layer's width while a layer is at work."""
    kept = _KEPT[low, what.adapter][0 if found.kind in _QK_NORM else 1]
    widths = (found.hidden, found.intermediate, found.queries, found.keys, found.heads, 1)
    layer = sum(a * b for a, b in zip(kept, widths, strict=True)) + what.rank * _LINEARS * (2 if low else 4)
    stream = found.hidden * 4
    layers = found.layers * stream + layer if recipe.training.gradient_checkpointing else found.layers * layer
    return work.largest_batch * (layers + 2 * stream + 4 * max(found.intermediate, found.queries) * (2 if low else 4))


def _logits(recipe: TrainRecipe, found: Shape, what: Trained, work: Work, device: str, *, low: bool) -> float:
    """Of the positions scored at a time, and the hidden states of all that are scored."""
    if recipe.method == "reward":
        return 0.0
    width = 2 if low else 4
    scored = work.largest_batch * work.learned
    sums = 0.0 if what.adapter else 4.0 * found.vocabulary * found.hidden  # the gradient by the head, before it is handed on
    if device == "cuda":  # parts of equal size, their logits in the computation's precision and in float32
        return sums + scored / max(math.ceil(scored / _ROWS[device]), 1) * found.vocabulary * (4 + (width if low else 0))
    positions = min(_ROWS[device], scored)
    return sums + positions * found.vocabulary * (2 * width + 8) + scored * found.hidden * (4 + 2 * width)


def features(recipe: TrainRecipe, found: Shape, what: Trained, work: Work, *, low: bool) -> dict[str, float]:
    """What a batch's time is made of: GFLOP of matrices, GFLOP of attention, GiB moved, layers run, parameters stepped."""
    spec, tokens = recipe.training, work.batch_tokens
    passes = 2 if what.adapter else 3
    passes += 1 if spec.gradient_checkpointing else 0
    passes += _FORWARDS.get(recipe.method, 0)
    body = 2e-9 * tokens * (found.active * passes + 3 * (what.parameters if what.adapter else 0))
    scored = 0.0 if recipe.method == "reward" else tokens * work.learned
    products = 2 if what.adapter else 4 if recipe.method in _FORWARDS else 3  # see training/kernels/chunked_head.py
    products += _FORWARDS.get(recipe.method, 0)
    head = 2e-9 * scored * found.vocabulary * found.hidden * products
    context = float((work.lengths.astype(np.float64) ** 2).mean() / work.lengths.mean())
    attention = 2e-9 * tokens * found.layers * found.queries * context * 3.5
    kept = _KEPT[low, what.adapter][0 if found.kind in _QK_NORM else 1]
    moved = tokens * found.layers * (kept[0] * found.hidden + kept[1] * found.intermediate + kept[2] * found.queries) * passes
    each = 24 + 12 * _FORWARDS.get(recipe.method, 0)  # bytes moved for a logit
    return {
        "matrices": body + head,
        "attention": attention,
        "moved": (moved + scored * found.vocabulary * each) / GIB,
        "layers": float(found.layers * passes) * (4 if recipe.quantization is not None else 1),
        "stepped": what.parameters / 1e9 / work.accumulation,
    }


_SPEEDS = {"matrices": 0.0017, "attention": 0.032, "moved": 0.28, "layers": 0.0016, "stepped": 30.0}
"""Seconds a unit of each feature on two cores that multiply bfloat16, fitted to sixteen runs of benchmarks/estimates.py."""
_FLOAT32 = 2.6
"""How many times as long matrices take in float32, by the same runs."""
_SLOW_BFLOAT16 = 1.64
"""How many times as long as in float32 they take in bfloat16, where that is no faster (docs/benchmarks.md, an Intel Xeon)."""
_GPU_SHARE = {"matrices": 0.4, "moved": 0.6}
"""Of the stated rates what trainings reach: an assumption (model FLOP utilisation of 0.3 to 0.5 is what the field reports)."""
_GPU_FLOAT32 = 10
"""How many times as long matrices take in float32 on a GPU: 16 by the data sheet of an A100, 2 of an RTX 4090."""
_GPU_LAYER = 0.0045
"""Seconds that the host takes to launch a layer's pass with LoRA: 0.25 s a step of 28 layers forward and back on an H200."""
_FORWARDS = {"dpo": 1, "orpo": 0, "reward": 0, "kto": 3}
"""Forward passes beside those that are learned from: a reference's, and KTO's of answers to other prompts by both."""
_FIRST_STEP = {"cpu": 3.0, "cuda": 5.0}
"""Seconds that the first step takes beyond the others, once a run: kernels are made in it."""


def _seconds(recipe: TrainRecipe, found: Shape, what: Trained, work: Work, there: Machine, *, low: bool) -> float:
    made = features(recipe, found, what, work, low=low)
    batches = work.steps * work.accumulation
    gpu = gpus.find(there.gpu or "") if there.device == "cuda" else None
    if gpu is not None:
        if recipe.quantization is not None:
            made["layers"] /= 4  # what four bits cost on a CPU; on a GPU they are one launch more for each linear layer
        return _batch(made, gpu, low=low) * batches
    if not low or not there.bfloat16:
        made["matrices"] *= _FLOAT32 * (_SLOW_BFLOAT16 if low else 1)
    batch = sum(_SPEEDS[name] * amount for name, amount in made.items()) * 2 / there.cores
    if there.device == "cuda":  # one that is not in the table: a hundred times two cores, until finished runs correct it
        batch *= there.cores / 200
    return batch * batches


def _batch(made: dict[str, float], gpu: gpus.Gpu, *, low: bool) -> float:
    """Seconds of a batch on a GPU of the table: what it computes, or what the host takes to launch that, if it is longer."""
    rate, moved = gpu.bf16 * _GPU_SHARE["matrices"] / (1 if low else _GPU_FLOAT32), gpu.bandwidth * _GPU_SHARE["moved"]
    products = (made["matrices"] + 2 * made["attention"]) * 1e9 / rate
    return max(products + (made["moved"] * GIB + made["stepped"] * 30e9) / moved, made["layers"] * _GPU_LAYER)


def work(recipe: TrainRecipe, lengths: np.ndarray, learned: float, *, end_to_end: bool | None = None) -> Work:
    """The batches that a recipe makes of rows.

    Args:
        recipe: what is left open counts as `auto` chooses it for models that can read rows end to end.
        lengths: tokens of each row, after `max_length`.
        learned: share of tokens that are learned.
        end_to_end: whether batches have no padding, where it is known.
    """
    spec = recipe.training
    end_to_end = recipe.end_to_end if end_to_end is None else end_to_end
    rows, accumulation = spec.per_device_train_batch_size, spec.gradient_accumulation_steps
    if spec.packing:
        bins = max(int(lengths.sum()) / recipe.data.max_length * 1.02, 1.0)
        rows = max(round(len(lengths) / bins * rows), 1)
    per_batch = rows
    if spec.max_tokens_per_batch is not None:
        per_batch = max(round(spec.max_tokens_per_batch / float(lengths.mean())), 1)
    batches = -(-len(lengths) // per_batch)
    steps = spec.max_steps if spec.max_steps > 0 else -(-int(spec.num_train_epochs * batches) // accumulation)
    sequences = 2 if recipe.method in ("dpo", "orpo", "reward") else 1
    return Work(lengths, learned, rows, max(steps, 1), accumulation, end_to_end, spec.max_tokens_per_batch, sequences)


def unquantized(recipe: TrainRecipe, found: Shape) -> str | None:
    """What of a mixture of experts `quantization` leaves as it is; None where it leaves nothing, or is not asked for."""
    if recipe.quantization is None or not found.experts:
        return None
    return (
        f"the experts ({found.experts:,} of {found.parameters:,} parameters) stay in 16 bits: bitsandbytes quantises linear "
        "layers, and transformers stores experts as parameters outside linear layers"
    )


def spread(rows: int, mean: float, bins: Sequence[tuple[int, int, int]], longest: int) -> np.ndarray:
    """Row lengths that a histogram could have come from, with its mean as far as the bins allow.

    Args:
        rows: how many.
        mean: tokens.
        bins: first and last length of each, and its rows.
        longest: no row is longer.
    """
    values = np.concatenate([np.linspace(first, min(last, longest), count) for first, last, count in bins if count])
    values = np.minimum(np.resize(values, rows) * (mean / values.mean()), longest)
    made: np.ndarray = np.maximum(values.round().astype(np.int64), 1)
    return made
