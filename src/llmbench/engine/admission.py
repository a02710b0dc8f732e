"""Which adapters vLLM may see.

It answers a bad one with status 500, another base's with nonsense, and dies of one that vanished. So each is checked first,
then copied to a folder that never changes and is named by its content:

    outputs/adapters/SHA256[:16]/{adapter_config.json, adapter_model.safetensors}
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmbench import assets, runs, scan, workspace
from llmbench.engine.tensors import Tensors, read_header, read_numbers
from llmbench.errors import EngineError, LlmbenchError, RunError
from llmbench.recipe import ServeRecipe
from llmbench.recipe.servability import remedy, unservable

__all__ = ["Adapter", "admit", "admit_all", "base_folder"]

_CONFIG, _WEIGHTS, _MANIFEST = "adapter_config.json", "adapter_model.safetensors", "llmbench.json"
_MOST_STOPS = 32
_MAX_SCALE = 1000
_NUMBER = re.compile(r"\.\d+\.")
_PARTS = {"weights": "weights", "tokenizer": "tokenizer", "chat_template": "chat template"}


@dataclass(frozen=True)
class Adapter:
    """An admitted adapter. `id` is its content's hash, `source` what the recipe called it, `folder` the copy that is served.

    `note` is what its user should know of it, or empty.
    """

    id: str
    source: str
    folder: Path
    rank: int
    stops: tuple[int, ...] = ()
    """The tokens that end the turns it learned, as its training noted them; its base may stop at others."""
    note: str = ""


def admit_all(recipe: ServeRecipe) -> dict[str, Adapter]:
    """Every adapter that the variants name, checked and stored: name in the recipe -> adapter.

    Raises:
        EngineError: the first one that cannot be served; the message names variant, adapter and reason.
    """
    base = assets.model_folder(recipe.model.model_name_or_path)
    folder = base_folder(base, recipe.model.revision)
    try:
        for place in {folder, recipe.model.tokenizer} - {None}:
            scan.folder(Path(str(place)), trust_remote_code=recipe.model.trust_remote_code)
    except LlmbenchError as error:
        raise EngineError(f"{recipe.source}: {error}") from error
    admitted: dict[str, Adapter] = {}
    for variant in recipe.variants:
        if variant.adapter is not None and variant.adapter not in admitted:
            try:
                admitted[variant.adapter] = admit(variant.adapter, recipe.model.model_name_or_path, folder, start=recipe.folder)
            except LlmbenchError as error:
                raise EngineError(f"{recipe.source}: variant {variant.name}: {error}") from error
    return admitted


def admit(reference: str, base: str, base_folder: Path | None, *, start: Path | None = None) -> Adapter:
    """Checks one adapter and copies it to the store.

    Args:
        reference: a run's name, or an adapter's folder (absolute, beside the recipe, or in the working directory).
        base: the served base model as the recipe names it.
        base_folder: its files, when they are on this machine.
        start: the recipe's folder.

    Raises:
        EngineError: it is not there, is no safetensors LoRA, is of a kind that vLLM does not serve, is damaged, or has
            another base.
    """
    folder = _resolve(reference, start or Path.cwd())
    config = _config(folder)
    _refuse_pickles(folder)
    scan.folder(folder)
    rank = _check_kind(folder, config)
    tensors = read_header(folder / _WEIGHTS)
    _check_tensors(folder, tensors, rank)
    _check_scale(folder, config)
    _check_base(folder, config, base, base_folder)
    if base_folder is not None:
        _check_shapes(folder, tensors, base, base_folder)
    return replace(_store(reference, folder, rank), stops=_stops(folder), note=_check_numbers(reference, folder))


def base_folder(base: str, revision: str | None) -> Path | None:
    """The files of the base model if they are on this machine: a folder, or a hub model that was fetched before."""
    if Path(base).is_dir():
        return Path(base)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(base, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _resolve(reference: str, start: Path) -> Path:
    folder = assets.find(reference, start) if ("/" in reference or not _is_run(reference)) else None
    if folder is None:
        try:
            run = runs.open_run(reference)
        except RunError as error:
            raise EngineError(f"adapter {reference} is neither a folder nor a run. {error}") from error
        if not run.adapter.is_dir():
            raise EngineError(
                f"run {reference} has no adapter (it is {run.state}). Train it: llmbench train {run.folder}/recipe.yaml"
            )
        folder = run.adapter
    if not folder.is_dir():
        raise EngineError(f"adapter {reference} is a file; name the folder that holds {_CONFIG}")
    return folder


def _is_run(name: str) -> bool:
    return (workspace.runs() / name / "state.json").exists()


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError(f"{folder} is no adapter: it has no {_CONFIG}") from None
    except (OSError, ValueError) as error:
        raise EngineError(f"{folder / _CONFIG} cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise EngineError(f"{folder / _CONFIG} is not a JSON object")
    return config


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for p in folder.glob(pattern))
    if pickles:
        raise EngineError(
            f"{folder} holds {pickles[0]}, a pickle that can run code when it is loaded. "
            f"Save the adapter as {_WEIGHTS} and remove it"
        )
    if not (folder / _WEIGHTS).is_file():
        raise EngineError(f"{folder} has no {_WEIGHTS}")


def _check_kind(folder: Path, config: dict[str, Any]) -> int:
    """Refuses what vLLM cannot serve, in the words that its training said it with; returns the highest rank."""
    reasons = unservable(config)
    kind = "SEQ_CLS" if config.get("task_type") == "SEQ_CLS" else str(config.get("peft_type"))
    if reasons:
        raise EngineError(f"{folder} {reasons[0]}, so vLLM cannot load it. {_remedy(folder, kind)}")
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(r, int) and r > 0 for r in ranks):
        raise EngineError(f"{folder / _CONFIG}: r must be a whole number above 0, not {ranks[0]!r}")
    return max(r for r in ranks if isinstance(r, int))


def _remedy(folder: Path, peft_type: str) -> str:
    """Merging, by the run's name where training wrote it down."""
    try:
        run = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return "Merge it into its base with PEFT (merge_and_unload), then serve that folder (model.model_name_or_path)"
    return remedy(str(run), peft_type)


