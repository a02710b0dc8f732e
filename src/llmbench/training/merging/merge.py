"""An adapter made part of its base, proven: the merged model is loaded again from disk and compared before it is kept.

Base, base + adapter and merged model answer the same probe texts. A merge that equals the base, or that is farther from
base + adapter than rounding explains, is an error, and nothing is left behind.
"""

from __future__ import annotations

import gc
import json
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from llmbench import parity, provenance, written
from llmbench.errors import LlmbenchError, RunError
from llmbench.parity import Certificate
from llmbench.recipe import ModelSpec, QuantizationSpec
from llmbench.recipe.servability import remedy
from llmbench.runs import Run
from llmbench.training import certificate, quiet, save
from llmbench.training.loading import adapter, quantized
from llmbench.training.loading.model import device_of, load_base, load_tokenizer, local_folder, resize, stop_at
from llmbench.training.loop.checkpoint import sync
from llmbench.training.merging import probes
from llmbench.training.merging.probes import Answers, Distance

__all__ = ["Merged", "Onto", "merge"]

Onto = Literal["auto", "dequantized", "original"]
_SAME = 1e-8
"""Below this mean KL two models are the same: the digits of float32."""
_TOLERANCE = {"float32": Distance(1e-5, 0.01), "float16": Distance(1e-3, 0.5), "bfloat16": Distance(1e-2, 1.5)}
"""How far rounding the merged weights may take a model. On llmbench/tiny it takes it 1e-12 and 3e-5 (float32), 4e-4 and 0.4
(bfloat16)."""
_EIGHT_BITS = Distance(2e-2, 2.0)
"""LLM.int8() rounds activations as well, which no merged model does."""


@dataclass(frozen=True)
class Merged:
    """A merged model's folder and the proof of it."""

    folder: Path
    dtype: str
    onto: Literal["base", "dequantized", "original"]
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


@dataclass(frozen=True)
class _Plan:
    """All that is known before a model is loaded."""

    run: Run
    spec: ModelSpec
    base: Path
    quantization: QuantizationSpec | None
    few_bits: bool
    """Whether the base was in few bits while it was trained on."""
    device: str
    trained_in: torch.dtype
    dtype: torch.dtype
    tokenizer: Any


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
    plan = _plan(run, dtype, onto)
    texts, rows = probes.texts(run.recipe, plan.tokenizer)
    base, adapted, model = _trained(plan, texts)
    certified = _certificate(model, plan)
    trained = probes.distance(base, adapted)
    if trained.kl < _SAME:
        raise LlmbenchError(
            f"{run.adapter}: the adapter changes nothing ({trained} from the base), so the merged model would equal the "
            f"base. Train for longer, or with a higher learning rate"
        )
    candidates: dict[str, Distance] = {}
    way: Literal["base", "dequantized", "original"] = "base"
    if plan.few_bits:
        del model
        way, candidates, model = _onto(plan, onto, texts, adapted)
    else:
        model = _merged(model, plan.dtype)
    part = target.parent / f".{target.name}.part"
    written.begin(part)
    try:
        _write(model, plan, part)
        del model
        gc.collect()
        again = probes.answers(load_base(plan.spec, part, plan.device, plan.dtype).to(plan.device), texts, plan.dtype)
        lost = probes.distance(adapted, again)
        result = Merged(
            target, str(plan.dtype).removeprefix("torch."), way, trained, lost, _tolerance(plan), candidates,
            sum(a == b for a, b in zip(adapted.greedy, again.greedy, strict=True)),
            sum(a != b for a, b in zip(base.greedy, adapted.greedy, strict=True)),
            len(texts), rows,
        )  # fmt: skip
        _judge(result, probes.distance(base, again))
        _manifest(result, plan, part)
        parity.write(replace(certified, files=Certificate.files_of(part), base={}), part)
        sync(part)
        written.publish(part, target)
    except BaseException as error:
        written.drop(part)
        if isinstance(error, Exception) and save.is_full(error):
            raise LlmbenchError(
                f"{target}: cannot be written (disk full). Free some space, or choose another disk with --output"
            ) from error
        raise
    return result


def _plan(run: Run, dtype: str | None, onto: Onto) -> _Plan:
    """Checks everything that can be known from files.

    Raises:
        LlmbenchError: see `merge`.
    """
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
            f"{run.adapter} is prompt tuning: it adds vectors before the prompt and changes no weights. {_no_merge(config)}"
        )
    spec = ModelSpec.model_validate(run.recipe["model"])
    base = local_folder(spec)
    known = json.loads((run.adapter / "llmbench.json").read_text(encoding="utf-8"))["base_fingerprint"]
    here = provenance.fingerprint(base)
    for part in ("weights", "tokenizer"):
        if known.get(part) != here.get(part):
            then, now = (str(prints.get(part))[:12] for prints in (known, here))
            raise LlmbenchError(
                f"{spec.model_name_or_path}: its {part} changed since run {run.name} was trained ({then} then, {now} now), "
                "so the adapter does not fit it. Put the old base back, or train again"
            )
    values = json.loads((base / "config.json").read_text(encoding="utf-8"))
    quantization = QuantizationSpec.model_validate(run.recipe["quantization"]) if run.recipe["quantization"] else None
    published = values.get("quantization_config") is not None
    if onto == "original" and published:
        raise LlmbenchError(
            f"--onto original: {spec.model_name_or_path} was published quantised, so there are no original weights"
        )
    if onto != "auto" and not published and quantization is None:
        raise LlmbenchError(f"--onto {onto}: run {run.name} was trained on an unquantised base; leave --onto out")
    trained_in: torch.dtype = getattr(torch, run.lock["hardware"]["dtype"])
    few_bits = published or quantization is not None
    own = values.get("dtype") or values.get("torch_dtype") or "float32"
    chosen: torch.dtype = getattr(torch, dtype or (run.lock["hardware"]["dtype"] if few_bits else own))
    grown = run.adapter if (run.adapter / "tokenizer.json").exists() else None
    tokenizer = load_tokenizer(grown or spec.tokenizer or base, spec)
    return _Plan(run, spec, base, quantization, few_bits, device_of(spec), trained_in, chosen, tokenizer)


