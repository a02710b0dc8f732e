"""The log-probabilities of given tokens under a head, and what is measured of each distribution, a few positions at a time.

For log p(t) = z_t - logsumexp(z) and z = k (W h + b) the gradient by h is k (W_t - W^T softmax(z)); by W it is k h in row t,
less k softmax(z) h^T. There are three ways to them. Each has the logits of `_ROWS` positions at a time and keeps none:

- A frozen head: once the logits of some positions are there, so is the gradient by h up to a factor for each position. Two
  products with W a position, where finding the logits again on the way back takes three.
- A trained head whose log-probabilities are added up, as in supervised fine-tuning: the factor is the same for every position,
  so the gradient by W is found on the way forward too. Three products.
- A trained head where each position has a factor of its own that is known on the way back alone, as in DPO: logits twice, four
  products.

What is measured costs hardly a pass over the logits: the mean logit is h times the mean row of W; and sum_j p_j z_j, of which
the entropy is made, is h times W^T softmax(z), which the gradient by h needs anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch

__all__ = ["MEASURED", "score"]

MEASURED = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""What can be asked for beside `log_probs`, as TRL names and orders it."""

_ROWS = {"cpu": 128, "cuda": 2048}
"""Positions at a time. On a CPU the float32 logits of 128 over 32,000 tokens are 16 MiB, which its cache still holds."""


def score(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    *,
    scale: float = 1.0,
    asked: tuple[str, ...] = ("log_probs",),
) -> tuple[Any, ...]:
    """The log-probability of each target, and what is measured of the distribution that it stands in.

    Args:
        hidden: (n, d), what the head reads at n positions.
        weight: (v, d); with `bias` the head. Products are in its precision, or in autocast's inside it.
        bias: (v), or None.
        targets: (n), a token for each position.
        scale: k, what logits are multiplied by.
        asked: outputs to compute, `log_probs` and any of `MEASURED`.

    Returns:
        `log_probs` (n), then each of `MEASURED` (n), None where it is not asked for; float32 (float64 of float64), `is_top1`
        bool. `log_probs` alone has a gradient.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        return tuple(_Chunked.apply(hidden, weight, bias, targets, scale, asked, dtype))  # type: ignore[no-untyped-call]


class _Chunked(torch.autograd.Function):
    """See `score`, whose arguments these are."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        scale: float,
        asked: tuple[str, ...],
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor | None, ...]:
        """Scores and measures, and finds the gradients that can be known already."""
        ctx.set_materialize_grads(False)
        by_hidden, by_weight, by_bias = ctx.needs_input_grad[:3]
        trained = by_weight or by_bias
        ahead = not trained or not set(MEASURED) & set(asked)  # sums of log-probabilities alone are asked for by themselves
        head = _Head(hidden, weight, bias, targets, scale, dtype)
        slopes = torch.empty_like(hidden) if by_hidden and ahead else None
        sums = _Sums(head, by_weight, by_bias) if trained and ahead else None
        found = {name: head.each(torch.bool if name == "is_top1" else None) for name in MEASURED if name in asked}
        scores, log_sums = head.each(), head.each()
        for part in head.parts():
            logits = head.logits(part)
            if "is_top1" in found:
                top, best = logits.max(1, keepdim=True)
                found["is_top1"][part] = best[:, 0] == targets[part]
            else:
                top = logits.amax(1, keepdim=True)
            score = logits.sub_(top).gather(1, targets[part, None])[:, 0]
            shares = logits.exp_()
            total = shares.sum(1)
            scores[part], log_sums[part] = score - total.log(), total.log() + top[:, 0]
            pull = head.pull(shares).div_(total[:, None]) if slopes is not None else None
            _measure(found, part, head, shares, total, log_sums[part], pull)
            if sums is not None:
                sums.less(shares, part, 1 / total)
            if slopes is not None:
                assert pull is not None
                slopes[part] = head.weight[targets[part]].to(pull.dtype).sub_(pull).mul_(scale)
        if sums is not None:
            sums.more(None)
        ctx.scale, ctx.dtype, ctx.sums, ctx.trained = scale, dtype, sums, trained
        ctx.save_for_backward(slopes, *((hidden, weight, bias, targets, log_sums) if trained else ()))
        ctx.mark_non_differentiable(*(value for name, value in found.items() if name != "entropy"))
        return scores, *(found.get(name) for name in MEASURED)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """The gradients by `hidden`, `weight` and `bias`."""
        if gradients[1] is not None:
            raise NotImplementedError("the entropy of a chunked head has no gradient")
        factors = gradients[0]
        if factors is None:
            return (None,) * 7
        slopes, *inputs = ctx.saved_tensors
        sums, ctx.sums = ctx.sums, None  # which are multiplied in place, so that a second way back finds them anew
        if ctx.trained and (sums is None or not len(factors) or bool((factors != factors[0]).any())):
            return *_again(ctx, factors, *inputs), None, None, None, None
        by_hidden = None if slopes is None else slopes * factors[:, None].to(slopes.dtype)
        return by_hidden, *(sums.times(factors[0]) if sums is not None else (None, None)), None, None, None, None


