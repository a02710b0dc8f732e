"""Looks through the folder of a model or an adapter before anything of it is loaded, for whatever would run its code.

Reads small JSON files, the first bytes of weights, and names; opens no pickle. A recipe that trusts a model's code at a
pinned revision (`trust_remote_code: true`) lets its code keys pass, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["PICKLES", "folder", "tokenizer", "values"]

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npz", ".msgpack", ".h5")
"""Endings of weights that are, or may hold, something other than plain numbers."""

_READ = re.compile(r".*config.*\.json|modules\.json|special_tokens_map\.json")
"""The files that libraries read settings from; a vocabulary or a log names no code and may be large."""
_MAX_BYTES = 16_000_000
_MAX_HEADER = 100_000_000
"""The safetensors format's own limit for its header."""
_MAX_DEPTH = 64
_CODE_KEYS = {
    "auto_map", "trust_remote_code", "custom_pipelines", "custom_generate", "use_kernels", "kernel_config",
    "_attn_implementation_internal", "_experts_implementation_internal",
}  # fmt: skip
"""Keys by which a model's own files ask for code: of its folder, of another repository, or of the kernel hub."""
_IMPLEMENTATIONS = {"attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"}
_KERNEL = re.compile(r"[/:|]")
"""A plain implementation is a word, such as sdpa; one with these names a repository of kernels."""


def folder(path: Path, *, trust_remote_code: bool = False) -> None:
    """Refuses a model's or an adapter's folder that could run code, or lead out of itself.

    Args:
        path: the folder.
        trust_remote_code: the recipe's own setting, which pins a revision; without it no key may ask for code.

    Raises:
        LlmbenchError: the first thing found, with the file it stands in and the key.
    """
    root = path.resolve()
    files = sorted(entry for entry in path.rglob("*") if not entry.is_dir() or entry.is_symlink())
    for file in files:
        _refuse_leaving(file, path, root)
    for file in files:
        if _READ.fullmatch(file.name):
            document = _read(file)
            if not trust_remote_code:
                values(document, file)
            _refuse_modules(document, file)
        elif file.name == "model.safetensors.index.json":
            _check_index(file)
        elif file.suffix == ".safetensors":
            _check_safetensors(file)
    top = [file for file in files if file.parent == path]
    weights = [file for file in top if file.suffix == ".safetensors"]
    pickled = [
        file for file in top if file.suffix.lower() in PICKLES and not file.name.startswith(("training_args", "optimizer"))
    ]
    if pickled and not weights:
        raise LlmbenchError(
            f"{pickled[0]}: is a pickle, which can run code when loaded, and there are no safetensors weights. Convert it "
            f"where you trust it, or choose another model."
        )


def tokenizer(path: Path) -> None:
    """Refuses a folder whose tokenizer.json is cut off.

    Raises:
        LlmbenchError: it is.
    """
    file = path / "tokenizer.json"
    try:
        json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    except ValueError as error:
        raise LlmbenchError(f"{file}: is cut off or not JSON ({str(error).splitlines()[0]}). Download it again.") from error


def values(document: Any, where: Path | str) -> None:
    """Refuses nested values in which a key asks for code, at whatever depth.

    Raises:
        LlmbenchError: the first such key.
    """
    for place, key, value in _keys(document, ""):
        wants_code = key in _CODE_KEYS and value not in (None, False, {}, [], "")
        if key in _IMPLEMENTATIONS:
            named = value.values() if isinstance(value, dict) else [value]
            wants_code = any(isinstance(name, str) and _KERNEL.search(name) for name in named)
        if key == "auto_mapping" and isinstance(value, dict):  # PEFT imports what stands here
            library = str(value.get("parent_library") or "transformers")
            wants_code = library.split(".")[0] not in ("transformers", "peft")
        if wants_code:
            raise LlmbenchError(
                f"{where}: {place} asks for code to be loaded ({_short(value)}). llmbench runs no model code unless the "
                f"recipe sets model.trust_remote_code: true and pins model.revision. Remove the key, or review the code first."
            )


