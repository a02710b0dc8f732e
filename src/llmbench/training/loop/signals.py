"""What a training leaves for whoever diagnoses it: figures that are there already in each step, read when a line is logged.

Nothing here draws a random number or touches a gradient, so losses and weights stay as they are, bit by bit. A step keeps
two numbers where they are, on the device; at a logged step each layer's gradient and LoRA's B matrices are measured.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["RowLosses", "Signals", "is_spike"]

_LAYER = re.compile(r"\.(?:layers|layer|h|blocks|block)\.(\d+)\.")
_WINDOW, _FEWEST = 16, 8
_MOST_SPIKES = 40
"""Spikes of a run whose rows are looked up: each draws the order of the batches anew."""
_MOST_PLACES = 64
_MOST_STEPS = 64
"""Steps of one line whose losses are written one by one; a line stays below 2 kB."""
_MOST_ROWS = 2_000
"""Held-out rows whose losses are kept, the first of an evaluation."""
_MANY_SIGMA, _RISE = 5.0, 0.5


def is_spike(value: float, before: Sequence[float]) -> bool:
    """Whether a loss stands out above the 16 before it: by 5 robust standard deviations (MAD) and half of their median.

    It only decides whose rows are noted; a diagnosis looks at both sides of a step and asks for more.
    """
    if len(before) < _FEWEST or not math.isfinite(value):
        return False
    middle = statistics.median(before)
    sigma = 1.4826 * statistics.median(abs(one - middle) for one in before)
    return value > middle + max(_MANY_SIGMA * sigma, _RISE * abs(middle), 1e-3)


class Signals:
    """Collects between two logged steps. `look` is called once a step, `take` when a line is written."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._norms: list[torch.Tensor] = []
        self._tokens: list[torch.Tensor] = []
        self._before: deque[float] = deque(maxlen=_WINDOW)
        self._spikes = 0
        self._measured: dict[str, Any] = {}
        self._groups: dict[str, list[Any]] = {}

    def batch(self, inputs: Any) -> None:
        """Counts the tokens of a batch and those that are learned. Prompts that wait for answers, as of GRPO, have none."""
        if not isinstance(inputs, Mapping):
            return
        labels, mask = inputs.get("labels"), inputs.get("attention_mask")
        if isinstance(labels, torch.Tensor) and isinstance(mask, torch.Tensor) and labels.shape == mask.shape:
            self._tokens.append(torch.stack([(labels != -100).sum(), mask.sum()]))

    def look(self, trainer: Any, norm: Any) -> None:
        """Keeps the step's loss and norm; before a logged step's update, measures each layer's gradient."""
        if trainer.ranks.alone:  # of several processes each has the loss of its own rows
            self._losses.append(trainer._last_loss)
            self._norms.append(torch.as_tensor(norm, dtype=torch.float32).detach().reshape(()))
        number = int(trainer.state.global_step) + 1
        logged = number == 1 or number % trainer.args.logging_steps == 0 or number >= trainer.state.max_steps
        if logged and trainer.recipe.distributed.strategy != "deepspeed":  # which has gradients in flat shares by now
            self._measured = self._measure(trainer, float(norm))

    def take(self, trainer: Any, step: int) -> dict[str, Any]:
        """The fields of a logged line, and begins anew.

        `losses` and `norms` of each step since the last line, where there are several; `layers` with the norm of each layer's
        gradient before clipping; `lora_b` with the norm of each layer's B matrices before this step's update, and
        `lora_b_zero` with the names of those that are zero; `half_rms` of trained weights of 16 bits; `learned`, the share of
        tokens that are learned; `skipped` steps, whose gradient was not finite; `spikes` with their rows.
        """
        losses, norms = _numbers(self._losses), _numbers(self._norms)
        found: dict[str, Any] = {}
        if 1 < len(losses) <= _MOST_STEPS:
            found |= {"losses": [_short(one) for one in losses], "norms": [_short(one) for one in norms]}
        found |= self._measured
        if self._tokens:
            learned, seen = torch.stack(self._tokens).sum(0).tolist()
            found["learned"] = round(learned / max(seen, 1), 5)
        skipped = sum(not math.isfinite(one) for one in norms)
        found |= {"skipped": skipped} if skipped else {}
        spikes = self._found(trainer, step - len(losses), losses, norms)
        found |= {"spikes": spikes} if spikes else {}
        self._losses, self._norms, self._tokens, self._measured = [], [], [], {}
        return found

    def _found(self, trainer: Any, done: int, losses: list[float], norms: list[float]) -> list[dict[str, Any]]:
        """The steps that stand out above those before them, with the rows of their batches."""
        spikes = []
        for number, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            if self._spikes < _MOST_SPIKES and is_spike(loss, self._before):
                self._spikes += 1
                typical = statistics.median(self._before)
                spikes.append(
                    {"step": done + number + 1, "loss": _short(loss), "typical": _short(typical), "norm": _short(norm)}
                    | {"rows": trainer.places(done + number)[:_MOST_PLACES]}
                )
            elif math.isfinite(loss):
                self._before.append(loss)
        return spikes

    def _measure(self, trainer: Any, norm: float) -> dict[str, Any]:
        if not self._groups:
            self._groups = _by_layer(trainer.model.named_parameters())
        most = float(trainer.args.max_grad_norm)
        clipped = most / (norm + 1e-6) if 0 < most < norm else 1.0  # as torch clips, which was done by now
        layers = {}
        for layer, named in self._groups.items():
            grads = [p.grad for _, p in named if p.grad is not None]
            if grads:
                layers[layer] = _short(_norm(grads) / clipped)
        found: dict[str, Any] = {"layers": layers} if layers else {}
        return found | self._adapter() | self._halves()

    def _adapter(self) -> dict[str, Any]:
        """The norms of LoRA's B matrices by layer, and which of them are zero."""
        matrices = {
            layer: kept
            for layer, named in self._groups.items()
            if (kept := [(name, p.detach()) for name, p in named if ".lora_B." in name or ".lora_embedding_B." in name])
        }
        if not matrices:
            return {}
        each = [(layer, name, one) for layer, named in matrices.items() for name, one in named]
        norms = _numbers([torch.linalg.vector_norm(_whole(one).float()) for *_, one in each])
        sums: dict[str, float] = defaultdict(float)
        for (layer, *_), norm in zip(each, norms, strict=True):
            sums[layer] += norm**2
        still = [_name(name) for (_, name, _), norm in zip(each, norms, strict=True) if norm == 0.0]
        found: dict[str, Any] = {"lora_b": {layer: _short(math.sqrt(one)) for layer, one in sums.items()}}
        return found | ({"lora_b_zero": {"count": len(still), "of": len(each), "names": still[:8]}} if still else {})

    def _halves(self) -> dict[str, Any]:
        """How large trained weights of 16 bits are, beside which an update may be too small to be held."""
        halves = [p.detach() for named in self._groups.values() for _, p in named if p.dtype in (torch.bfloat16, torch.float16)]
        if not halves:
            return {}
        count = sum(p.numel() for p in halves)
        return {"half_rms": _short(_norm(halves) / math.sqrt(count)), "half_dtype": str(halves[0].dtype).removeprefix("torch.")}


