"""What kind of model a config.json describes, and whether it can be trained here. Reads files only; loads no torch.

llmbench trains decoders: models that write text from left to right. transformers' own tables say which those are; they are
read from its source, because importing them loads torch.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["not_a_model", "read", "refusal"]

_ATTENTION = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flash_attention_3": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
_CODE = ("auto_map",)


def read(folder: Path) -> dict[str, Any]:
    """The config.json of a model's folder.

    Raises:
        LlmbenchError: there is none, it is cut off, or the folder is something else.
    """
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LlmbenchError(f"{folder}: {not_a_model(folder)}") from None
    except (OSError, ValueError) as error:
        raise LlmbenchError(f"{path}: cannot be read as JSON ({str(error).splitlines()[0]}). Get it again.") from error
    if not isinstance(found, dict):
        raise LlmbenchError(f"{path}: is not a JSON object. Get it again.")
    return found


def not_a_model(folder: Path) -> str:
    """What a folder without config.json is, and what to name instead."""
    if (folder / "adapter_config.json").exists():
        try:
            base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        except (OSError, ValueError, AttributeError):
            base = None
        named = f"its base ({base})" if base else "its base"
        return (
            f"is an adapter, not a model. Set model.model_name_or_path to {named}, and adapter_name_or_path={folder} "
            "to train it further"
        )
    return "is a folder without config.json. Name a model's folder or hub name."


def refusal(config: Mapping[str, Any], *, attn_implementation: str = "auto", judge: bool = False) -> str | None:
    """Why a model cannot be trained, or None.

    Args:
        config: config.json.
        attn_implementation: the recipe's.
        judge: whether a reward model is made of it, which has a head of its own.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return "config.json has no model_type, so it cannot be told what model this is"
    if any(key in config for key in _CODE):  # code of its own, which is allowed or refused elsewhere
        return None
    known = _table("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
    if known is None:
        return None
    trains = "llmbench trains decoders, which write text from left to right (llama, qwen3, gemma and their like)"
    if config.get("is_encoder_decoder") or kind in (_table("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES") or {}):
        return f"{kind} is an encoder-decoder, and {trains}"
    if kind in (_table("MODEL_FOR_MASKED_LM_MAPPING_NAMES") or {}) and not config.get("is_decoder"):
        return f"{kind} is an encoder, which reads in both directions, and {trains}"
    if kind not in known:
        seen = kind in (_table("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES") or {})
        what = "a model of images and text without a class for text alone" if seen else "no decoder of this transformers"
        return f"{kind} is {what}, and {trains}"
    if judge and kind not in (_table("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES") or {}):
        return f"{kind} has no class that judges (sequence classification), which method: reward needs"
    return _attention(kind, known[kind], attn_implementation)


def _attention(kind: str, name: str, wanted: str) -> str | None:
    """Why a model's class does not have the attention that the recipe sets."""
    if wanted in ("auto", "eager") or "/" in wanted or "|" in wanted:
        return None
    if wanted not in _ATTENTION:
        return f"model.attn_implementation: {wanted} is none of auto, eager, {', '.join(_ATTENTION)}"
    source = _modeling(kind)
    if source is None or re.search(rf"^    {_ATTENTION[wanted]} = True", source, re.MULTILINE):
        return None
    return f"model.attn_implementation: {name} has no {wanted}; leave it out (auto), or set it to eager"


@cache
def _table(name: str) -> Mapping[str, str] | None:
    """One of transformers' tables from kinds of model to classes; None where it is written otherwise than in version 5."""
    source = _source("transformers.models.auto.modeling_auto")
    if source is None:
        return None
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            try:
                pairs = ast.literal_eval(node.value.args[0])  # type: ignore[attr-defined]
                return {str(key): value if isinstance(value, str) else value[0] for key, value in pairs}
            except (ValueError, AttributeError, IndexError, TypeError):
                return None
    return None


def _modeling(kind: str) -> str | None:
    name = kind.replace("-", "_").removesuffix("_text")
    return _source(f"transformers.models.{name}.modeling_{name}")


def _source(module: str) -> str | None:
    """A module's text, without importing it (its packages are imported, which transformers leaves empty)."""
    root = find_spec("transformers")
    if root is None or root.origin is None:
        return None
    path = Path(root.origin).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path.read_text(encoding="utf-8") if path.is_file() else None
