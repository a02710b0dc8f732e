"""A recipe that goes on from a trained adapter: the adapter's own settings are read, and the recipe may not contradict them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmbench import assets, workspace
from llmbench.recipe.adapter import written_as_weights

__all__ = ["adapter_folder", "continued"]

_CONFIG = "adapter_config.json"
_FREE = ("lora_dropout", "vera_dropout", "module_dropout", "loraplus_lr_ratio", "save_dtype")
"""What a second training may set anew."""
_FIELDS = {
    "LORA": (
        "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "rank_pattern",
        "alpha_pattern", "bias", "modules_to_save", "trainable_token_indices", "ensure_weight_tying", "use_rslora", "use_dora",
        "init_lora_weights",
    ),
    "OFT": (
        "oft_block_size", "module_dropout", "target_modules", "layers_to_transform", "bias", "modules_to_save", "coft", "eps",
        "block_share",
    ),
    "VERA": (
        "r", "vera_dropout", "d_initial", "target_modules", "layers_to_transform", "bias", "modules_to_save",
        "projection_prng_key",
    ),
    "IA3": ("target_modules", "feedforward_modules", "modules_to_save"),
    "PROMPT_TUNING": ("num_virtual_tokens", "prompt_tuning_init", "prompt_tuning_init_text"),
}  # fmt: skip
_FOREIGN = (
    "lora_bias", "alora_invocation_tokens", "layer_replication", "use_qalora", "use_bdlora",
    "megatron_config", "arrow_config", "velora_config", "kasa_config", "monteclora_config", "corda_config", "lora_ga_config",
)  # fmt: skip
"""Features of PEFT's adapters that no recipe has words for."""


def continued(values: dict[str, Any], start: Path) -> dict[str, Any]:
    """A recipe's values with the sections `lora` and `adapter` as the adapter's own config has them.

    Args:
        values: the recipe as it was written, with `adapter_name_or_path`.
        start: the folder that paths in the recipe start from.

    Raises:
        ValueError: no such adapter, one of a kind that cannot be trained further, or the recipe says otherwise than it.
    """
    folder = adapter_folder(str(values["adapter_name_or_path"]), start)
    config = _read(folder)
    kind = str(config.get("peft_type", "LORA"))
    if kind not in _FIELDS:
        raise ValueError(f"adapter_name_or_path: {folder} is a {kind} adapter, which llmbench does not train")
    foreign = next((key for key in _FOREIGN if config.get(key)), None)
    if foreign is not None:
        raise ValueError(f"adapter_name_or_path: {folder} has {foreign}, which llmbench does not train")
    place = "lora" if kind == "LORA" else "adapter"
    section = {key: config[key] for key in _FIELDS[kind] if config.get(key) is not None}
    if kind == "LORA" and isinstance(config.get("target_parameters"), list):
        section |= _targets(section, config["target_parameters"])
    if place == "adapter":
        section["type"] = kind.lower()
    elif str(section.get("init_lora_weights", True)) not in ("loftq", "mica"):
        section["init_lora_weights"] = True  # it has long started
    for key in ("target_modules", "modules_to_save", "feedforward_modules", "exclude_modules"):
        if isinstance(section.get(key), list):
            section[key] = sorted(section[key])
    given = values.get(place)
    for key, value in (given if isinstance(given, dict) else {}).items():
        said = sorted(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
        if key not in _FREE and key in section and section[key] != said:
            raise ValueError(f"{place}.{key}: {value}, but the adapter it continues from has {section[key]}; leave it out")
        section[key] = value
    other = "adapter" if place == "lora" else "lora"
    if values.get(other) is not None:
        raise ValueError(f"adapter_name_or_path: {folder} is a {kind} adapter; leave out the section {other}")
    return {**values, "adapter_name_or_path": str(folder), place: section, other: None}


def _targets(section: dict[str, Any], parameters: list[str]) -> dict[str, Any]:
    """Linear layers that are written as their weight, for PEFT's sake, read as modules; fused parameters stay what they are."""
    linear, modules = written_as_weights(parameters), section.get("target_modules")
    if not isinstance(modules, list):
        return {"target_parameters": sorted(parameters)}
    return {
        "target_modules": [*modules, *linear],
        "target_parameters": sorted(name for name in parameters if name.removesuffix(".weight") not in linear),
    }


def adapter_folder(reference: str, start: Path) -> Path:
    """The folder of an adapter: a run's name, or a folder that holds adapter_config.json.

    Raises:
        ValueError: there is none.
    """
    run = workspace.runs() / reference / "adapter" if "/" not in reference and reference not in (".", "..") else None
    if run is not None and (run / _CONFIG).exists():
        return run
    found = assets.find(reference, start)
    for folder in (found, found / "adapter" if found else None):
        if folder is not None and (folder / _CONFIG).exists():
            return folder
    raise ValueError(
        f"adapter_name_or_path: {reference} is neither a run with an adapter nor a folder with {_CONFIG}; "
        "list the runs: llmbench runs"
    )


def _read(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"adapter_name_or_path: {folder / _CONFIG} cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"adapter_name_or_path: {folder / _CONFIG} is not a JSON object")
    return config