class RowLosses:
    """The held-out loss of each row of an evaluation, in the evaluation's order, which is the same each time."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.tokens: list[int] = []

    def take(self, log_probs: torch.Tensor, inputs: dict[str, Any]) -> None:
        """One batch: log-probabilities of shape (rows, length - 1), 0 where nothing is learned; or of rows end to end.

        With prompt tuning they begin with those of the prompt's own vectors, which are none of the row's.
        """
        if len(self.losses) >= _MOST_ROWS:
            return
        learned = inputs["labels"][:, 1:] != -100
        scores = torch.where(learned, log_probs[:, -learned.shape[1] :].detach().float(), 0.0)
        if "cu_seq_lens_q" in inputs:
            ends = inputs["cu_seq_lens_q"][1:].long() - 1
            sums, counts = (torch.cat([one.new_zeros(1), one[0].cumsum(0)]) for one in (scores.double(), learned.long()))
            sums, counts = (one[ends].diff(prepend=one.new_zeros(1)) for one in (sums, counts))
        else:
            sums, counts = scores.double().sum(1), learned.sum(1)
        for score, count in zip(sums.tolist(), counts.tolist(), strict=True):
            if count and len(self.losses) < _MOST_ROWS:
                self.losses.append(_short(-score / count) or 0.0)
                self.tokens.append(int(count))


def _by_layer(named: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    """The trained parameters of each layer, by its number; `other` are those that stand outside the layers."""
    groups: dict[str, list[Any]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            found = _LAYER.search(name)
            groups.setdefault(found[1] if found else "other", []).append((name, parameter))
    return groups


def _name(name: str) -> str:
    """`base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight` -> `layers.0.self_attn.q_proj`."""
    return re.sub(r"^(base_model\.)?(model\.)*|\.lora_(embedding_)?B\..*$", "", name)


def _norm(tensors: list[Any]) -> float:
    return float(_whole(torch.nn.utils.get_total_norm(tensors)))


def _whole(tensor: Any) -> Any:
    """A tensor that is spread over processes, put together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _numbers(tensors: list[Any]) -> list[float]:
    """The values of scalars, fetched at once."""
    return torch.stack([one.float().reshape(()) for one in tensors]).tolist() if tensors else []


def _short(value: float) -> float | None:
    """Five figures; JSON has no infinity."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
