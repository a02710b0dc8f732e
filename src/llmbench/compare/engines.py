"""`engine: auto`: an engine for each base model in turn, as `llmbench serve` starts one, on a free port of this machine.

What is known of a variant before any engine runs (the weights, the adapter's hash, the pipeline) is known from the same
functions as the gateway's own listing, so that a comparison whose answers are all there starts nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import assets, engine, workspace
from llmbench.compare.jobs import Way
from llmbench.errors import RecipeError
from llmbench.onnx_model import GRAPH
from llmbench.recipe import VLLM_ALONE, ComparedVariant, CompareRecipe, RagRecipe, ServeRecipe, load

__all__ = ["Started", "running", "started"]


@dataclass(frozen=True)
class Started:
    """One engine that will be started, and how its variants are asked of it."""

    document: ServeRecipe
    title: str
    """Its model, for people."""
    ways: tuple[Way, ...]


def started(recipe: CompareRecipe, variants: Sequence[ComparedVariant]) -> list[Started]:
    """The engines, in the order in which the recipe first names their models. None is started; adapters are checked and stored.

    Raises:
        RecipeError, EngineError, MissingPackage: a model, an adapter or vLLM is not there, or does not fit.
    """
    groups: dict[str, list[ComparedVariant]] = {}
    for variant in variants:
        groups.setdefault(_model(recipe, variant), []).append(variant)
    return [_started(recipe, model, of) for model, of in groups.items()]


@contextmanager
def running(one: Started, progress: Callable[[str, float], None] | None, log: Callable[[str], None] | None) -> Iterator[str]:
    """The engine, answering at the URL that is given; it and all that it started end with the block.

    Args:
        one: which.
        progress: called while it starts with what it is doing and for how many seconds.
        log: called with a line for each thing worth knowing.
    """
    from llmbench import gateway

    def tick(state: engine.Progress) -> None:
        if progress is not None:
            progress(f"Starting {one.title}: {state.phase}", state.seconds)

    with gateway.running(one.document, progress=tick, log=log) as base_url:
        yield base_url


def _model(recipe: CompareRecipe, variant: ComparedVariant) -> str:
    """The folder of a variant's model, `llmbench/tiny`, or a hub's name."""
    name = variant.model or assets.TINY
    if name == assets.TINY:
        return name
    found = assets.find(name, recipe.folder) or assets.find(name, Path.cwd())
    if found is not None and found.is_dir():
        return str(found)
    export = workspace.exports() / name
    if "/" not in name and export.is_dir():
        return str(export)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    exports = sorted(path.name for path in workspace.exports().glob("*") if path.is_dir() and not path.name.startswith("."))
    raise RecipeError(
        f"{recipe.source}: variant {variant.name}: there is no model {name}. Give a folder, a hub's name, or an export "
        f"(available: {', '.join(exports) or 'none'})"
    )


def _started(recipe: CompareRecipe, model: str, variants: Sequence[ComparedVariant]) -> Started:
    """The serving document of one model: a variant for each adapter and pipeline, as prompts and sampling are sent along."""
    onnx = (Path(assets.model_folder(model)) / GRAPH).is_file()
    options = recipe.engine_options.model_dump(mode="json", exclude_unset=True)
    if onnx:
        options = {name: value for name, value in options.items() if name not in VLLM_ALONE} | {"backend": "onnx"}
    served: dict[tuple[str | None, Path | None], str] = {}
    for variant in variants:
        served.setdefault((variant.adapter, variant.pipeline), f"v{len(served)}")
    document = {
        "model": {"model_name_or_path": model},
        "variants": [
            {"name": name, "adapter": adapter, "rag": str(rag) if rag is not None else None}
            for (adapter, rag), name in served.items()
        ],
        "engine": options,
        "gateway": {"port": 0},
    }
    made = _validated(recipe, document, variants)
    names = {served[variant.adapter, variant.pipeline]: variant.name for variant in reversed(variants)}
    entries, known = _entries(made, names), _known(made)
    ways = []
    for variant in variants:
        entry = entries[served[variant.adapter, variant.pipeline]]
        about = {"adapter": entry["adapter"], "pipeline": entry["rag"], "model": entry["fingerprint"]}
        manifest = known | {name: value for name, value in about.items() if value is not None} | _spoken(variant)
        ways.append(Way(variant, served[variant.adapter, variant.pipeline], entry | {"id": variant.name}, manifest))
    return Started(made, assets.plain_name(model), tuple(ways))


def _validated(recipe: CompareRecipe, document: dict[str, Any], variants: Sequence[ComparedVariant]) -> ServeRecipe:
    """The document, whose faults are told of the comparison's recipe."""
    from pydantic import ValidationError

    try:
        made = ServeRecipe.model_validate(document, context={"folder": str(recipe.folder)})
    except ValidationError as error:
        why = error.errors(include_url=False)[0]
        said = str(why.get("ctx", {}).get("error", why["msg"]))
        raise RecipeError(f"{recipe.source}: variants {', '.join(one.name for one in variants)}: {said}") from error
    made._source = recipe.source
    return made


def _entries(document: ServeRecipe, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What the gateway would list about each served variant; `names` are what the recipe calls the first that asks each."""
    from llmbench.gateway import cards

    adapters = {
        one.adapter: engine.admit_variant(document, names[one.name], one.adapter)
        for one in document.variants
        if one.adapter is not None
    }
    pipelines = {variant.rag: load(variant.rag, RagRecipe) for variant in document.variants if variant.rag is not None}
    found = {}
    for variant in document.variants:
        adapter = adapters[variant.adapter] if variant.adapter is not None else None
        pipeline = pipelines[variant.rag] if variant.rag is not None else None
        found[variant.name] = {
            "root": assets.plain_name(document.model.model_name_or_path),
            "adapter": {"name": assets.plain_name(adapter.source), "id": adapter.id, "rank": adapter.rank} if adapter else None,
            "rag": pipeline.name if pipeline is not None else None,
            "fingerprint": cards.fingerprint(document, variant, adapter, pipeline),
        }
    return found


def _known(document: ServeRecipe) -> dict[str, Any]:
    """What is the same for all variants of an engine: its name and version, the base, its chat template."""
    from importlib.metadata import version

    folder = Path(assets.model_folder(document.model.model_name_or_path))
    if document.engine.backend == "onnx":
        about = {"name": "onnxruntime", "version": version("onnxruntime")}
    else:
        found = engine.inspect(document.engine.python)
        about = {"name": "vllm", "version": found.version, "device": found.device}
    known: dict[str, Any] = {"base": assets.plain_name(document.model.model_name_or_path), "engine": about}
    if template := _template(folder):
        known["chat_template"] = hashlib.sha256(template.encode()).hexdigest()[:16]
    return known


def _template(folder: Path) -> str:
    """The chat template of a model's folder, where it has one on this machine."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    found = config.get("chat_template") if isinstance(config, dict) else None
    return json.dumps(found) if found else ""


def _spoken(variant: ComparedVariant) -> dict[str, Any]:
    given = variant.prompt.model_dump(exclude_defaults=True)
    return {"prompt": hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]} if given else {}
