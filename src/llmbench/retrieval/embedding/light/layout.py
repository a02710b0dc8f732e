"""What a model's files say of the way from a text to its vector, read as sentence-transformers 6 reads them.

`Layout.light` is None for a BERT-like encoder that is computed without sentence_transformers, whose import takes 6 seconds,
else the reason why it is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmbench.errors import LlmbenchError

__all__ = ["Layout", "Pooling", "read"]

Pooling = Literal["cls", "mean", "max", "lasttoken"]

_ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
_OFFSET = ("roberta", "xlm-roberta", "camembert")
"""Their first position is `pad_token_id + 1`."""
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
_TRANSFORMER_KEYS = {
    "max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name", "unpad_inputs",
    "query_expansion",
}  # fmt: skip
"""What may stand in sentence_bert_config.json; other keys change how the transformer is loaded."""
_PLAIN_MODALITY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_SETTINGS = tuple(
    f"sentence_{kind}config.json" for kind in ("bert_", "roberta_", "distilbert_", "xlm-roberta_", "camembert_", "")
)
_UNBOUNDED = 8192
"""The window of a model that names none."""


@dataclass(frozen=True)
class Layout:
    """A model's folder in words. `window` counts special tokens too; `width` is the length of a vector before any cut."""

    folder: Path
    transformer: Path
    """The folder of config.json, the weights and the tokenizer."""
    config: Mapping[str, Any]
    pooling: str
    prompts: Mapping[str, str]
    window: int
    width: int | None
    lower_case: bool
    light: str | None

    @property
    def kind(self) -> str:
        """The architecture, as config.json names it."""
        return str(self.config.get("model_type"))

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token takes."""
        return int(self.config.get("pad_token_id") or 0) + 1 if self.kind in _OFFSET else 0

    def prompt(self, *names: str) -> str:
        """The first of the model's prompts that has one of these names and is not empty; empty where it has none.

        As sentence-transformers' `encode_query` and `encode_document` have it, the model's default prompt counts for neither.
        Unlike theirs in 6.2, an unset `document` does not hide `passage`.
        """
        return next((self.prompts[name] for name in names if self.prompts.get(name)), "")


def read(folder: Path) -> Layout:
    """Reads a model's folder; loads nothing.

    Raises:
        LlmbenchError: modules.json or config.json is missing or is not what it should be.
    """
    modules = _json(folder / "modules.json")
    if not isinstance(modules, list) or not modules or not all(isinstance(m, dict) for m in modules):
        raise LlmbenchError(f"{folder / 'modules.json'}: must list the model's modules. Download the model again.")
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    places = [folder / str(module.get("path") or "") for module in modules]
    transformer = places[0]
    config = _mapping(transformer / "config.json")
    settings = next((_mapping(transformer / name) for name in _SETTINGS if (transformer / name).is_file()), {})
    tokenizer = _mapping(transformer / "tokenizer_config.json")
    pooling = _mapping(places[1] / "config.json") if kinds[1:2] == ["Pooling"] else {}
    own = _mapping(folder / "config_sentence_transformers.json")
    prompts = {str(name): str(text or "") for name, text in (own.get("prompts") or {}).items()}
    method = _pooling(pooling)
    return Layout(
        folder,
        transformer,
        config,
        method,
        prompts,
        _window(settings, tokenizer, config),
        int(config["hidden_size" if "hidden_size" in config else "dim"]) if {"hidden_size", "dim"} & config.keys() else None,
        bool(settings.get("do_lower_case")),
        _why_not(kinds, transformer, config, settings, pooling, method),
    )


def _window(settings: Mapping[str, Any], tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """sentence-transformers' rule: its own setting, else the smaller of the tokenizer's and the model's."""
    if settings.get("max_seq_length"):
        return int(settings["max_seq_length"])
    lengths = [tokenizer.get("model_max_length"), config.get("max_position_embeddings")]
    known = [int(length) for length in lengths if isinstance(length, int | float) and 0 < length < 1e9]
    return min(known, default=_UNBOUNDED)


def _pooling(config: Mapping[str, Any]) -> str:
    """The name of the method, in the words of 6.x: those of one switch a method are older. Several are joined by `+`."""
    if named := config.get("pooling_mode"):
        return "+".join(named) if isinstance(named, list) else str(named)
    switches = {
        "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens",
        "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens", "weightedmean": "pooling_mode_weightedmean_tokens",
        "lasttoken": "pooling_mode_lasttoken",
    }  # fmt: skip
    return "+".join(name for name, key in switches.items() if config.get(key)) or "mean"


def _why_not(
    kinds: list[str],
    transformer: Path,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    pooling: Mapping[str, Any],
    method: str,
) -> str | None:
    """Why this model needs sentence_transformers; None where it does not."""
    kind, activation = config.get("model_type"), config.get("hidden_act", config.get("activation", "gelu"))
    wrong = {
        f"its modules are {', '.join(kinds)}": kinds
        not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]),
        f"it is a {kind}": kind not in _ENCODERS,
        f"its activation is {activation}": activation not in _ACTIVATIONS,
        "its positions are relative": config.get("position_embedding_type", "absolute") != "absolute",
        "it is a decoder": bool(config.get("is_decoder")),
        f"its pooling is {method}": method not in ("cls", "mean", "max", "lasttoken"),
        "its pooling excludes prompts": pooling.get("include_prompt", True) is not True,
        "its transformer has custom settings": bool(settings.keys() - _TRANSFORMER_KEYS)
        or settings.get("transformer_task", "feature-extraction") != "feature-extraction"
        or settings.get("modality_config", _PLAIN_MODALITY) != _PLAIN_MODALITY
        or settings.get("module_output_name", "token_embeddings") != "token_embeddings"
        or bool(settings.get("query_expansion")),
        "it is an adapter": (transformer / "adapter_config.json").is_file(),
        "it has no tokenizer.json": not (transformer / "tokenizer.json").is_file(),
        "it has no safetensors weights": not list(transformer.glob("*.safetensors")),
    }
    return next((reason for reason, holds in wrong.items() if holds), None)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LlmbenchError(f"{path}: is not JSON ({str(error).splitlines()[0]}). Download the model again.") from error


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    found = _json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise LlmbenchError(f"{path}: must hold a JSON object. Download the model again.")
    return found