class _Head:
    """A head's products with some positions at a time, in rooms that are used again for the next ones."""

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> None:
        self.dtype, self.wide = dtype, torch.promote_types(dtype, torch.float32)
        self.hidden, self.weight, self.targets, self.scale = hidden, weight.to(dtype), targets, scale
        self.bias = None if bias is None else bias.to(self.wide)
        count, most = len(hidden), _ROWS[hidden.device.type]
        self.rows = -(-count // -(-count // most)) if count else 1  # parts of equal size: a small last one is slow
        self._shares = torch.empty(self.rows, len(weight), device=hidden.device, dtype=self.wide)
        self._products = self._shares if self.dtype == self.wide else torch.empty_like(self._shares, dtype=self.dtype)

    @cached_property
    def mean_row(self) -> torch.Tensor:
        """The mean row of W."""
        return self.weight.mean(0, dtype=self.wide)

    def each(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Room for a number of each position."""
        return torch.empty(len(self.hidden), device=self.hidden.device, dtype=dtype or self.wide)

    def parts(self) -> Iterator[slice]:
        """Positions, so many at a time."""
        return (slice(start, start + self.rows) for start in range(0, len(self.hidden), self.rows))

    def logits(self, part: slice) -> torch.Tensor:
        """k (W h + b) of some positions, in wide numbers, until the next are asked for."""
        inputs = self.hidden[part].to(self.dtype)
        products, logits = self._products[: len(inputs)], self._shares[: len(inputs)]
        torch.mm(inputs, self.weight.t(), out=products)
        if self._products is not self._shares:
            logits.copy_(products)
        if self.bias is not None:
            logits.add_(self.bias)
        return logits if self.scale == 1 else logits.mul_(self.scale)

    def narrow(self, shares: torch.Tensor) -> torch.Tensor:
        """The same in the precision of products."""
        return shares if self._products is self._shares else self._products[: len(shares)].copy_(shares)

    def pull(self, shares: torch.Tensor) -> torch.Tensor:
        """The rows of W, mixed by shares."""
        return torch.mm(self.narrow(shares), self.weight).to(self.wide)


class _Sums:
    """The gradients by a head's weight and bias, added up in wide numbers over positions with factors."""

    def __init__(self, head: _Head, by_weight: bool, by_bias: bool) -> None:
        self.head = head
        self.by_weight = torch.zeros_like(head.weight, dtype=head.wide) if by_weight else None
        self.by_bias = torch.zeros_like(head.weight[:, 0], dtype=head.wide) if by_bias else None

    def less(self, shares: torch.Tensor, part: slice, factors: torch.Tensor) -> None:
        """Takes away k shares h^T of some positions, times a factor each."""
        head = self.head
        if self.by_weight is not None:
            narrow, inputs = head.narrow(shares), (head.hidden[part].to(head.wide) * factors[:, None]).to(head.dtype)
            if head.dtype == head.wide:
                self.by_weight.addmm_(narrow.t(), inputs, alpha=-head.scale)
            else:
                self.by_weight.add_(torch.mm(narrow.t(), inputs), alpha=-head.scale)
        if self.by_bias is not None:
            self.by_bias.addmv_(shares.t(), factors, alpha=-head.scale)

    def more(self, factors: torch.Tensor | None) -> None:
        """Adds k h in the rows of the targets, of every position; times a factor each."""
        head = self.head
        for part in head.parts():
            targets = head.targets[part]
            each = torch.ones(len(targets), device=targets.device, dtype=head.wide) if factors is None else factors[part]
            if self.by_weight is not None:
                self.by_weight.index_add_(0, targets, head.hidden[part].to(head.wide) * each[:, None], alpha=head.scale)
            if self.by_bias is not None:
                self.by_bias.index_add_(0, targets, each.to(head.wide), alpha=head.scale)

    def times(self, factor: torch.Tensor | float = 1.0) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Both, times a factor."""
        by_weight, by_bias = (None if one is None else one.mul_(factor) for one in (self.by_weight, self.by_bias))
        return by_weight, by_bias


def _measure(
    found: dict[str, torch.Tensor],
    part: slice,
    head: _Head,
    shares: torch.Tensor,
    total: torch.Tensor,
    log_sums: torch.Tensor,
    pull: torch.Tensor | None,
) -> None:
    """Measures some positions by exp(z - max z), its sum and log sum exp z; `pull` is W^T softmax(z) where that is known."""
    hidden = head.hidden[part].to(head.wide)
    if "entropy" in found:
        if pull is None:
            entropy = total.log() + torch.special.entr(shares).sum(1) / total
        else:
            mean = (hidden * pull).sum(1)  # logit by softmax(z)
            mean = mean if head.bias is None else mean + (shares @ head.bias) / total
            entropy = log_sums - mean * head.scale
        found["entropy"][part] = entropy.clamp_(min=0)
    if "log_sum_sq_probs" in found:
        found["log_sum_sq_probs"][part] = 2 * (torch.linalg.vector_norm(shares, dim=1) / total).log()
    if "mean_logits" in found:
        mean = hidden @ head.mean_row
        found["mean_logits"][part] = (mean if head.bias is None else mean + head.bias.mean()) * head.scale


def _again(
    ctx: Any,
    factors: torch.Tensor,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    log_sums: torch.Tensor,
) -> tuple[torch.Tensor | None, ...]:
    """The gradients by hidden, weight and bias, with each position's own factor, from logits that are found again."""
    by_hidden, by_weight, by_bias = ctx.needs_input_grad[:3]
    head = _Head(hidden, weight, bias, targets, ctx.scale, ctx.dtype)
    sums, slopes = _Sums(head, by_weight, by_bias), torch.empty_like(hidden) if by_hidden else None
    for part in head.parts():
        shares = head.logits(part).sub_(log_sums[part, None]).exp_()
        sums.less(shares, part, factors[part])
        if slopes is not None:
            slope = head.weight[targets[part]].to(head.wide).sub_(head.pull(shares))
            slopes[part] = slope.mul_(factors[part, None] * ctx.scale)
    sums.more(factors)
    return slopes, *sums.times()
