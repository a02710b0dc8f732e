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

__all__ = ["attention", "misfit", "names_attention", "no_weights", "not_a_model", "read", "refusal"]

_ATTENTION = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flash_attention_3": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
_CODE = ("auto_map",)
_WIDTHS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "n_embd", "n_layer", "n_head")
"""What every layer is made by: whole numbers above 0."""
_NARROW = ("embedding_size", "word_embed_proj_dim")
"""Names of an embedding's own width, where a projection stands between it and the layers."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in)\.weight$")


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
        raise LlmbenchError(f"{path}: cannot be read as JSON ({str(error).splitlines()[0]}). Download it again.") from error
    if not isinstance(found, dict):
        raise LlmbenchError(f"{path}: is not a JSON object. Download it again.")
    text = found.get("text_config")
    for values in (found, text if isinstance(text, dict) else {}):
        for name in _WIDTHS:
            value = values.get(name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise LlmbenchError(f"{path}: {name} should be a whole number above 0, not {value!r}. Download it again.")
    return found


def misfit(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Where the weights' headers contradict config.json: other widths, or another number of layers; None where they agree.

    transformers would fill layers that are missing with random numbers, and do without those that are too many.
    """
    text = config.get("text_config", config)
    names: dict[str, list[int]] = {}
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        names |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    hidden = text.get("hidden_size", text.get("n_embd"))
    for name, shape in names.items():
        if _EMBEDDING.search(name) and hidden and len(shape) == 2 and shape[1] not in (hidden, *map(text.get, _NARROW)):
            return f"{folder}: the weights ({name}) are {shape[1]:,} wide and config.json says {hidden:,}. Download both again."
    wanted = text.get("num_hidden_layers", text.get("n_layer"))
    sees = ("vision", "visual", "image", "audio")
    layers: dict[str, int] = {}  # how many there are below each name; a tower for images or sound has its own
    for name in names:
        if (found := _LAYER.search(name)) and not any(word in name for word in sees):
            layers[name[: found.start()]] = max(layers.get(name[: found.start()], 0), int(found[1]) + 1)
    ahead = any("nextn" in name or "mtp" in name for name in text)  # layers that guess tokens ahead are counted apart
    if layers and wanted and not any(count == wanted or (ahead and count > wanted) for count in layers.values()):
        return f"{folder}: the weights have {max(layers.values())} layers and config.json says {wanted}. Download both again."
    return None


def no_weights(folder: Path) -> str | None:
    """What to do about a folder without safetensors weights; None of one that has some."""
    if list(folder.glob("*.safetensors")):
        return None
    if found := sorted(folder.glob("*.gguf")):
        return (
            f"{folder}: has its weights only as GGUF ({found[0].name}), which are for inference. Get the model's safetensors, "
            "which its hub page names as the original"
        )
    return f"{folder}: has no safetensors weights. Download them, or choose another model"


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
    gguf = sorted(folder.glob("*.gguf"))
    if gguf:
        return (
            f"holds a GGUF ({gguf[0].name}), which is for inference. Name the folder or hub name of the model it was made from."
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
        return "config.json has no model_type, so the kind of model is unknown"
    if any(key in config for key in _CODE):  # code of its own, which is allowed or refused elsewhere
        return None
    known = _table("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
    if known is None:
        return None
    trains = "llmbench trains decoders, which generate text from left to right (llama, qwen3, gemma and the like)"
    if config.get("is_encoder_decoder") or kind in (_table("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES") or {}):
        return f"{kind} is an encoder-decoder, and {trains}"
    if kind in (_table("MODEL_FOR_MASKED_LM_MAPPING_NAMES") or {}) and not config.get("is_decoder"):
        return f"{kind} is an encoder, which reads in both directions, and {trains}"
    if kind not in known:
        seen = kind in (_table("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES") or {})
        what = (
            "an image-and-text model without a text-only class"
            if seen
            else "not a decoder that this version of transformers knows"
        )
        return f"{kind} is {what}, and {trains}"
    if judge and kind not in (_table("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES") or {}):
        return f"{kind} has no sequence-classification class, which method: reward needs"
    return _attention(kind, known[kind], attn_implementation)


def _attention(kind: str, name: str, wanted: str) -> str | None:
    """Why a model's class does not have the attention that the recipe sets."""
    if wanted in ("auto", "eager") or "/" in wanted or "|" in wanted:
        return None
    if wanted not in _ATTENTION:
        return f"model.attn_implementation: {wanted} is not one of auto, eager, {', '.join(_ATTENTION)}"
    source = _modeling(kind)
    if source is None or re.search(rf"^    {_ATTENTION[wanted]} = True", source, re.MULTILINE):
        return None
    return f"model.attn_implementation: {name} has no {wanted}; leave it out (auto), or set it to eager"


def attention(config: Mapping[str, Any], wanted: str) -> str | None:
    """The attention that transformers is asked for; None leaves it to take sdpa where the class has it, and eager elsewhere.

    With `auto` a config.json that names one of its own, such as flash_attention_2, does not decide for this machine.
    """
    if wanted != "auto":
        return wanted
    if not names_attention(config):
        return None
    kind = str(config.get("model_type"))
    name = (_table("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES") or {}).get(kind, kind)
    return "eager" if _attention(kind, name, "sdpa") else "sdpa"


def names_attention(config: Mapping[str, Any]) -> bool:
    """Whether config.json names an attention of its own."""
    return any(config.get(key) is not None for key in ("_attn_implementation", "attn_implementation"))


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
