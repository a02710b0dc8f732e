"""The weights of a base with an adapter merged into them: what is needed is found, loaded, merged and written as a model."""

from __future__ import annotations

import gc
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from llmbench import provenance
from llmbench.errors import LlmbenchError
from llmbench.recipe import DataSpec, ModelSpec, QuantizationSpec
from llmbench.runs import Run
from llmbench.training.loading import adapter, quantized
from llmbench.training.loading.model import device_of, load_base, load_tokenizer, local_folder, resize, stop_at
from llmbench.training.merging import probes
from llmbench.training.merging.probes import Answers, Distance

__all__ = ["Onto", "Plan", "Way", "base", "merged", "onto", "plan", "tokenizer_of", "tolerance", "trained", "write"]

Onto = Literal["auto", "dequantized", "original"]
Way = Literal["base", "dequantized", "original"]

_TOLERANCE = {"float32": Distance(1e-5, 0.01), "float16": Distance(1e-3, 0.5), "bfloat16": Distance(1e-2, 1.5)}
"""How far rounding the merged weights may take a model. On llmbench/tiny it takes it 1e-12 and 3e-5 (float32), 4e-4 and 0.4
(bfloat16)."""
_EIGHT_BITS = Distance(2e-2, 2.0)
"""LLM.int8() rounds activations as well, which no merged model does."""


@dataclass(frozen=True)
class Plan:
    """All that is known before a model is loaded."""

    run: Run
    spec: ModelSpec
    base: Path
    adapter: Path
    quantization: QuantizationSpec | None
    few_bits: bool
    """Whether the base was in few bits while it was trained on."""
    device: str
    trained_in: torch.dtype
    dtype: torch.dtype
    tokenizer: Any


def plan(run: Run, folder: Path, *, dtype: str | None = None, onto: Onto = "auto") -> Plan:
    """Checks everything that can be known from files.

    Args:
        run: what was trained.
        folder: its adapter, as its training left it or as a checkpoint holds it, with `llmbench.json`.
        dtype: precision of the merged weights; the base's own if not given, the computation's for a quantised base.
        onto: for a quantised base, which of its weights.

    Raises:
        LlmbenchError: there is nothing to merge, or the base is another than was trained on.
    """
    spec = ModelSpec.model_validate(run.recipe["model"])
    base = local_folder(spec)
    known = json.loads((folder / "llmbench.json").read_text(encoding="utf-8"))["base_fingerprint"]
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
    tokenizer = tokenizer_of(run, folder, base)
    return Plan(run, spec, base, folder, quantization, few_bits, device_of(spec), trained_in, chosen, tokenizer)


def tokenizer_of(run: Run, folder: Path, base: Path) -> Any:
    """The tokenizer that a run trained with, and the chat template, wherever they came from.

    Args:
        run: what was trained.
        folder: of its result, which holds the tokenizer where the training gave it tokens.
        base: the base's folder.
    """
    spec = ModelSpec.model_validate(run.recipe["model"])
    grown = folder if (folder / "tokenizer.json").exists() else None
    tokenizer = load_tokenizer(grown or spec.tokenizer or base, spec)
    own = folder / "chat_template.jinja"
    if own.is_file():
        tokenizer.chat_template = own.read_text(encoding="utf-8")
    elif run.recipe["data"].get("chat_template") is not None:
        try:
            tokenizer.chat_template = DataSpec.model_validate(run.recipe["data"]).template()
        except (OSError, ValueError) as error:
            raise LlmbenchError(
                f"run {run.name}: the chat template that it was trained with cannot be read "
                f"({run.recipe['data']['chat_template']}). Put the file back, then try again"
            ) from error
    return tokenizer


def trained(plan: Plan, texts: list[list[int]], dtype: torch.dtype) -> tuple[Answers, Answers, Any]:
    """What the base answers, what base + adapter answer, and the model with the adapter beside it.

    Args:
        plan: of a merge.
        texts: token ids of the probe texts.
        dtype: the precision to compute in.
    """
    model = base(plan, dtype, few_bits=plan.few_bits)
    untrained = probes.answers(model, texts, dtype)
    model = adapter.onto(model, plan.adapter, plan.base)
    return untrained, probes.answers(model, texts, dtype), model


def base(plan: Plan, dtype: torch.dtype, *, few_bits: bool) -> Any:
    """The base with room for all tokens, quantised as it was trained on or not."""
    config = quantized.config(plan.quantization, dtype) if few_bits and plan.quantization is not None else None
    model = load_base(plan.spec, plan.base, plan.device, dtype, config)
    if config is None:
        model = model.to(plan.device)
    resize(model, plan.tokenizer)
    return model


def onto(
    plan: Plan, which: Onto, texts: list[list[int]], adapted: Answers
) -> tuple[Literal["dequantized", "original"], dict[str, Distance], Any]:
    """For a quantised base: merges onto its own weights, the unrounded ones, or the closer; returns which, and how close."""
    ways: list[Literal["original", "dequantized"]]
    match which:
        case "auto":
            ways = ["original", "dequantized"] if plan.quantization is not None else ["dequantized"]
        case "original" | "dequantized":
            ways = [which]
    distances: dict[str, Distance] = {}
    for way in ways:
        model = _merged_onto(plan, way)
        distances[way] = probes.distance(adapted, probes.answers(model, texts, plan.dtype))
    best = min(ways, key=lambda way: distances[way].kl)
    if best != ways[-1]:
        del model
        model = _merged_onto(plan, best)
    return best, distances, model


def _merged_onto(plan: Plan, way: Literal["original", "dequantized"]) -> Any:
    gc.collect()
    if way == "original":
        model = base(plan, plan.dtype, few_bits=False)
    else:
        model = quantized.dequantize(base(plan, plan.trained_in, few_bits=True), plan.dtype)
    return merged(adapter.onto(model, plan.adapter, plan.base), plan.dtype)


def merged(model: Any, dtype: torch.dtype) -> Any:
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


def write(model: Any, plan: Plan, part: Path) -> None:
    """The model's folder: weights, configurations, tokenizer with its template."""
    model.config.use_cache = True
    origin = json.loads((plan.adapter / "llmbench.json").read_text(encoding="utf-8"))
    stop_at(model, origin.get("stop_token_ids", ()))
    model.save_pretrained(part, max_shard_size="5GB")
    plan.tokenizer.save_pretrained(part)


def tolerance(plan: Plan) -> Distance:
    """How far rounding may take the merged model from base + adapter."""
    rounding = _TOLERANCE[str(plan.dtype).removeprefix("torch.")]
    if not plan.few_bits:
        return rounding
    eight = plan.quantization is not None and plan.quantization.load_in_8bit
    computed = _EIGHT_BITS if eight else _TOLERANCE[str(plan.trained_in).removeprefix("torch.")]
    return Distance(max(rounding.kl, computed.kl), max(rounding.logit, computed.logit))