def _check_tensors(folder: Path, tensors: Tensors, rank: int) -> None:
    """The names must be PEFT's: with another prefix vLLM loads nothing and answers as the base, silently."""
    halves = [name for name in tensors if ".lora_A." in name or ".lora_B." in name]
    if not halves:
        raise EngineError(f"{folder / _WEIGHTS} holds no LoRA weights")
    embeddings = [name for name in tensors if ".lora_embedding_" in name]
    if embeddings:
        raise EngineError(
            f"{folder} changes the embedding ({embeddings[0]}), so vLLM cannot load it. {_remedy(folder, 'LORA')}"
        )
    for name in halves:
        if not name.startswith("base_model.model."):
            raise EngineError(f"{folder / _WEIGHTS}: {name} does not start with base_model.model., so vLLM would ignore it")
        if ".lora_A.weight" in name and tensors[name][0] > rank:
            raise EngineError(f"{folder / _WEIGHTS}: {name} has rank {tensors[name][0]}, but {_CONFIG} says {rank}")

    for name in halves:
        half, other = (".lora_A.", ".lora_B.") if ".lora_A." in name else (".lora_B.", ".lora_A.")
        if name.replace(half, other) not in tensors:
            raise EngineError(f"{folder / _WEIGHTS}: {name} lacks its other half ({other.strip('.')}). Save or copy it again")


def _check_scale(folder: Path, config: dict[str, Any]) -> None:
    """What the product of the halves is multiplied with: `lora_alpha` by `r` (https://arxiv.org/abs/2106.09685, 4.1)."""
    alphas = {"lora_alpha": config.get("lora_alpha", 8), **(config.get("alpha_pattern") or {})}
    for name, alpha in alphas.items():
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
            raise EngineError(f"{folder / _CONFIG}: {name} must be a number, not {alpha!r:.40}")
        scale = abs(alpha) / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
        if scale > _MAX_SCALE:
            raise EngineError(
                f"{folder / _CONFIG}: {name} {alpha:g} with r {config['r']} multiplies the adapter by {scale:g}, "
                f"which drowns its base (at most {_MAX_SCALE:,} is served). Correct it, or train again"
            )


def _check_numbers(reference: str, folder: Path) -> str:
    """Refuses what is not finite: one NaN makes every answer empty. Returns a note where the adapter does nothing."""
    working = {"lora_A": False, "lora_B": False}
    for name, finite, zero in read_numbers(folder / _WEIGHTS):
        if not finite:
            raise EngineError(
                f"{folder / _WEIGHTS}: {name} holds NaN or infinity, so every answer would be empty. Train it again"
            )
        for half in working:
            working[half] = working[half] or (f".{half}." in name and not zero)
    if all(working.values()):
        return ""
    return f"adapter {reference} has only zeros in its matrices: it answers exactly as its base"


