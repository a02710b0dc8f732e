"""Gradients by layer and over time: zero, vanishing, exploding, or clipped in every step."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "found", "unseen"]

KINDS = {
    "zero gradients": "No gradient reached any weight, in any step or to the end.",
    "layer without gradient": "Some layers have trained weights and get no gradient.",
    "vanishing gradients": "The gradient of some layers is a thousandth of that of the others, or less.",
    "exploding gradients": "The gradient grew by orders of magnitude, in the whole or in some layers.",
    "clipped throughout": "Nearly every step was clipped to a small part of its gradient, so that the limit sets the "
    "step's size.",
}
_FAR = 1e3
"""Ratio of a layer to the median layer. Layers of models that train well lie within a factor of 30 of each other: of the
bundled one within 5, with pre-norm and any depth within about the depth (Xiong et al. 2020)."""
_GREW = 20.0
_CLIPPED = 20.0
"""Norm over max_grad_norm that counts as mostly cut. Adam does not see how long a gradient is, and 2 to 5 are common."""


def found(of: Traces) -> Iterator[Finding]:
    """Findings about gradients."""
    norms = [point.norm for point in of.points if point.norm is not None]
    if norms and len(norms) > 1 and not any(norms[len(norms) // 2 :]):
        since = next((p.step for i, p in enumerate(of.points) if not any(q.norm for q in of.points[i:])), of.step)
        yield Finding(
            "zero gradients", "error",
            f"The gradient norm was 0 from step {since} to {of.step}: nothing was learned there.",
            "Make sure that the rows have learned tokens and that what is trained is used; llmbench train RECIPE "
            "--dry-run names the "
            "weights without a gradient.", steps=(since,), figures={"since": since},
        )  # fmt: skip
        return
    yield from _by_layer(of)
    yield from _grown(of, norms)
    yield from _clipped(of, norms)


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    if of.points and not of.has("layers"):
        yield "gradients by layer: not recorded"


def _layers(of: Traces) -> list[tuple[int, dict[str, float]]]:
    """Step and each layer's norm, without the first line, in which LoRA's A matrices have no gradient yet."""
    return [(row["step"], row["layers"]) for row in of.logged if row["step"] > 1 and len(row.get("layers") or ()) > 2]


def _by_layer(of: Traces) -> Iterator[Finding]:
    rows = _layers(of)
    if len(rows) < 2:
        return
    names = [name for name in rows[-1][1] if name != "other"]
    middle = {name: median([row.get(name) or 0.0 for _, row in rows]) for name in names}
    usual = median(middle.values())
    silent = [name for name in names if middle[name] == 0.0]
    small = [name for name in names if 0 < middle[name] * _FAR < usual]
    large = [name for name in names if middle[name] > _FAR * usual > 0]
    if silent and len(silent) < len(names):
        yield Finding(
            "layer without gradient", "warning",
            f"{_listed(silent)} of {len(names)} layers got no gradient in the {len(rows)} steps that were looked at; "
            "the median layer "
            f"has {usual:.3g}.",
            "Take these layers out of what is trained, or see what keeps the loss from depending on them.",
            (f"lora.layers_to_transform={[int(n) for n in names if n not in silent]}",) if of.recipe.get("lora") else (),
            figures={"layers": silent, "median": usual},
        )  # fmt: skip
    for name, layers, way in (("vanishing gradients", small, "below"), ("exploding gradients", large, "above")):
        if layers:
            worst = (min if way == "below" else max)(layers, key=lambda one: middle[one])
            yield Finding(
                name,
                "warning",
                f"{_listed(layers)} of {len(names)} layers: the gradient of layer {worst} is {middle[worst]:.2g}, that "
                "of the median "
                f"layer {usual:.2g}, over {len(rows)} steps.",
                "Look for a layer that is damaged or saturated (llmbench check looks through the weights), or train "
                "fewer layers."
                if way == "below"
                else "Lower the rate and max_grad_norm, and look for damaged weights in this layer.",
                (f"training.max_grad_norm={float(of.training['max_grad_norm']) / 2:g}",) if way == "above" else (),
                figures={"layers": {one: middle[one] for one in layers}, "median": usual},
            )


def _grown(of: Traces, norms: list[float]) -> Iterator[Finding]:
    if len(norms) < 20:
        return
    part = len(norms) // 5
    early, late = median(norms[len(norms) // 10 : len(norms) // 10 + part]), median(norms[-part:])
    if late > _GREW * early and late > 5 * float(of.training["max_grad_norm"]):
        yield Finding(
            "exploding gradients", "error",
            f"The gradient norm grew from {early:.3g} to {late:.3g} (medians of the first and the last fifth).",
            "Lower the rate to a third and lengthen the warm-up.",
            (f"training.learning_rate={float(of.training['learning_rate']) / 3:.2g}", "training.warmup_steps=0.1"),
            figures={"early": early, "late": late},
        )  # fmt: skip


def _clipped(of: Traces, norms: list[float]) -> Iterator[Finding]:
    most = float(of.training["max_grad_norm"])
    if len(norms) < 20 or most <= 0:
        return
    cut = sum(norm > most for norm in norms) / len(norms)
    if cut >= 0.95 and median(norms) > _CLIPPED * most:
        yield Finding(
            "clipped throughout", "warning",
            f"{cut:.0%} of the steps were clipped to {most:g}; the median gradient norm is {median(norms):.3g}, so the "
            "limit sets the "
            "size of the steps.",
            "Raise max_grad_norm to about the usual norm; where the loss is restless, lower the rate.",
            (f"training.max_grad_norm={_round(median(norms)):g}",), figures={"share": cut, "median": median(norms)},
        )  # fmt: skip


def _round(value: float) -> float:
    return float(f"{value:.1g}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return f"Layer{'s' * (len(names) > 1)} {shown}" + (f" and {len(names) - 6} more" if len(names) > 6 else "")
