"""An adapter made part of its base, proven: the merged model is loaded again from disk and compared before it is kept.

Base, base + adapter and merged model answer the same probe texts. A merge that equals the base, or that is farther from
base + adapter than rounding explains, is an error, and nothing is left behind.
"""

from __future__ import annotations

import gc
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llmbench import parity, provenance, written
from llmbench.errors import LlmbenchError, RunError
from llmbench.parity import Certificate
from llmbench.recipe.servability import remedy
from llmbench.runs import Run
from llmbench.training import certificate, quiet, save
from llmbench.training.loading.model import load_base
from llmbench.training.loop.checkpoint import sync
from llmbench.training.merging import probes, weights
from llmbench.training.merging.probes import Distance
from llmbench.training.merging.weights import Onto, Plan, Way

__all__ = ["Merged", "Onto", "merge"]

_SAME = 1e-8
"""Below this mean KL two models are the same: the digits of float32."""


@dataclass(frozen=True)
class Merged:
    """A merged model's folder and the proof of it."""

    folder: Path
    dtype: str
    onto: Way
    trained: Distance
    """From the base to base + adapter: what the training did."""
    lost: Distance
    """From base + adapter to the merged model as loaded again from disk."""
    tolerance: Distance
    """What `lost` may be."""
    candidates: dict[str, Distance]
    """For a quantised base: `lost` of each way to merge, in memory."""
    greedy_same: int
    """Probe texts after which base + adapter and the merged model write the same 16 tokens."""
    greedy_changed: int
    """Probe texts after which base and base + adapter do not."""
    texts: int
    rows: int
    """How many of the probe texts are rows of the training's data."""

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"folder": str(self.folder)}


def merge(
    run: Run, *, output: Path | None = None, dtype: str | None = None, onto: Onto = "auto", overwrite: bool = False
) -> Merged:
    """Merges a run's adapter into its base and writes the model, if it proves to be what was trained.

    Args:
        run: a finished run with an adapter.
        output: the folder to write; `merged/` in the run's folder if not given.
        dtype: precision of the merged weights; the base's own if not given, the computation's for a quantised base.
        onto: for a quantised base: its weights as they were trained on (dequantized), the unrounded ones (original), or
            whichever comes closer to base + adapter.
        overwrite: replace a folder that is there.

    Raises:
        LlmbenchError: the run has nothing to merge, its base changed, the merge failed its proof, or the disk is full.
    """
    target = (output or run.folder / "merged").absolute()
    if target.exists() and not overwrite:
        raise LlmbenchError(f"{target} already exists. Replace it with --overwrite, or choose another folder with --output")
    written.refuse(target)
    quiet.libraries()
    _check(run)
    plan = weights.plan(run, run.adapter, dtype=dtype, onto=onto)
    texts, rows = probes.texts(run.recipe, plan.tokenizer)
    base, adapted, model = weights.trained(plan, texts, plan.trained_in if plan.few_bits else plan.dtype)
    certified = _certificate(model, plan)
    trained = probes.distance(base, adapted)
    if trained.kl < _SAME:
        raise LlmbenchError(
            f"{run.adapter}: the adapter changes nothing ({trained} from the base), so the merged model would equal the "
            f"base. Train for longer, or with a higher learning rate"
        )
    candidates: dict[str, Distance] = {}
    way: Way = "base"
    if plan.few_bits:
        del model
        way, candidates, model = weights.onto(plan, onto, texts, adapted)
    else:
        model = weights.merged(model, plan.dtype)
    part = target.parent / f".{target.name}.part"
    written.begin(part)
    with save.whole(part, target):
        weights.write(model, plan, part)
        del model
        gc.collect()
        again = probes.answers(load_base(plan.spec, part, plan.device, plan.dtype).to(plan.device), texts, plan.dtype)
        lost = probes.distance(adapted, again)
        result = Merged(
            target, str(plan.dtype).removeprefix("torch."), way, trained, lost, weights.tolerance(plan), candidates,
            sum(a == b for a, b in zip(adapted.greedy, again.greedy, strict=True)),
            sum(a != b for a, b in zip(base.greedy, adapted.greedy, strict=True)),
            len(texts), rows,
        )  # fmt: skip
        _judge(result, probes.distance(base, again))
        _manifest(result, plan, part)
        parity.write(replace(certified, files=Certificate.files_of(part), base={}), part)
        sync(part)
        written.publish(part, target)
    return result


def _check(run: Run) -> None:
    """Raises LlmbenchError where a run has nothing to merge."""
    if run.state != "finished":
        raise RunError(f"Run {run.name} is {run.state}, so there is nothing to merge yet. Finish it with --resume")
    if not run.adapter.is_dir() and not run.model.is_dir():
        raise RunError(f"Run {run.name}: both {run.adapter} and {run.model} are missing. Train it again with --overwrite")
    if not run.adapter.is_dir():
        raise RunError(
            f"Run {run.name} trained all parameters: {run.model} is already the complete model; there is nothing to merge"
        )
    config = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config["peft_type"] == "PROMPT_TUNING":
        raise LlmbenchError(
            f"{run.adapter} is prompt tuning: it adds vectors before the prompt and changes no weights. "
            f"{remedy('', 'PROMPT_TUNING')}"
        )


def _certificate(model: Any, plan: Plan) -> Certificate:
    """What base + adapter say to the probes, which the merged model is to say without an adapter."""
    dtype = plan.trained_in if plan.few_bits else plan.dtype
    kwargs = plan.run.recipe["data"].get("chat_template_kwargs") or {}
    made = certificate.of(
        model, plan.tokenizer, dtype=dtype, quantized=plan.few_bits, base={}, folder=plan.run.adapter, template_kwargs=kwargs
    )
    return replace(made, config={}, probes=tuple(replace(probe, base=None, scaled={}) for probe in made.probes))


def _judge(result: Merged, from_base: Distance) -> None:
    """Raises LlmbenchError when the merged model is not what was trained."""
    if from_base.kl < _SAME:
        raise LlmbenchError("the merged model equals the base: the merge lost the adapter, and nothing was written")
    lost, allowed = result.lost, result.tolerance
    if lost.kl > allowed.kl or lost.logit > allowed.logit:
        raise LlmbenchError(
            f"the merged model differs from base + adapter more than {result.dtype} explains ({lost}; allowed: {allowed}), "
            f"and nothing was written. {_instead(result)}"
        )
    if lost.kl > result.trained.kl / 2:
        raise LlmbenchError(
            f"{result.dtype} rounds away what was trained ({lost} from base + adapter, which is {result.trained} from the "
            f"base), and nothing was written. {_instead(result)}"
        )


def _instead(result: Merged) -> str:
    if result.onto == "original":
        return "The base was rounded while it was trained on, so merge onto the rounded weights: --onto dequantized"
    return (
        "Serve the adapter itself, or merge with --dtype float32" if result.dtype != "float32" else "Serve the adapter itself"
    )


def _manifest(result: Merged, plan: Plan, part: Path) -> None:
    """llmbench.json: where the model comes from, and the proof."""
    origin = json.loads((plan.run.adapter / "llmbench.json").read_text(encoding="utf-8"))
    proof = {key: value for key, value in result.as_json().items() if key != "folder"}
    values = origin | {
        "adapter": provenance.file_hash(plan.run.adapter / "adapter_model.safetensors"),
        "merged": proof,
        "fingerprint": provenance.fingerprint(part),
    }
    (part / "llmbench.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
