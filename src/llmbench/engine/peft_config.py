"""adapter_config.json, which PEFT writes beside an adapter's weights: read, and checked for what vLLM makes of it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from llmbench.errors import EngineError
from llmbench.recipe.servability import remedy, unservable

__all__ = ["CONFIG", "MANIFEST", "check_kind", "check_scale", "read", "remedy_of"]

CONFIG, MANIFEST = "adapter_config.json", "llmbench.json"

_MAX_SCALE = 1000
_MAX_ALPHA = 1e300
_TEXT, _TEXTS, _NAMES, _PATTERN, _SWITCH = (
    "a text",
    "a list of texts",
    "a text or a list of texts",
    "an object",
    "true or false",
)
_KINDS = {
    "peft_type": _TEXT,
    "task_type": _TEXT,
    "bias": _TEXT,
    "base_model_name_or_path": _TEXT,
    "target_modules": _NAMES,
    "target_parameters": _TEXTS,
    "modules_to_save": _TEXTS,
    "rank_pattern": _PATTERN,
    "alpha_pattern": _PATTERN,
    "use_rslora": _SWITCH,
    "use_dora": _SWITCH,
    "lora_bias": _SWITCH,
}
"""What each key must hold where it is not null, of those that are read here or by vLLM."""


def read(folder: Path) -> dict[str, Any]:
    """The configuration of the adapter in a folder.

    Raises:
        EngineError: there is none, it is no JSON object, or a key holds what it cannot.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise EngineError(f"{folder} is not an adapter: it has no {CONFIG}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise EngineError(f"{path} is not a JSON object")
    for key, kind in _KINDS.items():
        if config.get(key) is not None and not _fits(config[key], kind):
            raise EngineError(f"{path}: {key} must be {kind}, not {config[key]!r:.60}")
    patterns = [*(config.get("rank_pattern") or {}), *(config.get("alpha_pattern") or {})]
    if isinstance(config.get("target_modules"), str):
        patterns.append(config["target_modules"])
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise EngineError(f"{path}: {pattern!r:.60} is not a regular expression ({error})") from error
    return config


def _fits(value: Any, kind: str) -> bool:
    match kind:
        case "a text":
            return isinstance(value, str)
        case "a list of texts":
            return isinstance(value, list) and all(isinstance(one, str) for one in value)
        case "a text or a list of texts":
            return isinstance(value, str) or _fits(value, _TEXTS)
        case "an object":
            return isinstance(value, dict)
        case _:
            return isinstance(value, bool)


def check_kind(folder: Path, config: dict[str, Any]) -> int:
    """Refuses what vLLM cannot serve, in the words that its training said it with; returns the highest rank."""
    reasons = unservable(config)
    kind = "SEQ_CLS" if config.get("task_type") == "SEQ_CLS" else str(config.get("peft_type"))
    if reasons:
        raise EngineError(f"{folder} {reasons[0]}, so vLLM cannot load it. {remedy_of(folder, kind)}")
    ranks: dict[str, Any] = {"r": config.get("r"), **(config.get("rank_pattern") or {})}
    for name, rank in ranks.items():
        if type(rank) is not int or rank < 1:
            raise EngineError(f"{folder / CONFIG}: {name} must be a whole number above 0, not {rank!r:.40}")
    for name in ("lora_alpha", "target_modules"):
        if name not in config:
            raise EngineError(f"{folder / CONFIG} has no {name}, without which vLLM cannot load it. Save or copy it again")
    return int(max(ranks.values()))


def check_scale(folder: Path, config: dict[str, Any]) -> None:
    """What the product of the halves is multiplied with: `lora_alpha` by `r` (https://arxiv.org/abs/2106.09685, 4.1)."""
    alphas = {"lora_alpha": config["lora_alpha"], **(config.get("alpha_pattern") or {})}
    for name, alpha in alphas.items():
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < _MAX_ALPHA:
            raise EngineError(f"{folder / CONFIG}: {name} must be a number, not {alpha!r:.40}")
        scale = abs(alpha) / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
        if scale > _MAX_SCALE:
            raise EngineError(
                f"{folder / CONFIG}: {name} {alpha:g} with r {config['r']} multiplies the adapter by {scale:g}, which "
                f"overwhelms its base (the limit is {_MAX_SCALE:,}). Correct it, or train again"
            )


def remedy_of(folder: Path, peft_type: str = "LORA") -> str:
    """Merging, by the run's name where training wrote it down."""
    try:
        run = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "Merge it into its base with PEFT (merge_and_unload), then serve that folder (model.model_name_or_path)"
    return remedy(str(run), peft_type)
