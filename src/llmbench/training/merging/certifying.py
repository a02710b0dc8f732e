"""A certificate for an adapter that has none, or an outdated one: base and adapter are loaded as training would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmbench import parity, provenance, runs
from llmbench.errors import LlmbenchError, RunError
from llmbench.parity import Certificate
from llmbench.recipe import ModelSpec, QuantizationSpec
from llmbench.training import certificate, quiet
from llmbench.training.loading import adapter, quantized
from llmbench.training.loading.model import (
    computation_dtype,
    device_of,
    load_base,
    load_tokenizer,
    local_folder,
    resize,
)

__all__ = ["certify", "folder_of"]

_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class _Trained:
    """What an adapter was trained on and in."""

    spec: ModelSpec
    quantization: QuantizationSpec | None
    dtype: torch.dtype | None
    template_kwargs: dict[str, Any]


def folder_of(reference: str) -> Path:
    """The adapter's folder of a run's name, or of a folder's path.

    Raises:
        LlmbenchError: there is no such adapter.
    """
    path = Path(reference)
    if (path / _CONFIG).is_file():
        return path
    try:
        run = runs.open_run(reference)
    except RunError as error:
        raise LlmbenchError(f"{reference} is neither a run nor a folder with {_CONFIG}. {error}") from error
    if not (run.adapter / _CONFIG).is_file():
        raise LlmbenchError(f"run {run.name} has no adapter (it is {run.state}), so there is nothing to certify")
    return run.adapter


def certify(folder: Path, *, base: str | None = None) -> Certificate:
    """Computes the certificate of an adapter and writes it beside it.

    Args:
        folder: the adapter's, in PEFT's format; where it is a run's, the run says what it was trained on and in.
        base: the base model, where the adapter's own word for it leads nowhere.

    Raises:
        LlmbenchError: the base is not here, or is another than the adapter was trained on; or PEFT refuses the adapter.
    """
    quiet.libraries()
    trained = _trained(folder, base)
    spec = trained.spec
    place = local_folder(spec)
    _check_base(folder, place, spec)
    device = device_of(spec)
    dtype = trained.dtype or computation_dtype(spec, device)
    grown = folder if (folder / "tokenizer.json").exists() else None
    tokenizer = load_tokenizer(grown or spec.tokenizer or place, spec)
    own = folder / "chat_template.jinja"
    if own.is_file():
        tokenizer.chat_template = own.read_text(encoding="utf-8")
    few = quantized.config(trained.quantization, dtype) if trained.quantization is not None else None
    model = load_base(spec, place, device, dtype, few)
    if few is None:
        model = model.to(device)
    resize(model, tokenizer)
    try:
        model = adapter.onto(model, folder, place)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise LlmbenchError(f"{folder}: PEFT cannot load it onto its base ({said})") from error
    made = certificate.of(
        model, tokenizer, dtype=dtype, quantized=quantized.is_quantized(model), base=provenance.fingerprint(place),
        folder=folder, template_kwargs=trained.template_kwargs,
    )  # fmt: skip
    parity.write(made, folder)
    return made


def _trained(folder: Path, base: str | None) -> _Trained:
    run = runs.Run(folder.parent) if (folder.parent / "lock.json").is_file() and folder.name == "adapter" else None
    if run is not None:
        recipe, hardware = run.recipe, run.lock.get("hardware", {})
        spec = ModelSpec.model_validate(recipe["model"])
        few = QuantizationSpec.model_validate(recipe["quantization"]) if recipe.get("quantization") else None
        if base is not None:
            spec = spec.model_copy(update={"model_name_or_path": base})
        dtype = getattr(torch, hardware["dtype"]) if "dtype" in hardware else None
        return _Trained(spec, few, dtype, recipe["data"].get("chat_template_kwargs") or {})
    try:
        named = base or json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LlmbenchError(f"{folder / _CONFIG} does not name the base model. Name it with --base") from error
    return _Trained(ModelSpec(model_name_or_path=str(named)), None, None, {})


def _check_base(folder: Path, place: Path, spec: ModelSpec) -> None:
    """Raises where training noted another base than this one."""
    try:
        noted = json.loads((folder / "llmbench.json").read_text(encoding="utf-8"))["base_fingerprint"] or {}
    except (OSError, ValueError, KeyError, TypeError):
        return
    here = provenance.fingerprint(place)
    for part in ("weights", "tokenizer"):
        if part in noted and part in here and noted[part] != here[part]:
            raise LlmbenchError(
                f"{folder} was trained on another base than {spec.model_name_or_path} (its {part} differ). Name it with --base"
            )
