"""Whether what was read back from an exported folder is what the trained model says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from llmbench import provenance
from llmbench.exporting import proof
from llmbench.exporting.material import Material, Reference
from llmbench.exporting.merged import ALLOWED
from llmbench.exporting.proof import Compared, Proof
from llmbench.exporting.protocol import Format
from llmbench.exporting.values import Allowance, Heard
from llmbench.training.merging import probes
from llmbench.training.merging.probes import Answers, Distance

__all__ = ["judge", "unreadable"]

_SAME = 1e-8
"""Below this mean KL two models are the same: the digits of float32."""
_SIZE = 0.25
_BESIDE = 2_000_000
"""Bytes of a weights file that are no weights: headers, and what a GGUF holds of a tokenizer is counted apart."""


def judge(made: Format, precision: str, material: Material, folder: Path, heard: Heard) -> Proof:
    """The proof of an exported folder.

    Args:
        made: the format.
        precision: of the export.
        material: with the trained model's own answers.
        folder: what was written.
        heard: what it says.
    """
    reference = material.reference()
    allowed = _allowed(made.tolerance(precision), reference)
    figures = _figures(reference, heard) | heard.figures
    checks = [
        _tokens(reference, heard),
        *_logits(figures, allowed, reference),
        _effect(figures, reference),
        _greedy(reference, heard, allowed, figures),
        _stops(reference, heard),
        _template(reference, heard),
        _tied(material, heard),
        _size(made, precision, material, folder),
        *heard.further,
    ]
    return _proof(made, precision, material, folder, checks, figures)


def unreadable(made: Format, precision: str, material: Material, folder: Path, reason: str) -> Proof:
    """The proof of a folder that its own reader refuses: a failed one."""
    return _proof(made, precision, material, folder, [Compared("reading", False, reason)], {})


def _proof(
    made: Format, precision: str, material: Material, folder: Path, checks: list[Compared], figures: dict[str, Any]
) -> Proof:
    reference, source = material.reference(), material.source
    asked_with = {
        "dtype": _name(reference.dtype),
        "device": material.device,
        "prompts": len(reference.probes.prompts),
        "rows": reference.rows,
        "positions": sum(map(len, reference.probes.sequences)),
        "texts": len(reference.probes.texts),
        "onto": material.way,
    }
    origin: dict[str, Any] = {"run": source.run.name, "step": source.step, "base": source.spec.model_name_or_path}
    if source.adapts:
        origin["adapter"] = provenance.adapter_id(source.folder)
    return Proof(
        made.name, precision, origin, asked_with, tuple(checks), figures, proof.files_of(folder), provenance.versions()
    )  # fmt: skip


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _allowed(of_format: Allowance, reference: Reference) -> Allowance:
    """What the format may round, or the precision in which the trained model was asked if that is coarser."""
    own = ALLOWED[_name(reference.dtype)]
    return Allowance(
        max(of_format.kl, own.kl), max(of_format.logit, own.logit), min(of_format.agreement, own.agreement)
    )  # fmt: skip


def _figures(reference: Reference, heard: Heard) -> dict[str, Any]:
    """The numbers that the checks judge."""
    one, other = _tensors(reference.heard, heard.normalised), _tensors(heard, False)
    width = min(one[0].shape[-1], other[0].shape[-1])
    lost = _far(one, other)
    same = sum(int((a[:, :width].argmax(-1) == b[:, :width].argmax(-1)).sum()) for a, b in zip(one, other, strict=True))
    found: dict[str, Any] = {"lost": _plain(lost), "agreement": same / sum(map(len, one))}
    if reference.base is not None:
        base = [values.log_softmax(-1) if heard.normalised else values for values in reference.base]
        found |= {"trained": _plain(_far(one, base)), "from_base": _plain(_far(base, other))}
    return found


def _tensors(heard: Heard, normalise: bool) -> list[torch.Tensor]:
    found = [torch.from_numpy(values) for values in heard.logits]
    return [values.log_softmax(-1) for values in found] if normalise else found


def _far(one: list[torch.Tensor], other: list[torch.Tensor]) -> Distance:
    return probes.distance(Answers(one, []), Answers(other, []))


def _plain(far: Distance) -> dict[str, float]:
    return {"kl": far.kl, "logit": far.logit}


def _tokens(reference: Reference, heard: Heard) -> Compared:
    texts = reference.probes.texts
    if not heard.tokens:
        return Compared("tokens", None, "the format holds no tokenizer")
    wrong = [(one, list(ids)) for one, ids in zip(texts, heard.tokens, strict=True) if list(one.ids) != list(ids)]
    if not wrong:
        return Compared("tokens", True, f"the same ids for {len(texts)} texts, {sum(len(one.ids) for one in texts):,} tokens")
    one, ids = wrong[0]
    at = next((i for i, (a, b) in enumerate(zip(one.ids, ids, strict=False)) if a != b), min(len(one.ids), len(ids)))
    return Compared(
        "tokens", False,
        f"other ids for {len(wrong)} of {len(texts)} texts, first for {one.text[:40]!r} at token {at}: "
        f"{list(ids[at : at + 4])} instead of {list(one.ids[at : at + 4])}",
    )  # fmt: skip


def _logits(figures: dict[str, Any], allowed: Allowance, reference: Reference) -> Iterator[Compared]:
    lost, limit = Distance(**figures["lost"]), Distance(allowed.kl, allowed.logit)
    yield Compared("logits", lost.kl <= limit.kl and lost.logit <= limit.logit, str(lost), str(limit))
    agreed: float = figures["agreement"]
    positions = sum(map(len, reference.probes.sequences))
    yield Compared(
        "agreement", agreed >= allowed.agreement, f"the same likeliest token at {agreed:.1%} of {positions:,} positions",
        f"{allowed.agreement:.0%} or more",
    )  # fmt: skip


def _effect(figures: dict[str, Any], reference: Reference) -> Compared:
    """An export that lost what was trained is nearer to the base than to the trained model."""
    if reference.base is None:
        return Compared("effect", None, "the base is not here, so what the training did is not known")
    trained, lost, from_base = (Distance(**figures[key]) for key in ("trained", "lost", "from_base"))
    if trained.kl < _SAME:
        return Compared("effect", False, f"the training changed nothing ({trained} from the base)")
    return Compared(
        "effect", lost.kl < from_base.kl and from_base.kl > _SAME,
        f"KL {lost.kl:.1e} from the trained model, {from_base.kl:.1e} from its base; the training made {trained.kl:.1e}",
        "nearer to the trained model",
    )  # fmt: skip


def _greedy(reference: Reference, heard: Heard, allowed: Allowance, figures: dict[str, Any]) -> Compared:
    """Answers may part only where the trained model's two likeliest tokens are nearer than the logits may be off."""
    stops, same, early = reference.heard.stops, 0, []
    limit = min(2 * allowed.logit, 2 * figures["lost"]["logit"] + 1e-6)
    for i, (wanted, found) in enumerate(zip(reference.heard.greedy, heard.greedy, strict=True)):
        cut = next((k + 1 for k, token in enumerate(found) if token in stops), len(found))
        found = found[:cut]
        if found == wanted:
            same += 1
            continue
        at = next((k for k, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(len(wanted), len(found)))
        if at < len(wanted) and _lead(reference, i, at) > limit:
            early.append(i)
    figures["greedy_same"] = same
    total = len(reference.heard.greedy)
    said = f"{same} of {total} answers are the same"
    if same < total and not early:
        said += "; the others diverge where the two likeliest tokens are within rounding of each other"
    return Compared("greedy", not early, said, "" if not early else "diverging only where the next token is a near tie")


def _lead(reference: Reference, i: int, at: int) -> float:
    """By how much the logit of what the trained model wrote, at a place of its answer, leads the next best."""
    row = torch.from_numpy(reference.heard.logits[i])[reference.probes.prompts[i] + at - 1]
    two = row.topk(2).values
    return float(two[0] - two[1])


def _stops(reference: Reference, heard: Heard) -> Compared:
    wanted, found = sorted(reference.heard.stops), sorted(heard.stops)
    also = f"; its reader also at {sorted(heard.also_stops)}, by their names" if heard.also_stops else ""
    return Compared("stops", found == wanted, f"stops at {found}{also}", "" if found == wanted else f"{wanted}")


def _template(reference: Reference, heard: Heard) -> Compared:
    wanted, found = reference.heard.template, heard.template
    if wanted is None and not found:
        return Compared("template", None, "the model has no chat template")
    holds = (wanted or "").strip() == (found or "").strip()
    return Compared("template", holds, "the same text" if holds else "another text" if found else "no chat template")


def _tied(material: Material, heard: Heard) -> Compared:
    if heard.tied is None or material.tied is None:
        return Compared("tied", None, "the format does not say whether the head is the embedding")
    words = {True: "the head is the embedding", False: "the head is a matrix of its own"}
    return Compared("tied", heard.tied == material.tied, words[heard.tied], "" if heard.tied == material.tied else "as trained")


def _size(made: Format, precision: str, material: Material, folder: Path) -> Compared:
    wanted = made.expected_bytes(material, precision)
    found = sum(path.stat().st_size for path in made.weight_files(folder))
    low, high = (1 - _SIZE) * wanted, (1 + _SIZE) * wanted + _BESIDE
    return Compared("size", low <= found <= high, f"{_bytes(found)} of weights", f"{_bytes(low)} to {_bytes(high)}")


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:,.2f} GB"