def _keys(value: Any, place: str) -> Iterator[tuple[str, str, Any]]:
    """Every key in nested values with its dotted place."""
    waiting = [(place, value)]
    while waiting:
        place, value = waiting.pop()
        match value:
            case dict():
                for key, item in value.items():
                    here = f"{place}.{key}" if place else str(key)
                    yield here, str(key), item
                    waiting.append((here, item))
            case list():
                waiting += [(f"{place}[{i}]", item) for i, item in enumerate(value)]


def _read(file: Path) -> Any:
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise LlmbenchError(f"{file}: {size:,} bytes is too large for a configuration (at most {_MAX_BYTES:,}).")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise LlmbenchError(f"{file}: nested too deeply (at most {_MAX_DEPTH} levels).") from error
    except (OSError, ValueError) as error:
        raise LlmbenchError(f"{file}: cannot be read as JSON ({str(error).splitlines()[0]}).") from error
    if _depth(document) > _MAX_DEPTH:
        raise LlmbenchError(f"{file}: nested too deeply (at most {_MAX_DEPTH} levels).")
    return document


def _depth(value: Any) -> int:
    """How many levels of lists and objects there are."""
    depth, level = 0, [value]
    while level:
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth


def _refuse_leaving(file: Path, path: Path, root: Path) -> None:
    """A link may stay in the folder, or in the hub's cache of the same model, which links to its own blobs."""
    if not file.is_symlink():
        return
    allowed = root.parent.parent if root.parent.name == "snapshots" else root
    target = file.resolve()
    if not target.is_relative_to(allowed):
        raise LlmbenchError(f"{file}: links to outside {path} (to {target}). If the file belongs to the model, copy it there.")


def _refuse_modules(document: Any, file: Path) -> None:
    """sentence-transformers imports each `type` of modules.json; only its own are no foreign code."""
    if file.name != "modules.json" or not isinstance(document, list):
        return
    for i, module in enumerate(document):
        kind = module.get("type") if isinstance(module, dict) else None
        if not (isinstance(kind, str) and re.fullmatch(r"sentence_transformers(\.\w+)+", kind)):
            raise LlmbenchError(
                f"{file}: [{i}].type names code outside sentence_transformers ({_short(kind)}). Choose another."
            )
        inner = Path(str(module.get("path") or ""))
        if inner.is_absolute() or ".." in inner.parts:
            raise LlmbenchError(f"{file}: [{i}].path leaves the model's folder ({inner}). Choose another model.")


def _check_index(file: Path) -> None:
    try:
        named = json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LlmbenchError(f"{file}: cannot be read as an index of weights ({type(error).__name__}).") from error
    for name in set(map(str, named)):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise LlmbenchError(f"{file}: names {name!r} as weights; only safetensors files of the same folder are allowed.")
    missing = sorted(name for name in set(map(str, named)) if not (file.parent / name).exists())
    if missing and not (file.parent / "model.safetensors").exists():
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise LlmbenchError(f"{file.parent}: {missing[0]}{more} is missing, although {file.name} lists it. Download it again.")


def _check_safetensors(file: Path) -> None:
    """The format begins with 8 bytes of length and then JSON, which says how long the file is; a pickle does not."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length, first = int.from_bytes(opened.read(8), "little"), opened.read(1)
        if first != b"{" or length > min(size - 8, _MAX_HEADER):
            raise LlmbenchError(f"{file}: is not a safetensors file despite its name, or is cut off. Download it again.")
        try:
            header = json.loads(first + opened.read(length - 1))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise LlmbenchError(f"{file}: its header cannot be read ({type(error).__name__}). Download it again.") from error
    whole = 8 + length + max(ends, default=0)
    if size < whole:
        raise LlmbenchError(f"{file}: is cut off: it has {size:,} bytes of {whole:,}. Download it again.")
    if size > whole:
        raise LlmbenchError(f"{file}: has {size:,} bytes and its header describes {whole:,}. Download it again.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
