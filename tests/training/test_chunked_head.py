"""The head's own kernel against the logits themselves and against TRL's kernel: values, measures and gradients."""

from __future__ import annotations

from typing import Any

import pytest

ALL = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
COUNT, WIDTH, WORDS = 300, 32, 517


def drawn(dtype: Any, *, biased: bool = True) -> tuple[Any, Any, Any, Any]:
    """Hidden states, weight, bias and targets, with two equal rows of the head, so that some largest logits are shared."""
    import torch

    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn((COUNT, WIDTH), generator=draw).to(dtype)
    weight, bias = torch.randn((WORDS, WIDTH), generator=draw).to(dtype) / 4, torch.randn(WORDS, generator=draw).to(dtype)
    weight[7], bias[7] = weight[300], bias[300]
    return hidden, weight, bias if biased else None, torch.randint(0, WORDS, (COUNT,), generator=draw)


def plain(hidden: Any, weight: Any, bias: Any, targets: Any, scale: float) -> Any:
    """The log-probabilities from all logits."""
    logits = (hidden @ weight.t()).float()
    return ((logits if bias is None else logits + bias.float()) * scale).log_softmax(-1).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_head_scores_measures_and_learns_as_trls_does(half: bool, trained: bool) -> None:
    import torch
    from trl.kernels import ChunkedLogProbFunction

    from llmbench.training.kernels.chunked_head import score

    dtype = torch.bfloat16 if half else torch.float32
    hidden, weight, bias, targets = drawn(dtype)
    targets[:40] = torch.tensor([7, 300] * 20)
    hidden[:40] += weight[7] * 4
    factors = torch.rand(COUNT, generator=torch.Generator().manual_seed(1))
    found = []
    for ours in (True, False):
        given: list[Any] = [
            hidden.clone().requires_grad_(),
            weight.clone().requires_grad_(trained),
            bias.clone().requires_grad_(trained),
        ]
        if ours:
            out = score(given[0], given[1], given[2], targets, scale=0.8 / 0.9, asked=ALL)
        else:
            out = ChunkedLogProbFunction.apply(*given, targets, 0.9, 32768, None, 0.8, ALL)  # type: ignore[no-untyped-call]
        out[0].backward(factors)
        found.append(([one.detach().float() for one in out], [one.grad.float() for one in given if one.grad is not None]))
    (seen, slopes), (theirs, expected) = found
    assert len(slopes) == len(expected) == (3 if trained else 1)
    atol, rtol = (0.08, 0.03) if half else (2e-5, 1e-5)
    for mine, other in zip((*seen[:4], *slopes), (*theirs[:4], *expected), strict=True):
        assert torch.allclose(mine, other, atol=atol, rtol=rtol), (mine - other).abs().max()
    if not half:
        assert torch.equal(seen[4], theirs[4])
        assert 0 < seen[4].sum() < COUNT, "the first of equals is the likeliest"


@pytest.mark.parametrize("asked", [("log_probs",), ("log_probs", "mean_logits")], ids=["added up", "each its own factor"])
@pytest.mark.parametrize("biased", [False, True])
def test_the_gradients_of_a_trained_head_are_those_of_small_changes(
    asked: tuple[str, ...], biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from llmbench.training.kernels import chunked_head

    monkeypatch.setattr(chunked_head, "_ROWS", {"cpu": 3})
    draw = torch.Generator().manual_seed(2)
    hidden, weight, bias = (torch.randn(s, generator=draw, dtype=torch.float64) for s in ((7, 4), (11, 4), (11,)))
    targets = torch.randint(0, 11, (7,), generator=draw)
    given = tuple(x.requires_grad_() for x in (hidden, weight, *([bias] if biased else [])))

    def log_probs(*x: Any) -> Any:
        return chunked_head.score(x[0], x[1], x[2] if biased else None, targets, scale=1.3, asked=asked)[0]

    assert torch.autograd.gradcheck(log_probs, given, nondet_tol=1e-12)  # each position with a factor of its own
    assert torch.autograd.gradcheck(lambda *x: log_probs(*x).sum() / 3, given, nondet_tol=1e-12)  # the same one for all
    frozen = (given[0],)
    weight.requires_grad_(False), bias.requires_grad_(False)
    assert torch.autograd.gradcheck(lambda h: log_probs(h, weight, bias), frozen)


def test_a_head_may_be_gone_back_through_twice_and_with_no_position() -> None:
    import torch

    from llmbench.training.kernels.chunked_head import score

    hidden, weight, _, targets = drawn(torch.float32, biased=False)
    hidden.requires_grad_(), weight.requires_grad_()
    loss = -score(hidden, weight, None, targets)[0].mean()
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    again = torch.autograd.grad(loss, (hidden, weight))
    expected = torch.autograd.grad(-plain(hidden, weight, None, targets, 1.0).mean(), (hidden, weight))
    for mine, other, third in zip(first, again, expected, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)
        assert torch.allclose(mine, third, atol=1e-6)
    nothing = score(hidden[:0], weight, None, targets[:0])[0].sum()
    assert not any(one.any() for one in torch.autograd.grad(nothing, (hidden, weight)))


def test_a_loss_made_of_the_entropy_is_refused_rather_than_forgotten() -> None:
    import torch

    from llmbench.training.kernels.chunked_head import score

    hidden, weight, _, targets = drawn(torch.float32, biased=False)
    log_probs, entropy, *_ = score(hidden.requires_grad_(), weight, None, targets, asked=("log_probs", "entropy"))
    (log_probs.sum() + entropy.detach().sum()).backward(retain_graph=True)
    with pytest.raises(NotImplementedError, match="entropy"):
        (log_probs.sum() + entropy.sum()).backward()


def test_the_largest_room_is_that_of_a_few_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the positions take no larger tensor, whichever way the gradient is found."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from llmbench.training.kernels import chunked_head

    class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
        bytes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for one in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(one, torch.Tensor):
                    self.bytes = max(self.bytes, one.untyped_storage().nbytes())
            return out

    monkeypatch.setattr(chunked_head, "_ROWS", {"cpu": 16})
    seen = []
    for count in (40, 400):
        for asked in (("log_probs",), ALL):
            hidden, weight = torch.randn(count, 8, requires_grad=True), torch.randn(2000, 8, requires_grad=True)
            with Largest() as mode:  # type: ignore[no-untyped-call]
                out = chunked_head.score(hidden, weight, None, torch.zeros(count, dtype=torch.long), asked=asked)
                out[0].backward(torch.rand(count))
            seen.append(mode.bytes)
    assert max(seen) <= 16 * 2000 * 4 * 1.0, seen