def _no_merge(config: dict[str, Any]) -> str:
    return remedy("", str(config["peft_type"]))


def _trained(plan: _Plan, texts: list[list[int]]) -> tuple[Answers, Answers, Any]:
    """What the base answers, what base + adapter answer, and the model with the adapter beside it."""
    dtype = plan.trained_in if plan.few_bits else plan.dtype
    model = _base(plan, dtype, few_bits=plan.few_bits)
    base = probes.answers(model, texts, dtype)
    model = adapter.onto(model, plan.run.adapter, plan.base)
    return base, probes.answers(model, texts, dtype), model


def _base(plan: _Plan, dtype: torch.dtype, *, few_bits: bool) -> Any:
    """The base with room for all tokens, quantised as it was trained on or not."""
    config = quantized.config(plan.quantization, dtype) if few_bits and plan.quantization is not None else None
    model = load_base(plan.spec, plan.base, plan.device, dtype, config)
    if config is None:
        model = model.to(plan.device)
    resize(model, plan.tokenizer)
    return model


def _onto(
    plan: _Plan, onto: Onto, texts: list[list[int]], adapted: Answers
) -> tuple[Literal["dequantized", "original"], dict[str, Distance], Any]:
    """For a quantised base: merges onto its own weights, the unrounded ones, or the closer; returns which, and how close."""
    ways: list[Literal["original", "dequantized"]]
    match onto:
        case "auto":
            ways = ["original", "dequantized"] if plan.quantization is not None else ["dequantized"]
        case "original" | "dequantized":
            ways = [onto]
    distances: dict[str, Distance] = {}
    for way in ways:
        model = _merged_onto(plan, way)
        distances[way] = probes.distance(adapted, probes.answers(model, texts, plan.dtype))
    best = min(ways, key=lambda way: distances[way].kl)
    if best != ways[-1]:
        del model
        model = _merged_onto(plan, best)
    return best, distances, model


def _merged_onto(plan: _Plan, way: Literal["original", "dequantized"]) -> Any:
    gc.collect()
    if way == "original":
        model = _base(plan, plan.dtype, few_bits=False)
    else:
        model = quantized.dequantize(_base(plan, plan.trained_in, few_bits=True), plan.dtype)
    return _merged(adapter.onto(model, plan.run.adapter, plan.base), plan.dtype)


def _merged(model: Any, dtype: torch.dtype) -> Any:
    """The adapter added to the weights, each layer in float32 and rounded once."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT notes each layer that is merged already
        for module in model.modules():
            if isinstance(module, BaseTunerLayer) and hasattr(module, "merge"):
                layer = module.get_base_layer()
                layer.to(torch.float32)
                try:
                    module.merge(safe_merge=True)
                except ValueError as error:
                    raise LlmbenchError(f"the adapter cannot be merged ({str(error).splitlines()[0]})") from error
                layer.to(dtype)
        return model.merge_and_unload(safe_merge=True).to(dtype)


def _certificate(model: Any, plan: _Plan) -> Certificate:
    """What base + adapter say to the probes, which the merged model is to say without an adapter."""
    dtype = plan.trained_in if plan.few_bits else plan.dtype
    kwargs = plan.run.recipe["data"].get("chat_template_kwargs") or {}
    made = certificate.of(
        model, plan.tokenizer, dtype=dtype, quantized=plan.few_bits, base={}, folder=plan.run.adapter, template_kwargs=kwargs
    )
    return replace(made, config={}, probes=tuple(replace(probe, base=None, scaled={}) for probe in made.probes))


def _write(model: Any, plan: _Plan, part: Path) -> None:
    """The model's folder: weights, configurations, tokenizer with its template."""
    model.config.use_cache = True
    origin = json.loads((plan.run.adapter / "llmbench.json").read_text(encoding="utf-8"))
    stop_at(model, origin.get("stop_token_ids", ()))
    model.save_pretrained(part, max_shard_size="5GB")
    plan.tokenizer.save_pretrained(part)


def _tolerance(plan: _Plan) -> Distance:
    rounding = _TOLERANCE[str(plan.dtype).removeprefix("torch.")]
    if not plan.few_bits:
        return rounding
    eight = plan.quantization is not None and plan.quantization.load_in_8bit
    computed = _EIGHT_BITS if eight else _TOLERANCE[str(plan.trained_in).removeprefix("torch.")]
    return Distance(max(rounding.kl, computed.kl), max(rounding.logit, computed.logit))


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


def _manifest(result: Merged, plan: _Plan, part: Path) -> None:
    """llmbench.json: where the model comes from, and the proof."""
    origin = json.loads((plan.run.adapter / "llmbench.json").read_text(encoding="utf-8"))
    proof = {key: value for key, value in result.as_json().items() if key != "folder"}
    values = origin | {
        "adapter": provenance.file_hash(plan.run.adapter / "adapter_model.safetensors"),
        "merged": proof,
        "fingerprint": provenance.fingerprint(part),
    }
    (part / "llmbench.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