def _check_base(folder: Path, config: dict[str, Any], base: str, base_folder: Path | None) -> None:
    """The base must be the one it was trained on: by content where both are known, else by name."""
    named = str(config.get("base_model_name_or_path") or "unknown")
    trained_on = _manifest(folder)
    if trained_on and base_folder is not None:
        served = runs.fingerprint(base_folder)
        for part, words in _PARTS.items():
            if part in trained_on and part in served and trained_on[part] != served[part]:
                raise EngineError(
                    f"{folder} was trained on {named} ({words} {trained_on[part][:12]}), but the recipe serves {base} "
                    f"({words} {served[part][:12]}). Set model.model_name_or_path to its base, or train it again"
                )
        return
    if not _same_model(named, base, base_folder):
        raise EngineError(
            f"{folder} was trained on {named}, but the recipe serves {base}. "
            "Set model.model_name_or_path to its base, or train it again"
        )


def _manifest(folder: Path) -> dict[str, str]:
    """The base's fingerprint that training wrote beside the adapter; empty when another program trained it."""
    path = folder / _MANIFEST
    if not path.exists():
        return {}
    try:
        fingerprint = json.loads(path.read_text(encoding="utf-8"))["base_fingerprint"] or {}
        return {key: str(value) for key, value in fingerprint.items() if key in _PARTS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def _same_model(named: str, base: str, base_folder: Path | None) -> bool:
    if named in (base, assets.model_folder(base)):
        return True
    if base_folder is not None and Path(named).is_dir():
        return Path(named).samefile(base_folder)
    return False


def _check_shapes(folder: Path, tensors: Tensors, base: str, base_folder: Path) -> None:
    """Each half must fit the base's matrix of the same name, where the base has one of that name."""
    files = sorted(base_folder.glob("*.safetensors"))
    weights: Tensors = {}
    for file in files:
        weights |= read_header(file)
    _check_layers(folder, tensors, weights, base)
    for name, shape in tensors.items():
        plain = name.removeprefix("base_model.model.")
        matrix = weights.get(plain.replace(".lora_A.", ".").replace(".lora_B.", "."))
        if matrix is None or len(matrix) != 2 or len(shape) != 2:
            continue
        fits = shape[1] == matrix[1] if ".lora_A." in plain else shape[0] == matrix[0]
        if not fits:
            raise EngineError(
                f"{folder}: {plain} is {shape}, which does not fit {base}, whose matrix is {matrix}. It has another base"
            )


def _check_layers(folder: Path, tensors: Tensors, weights: Tensors, base: str) -> None:
    """Refuses a layer that the base has not. A name of no layer of the base's is left to vLLM, which knows more spellings."""
    modules = {name.removesuffix(".weight") for name in weights}
    alike: dict[str, set[str]] = {}
    for module in modules:
        alike.setdefault(_NUMBER.sub(".#.", module), set()).add(module)
    for name in tensors:
        module = name.removeprefix("base_model.model.").partition(".lora_")[0]
        others = alike.get(_NUMBER.sub(".#.", module), set())
        if module not in modules and others:
            raise EngineError(
                f"{folder}: {module} is adapted, but {base} has only {len(others)} such layers. It was trained on another base"
            )


def _store(reference: str, folder: Path, rank: int) -> Adapter:
    """Copies an adapter to its place by content. What stands there already is the same and stays."""
    store = workspace.home() / "adapters"
    store.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=store, prefix=".new-"))
    try:
        for name in (_CONFIG, _WEIGHTS, _MANIFEST):
            if (folder / name).exists():
                shutil.copyfile(folder / name, temporary / name)
        name = _hash(temporary / n for n in (_CONFIG, _WEIGHTS))
        if not (store / name).is_dir():
            temporary.chmod(0o755)
            try:
                temporary.rename(store / name)
            except OSError:
                if not (store / name).is_dir():
                    raise
    except OSError as error:
        raise EngineError(f"{store}: the adapter cannot be copied there ({error.strerror}). Free some space") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Adapter(name, reference, store / name, rank)


def _stops(folder: Path) -> tuple[int, ...]:
    """The stop tokens that an adapter's training noted beside it; none where the file is missing or says something else."""
    try:
        noted = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["stop_token_ids"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    known = isinstance(noted, list) and len(noted) <= _MOST_STOPS and all(type(stop) is int and stop >= 0 for stop in noted)
    return tuple(noted) if known else ()


def _hash(paths: Iterable[Path]) -> str:
    together = "".join(runs.file_hash(path) for path in paths)
    return hashlib.sha256(together.encode()).hexdigest()[:16]
