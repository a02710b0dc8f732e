"""What a run was made from and what was made with it, as far as llmbench's own files tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmbench import parity, provenance, workspace
from llmbench.errors import LlmbenchError
from llmbench.runs import made
from llmbench.runs.run import Run, every

__all__ = ["Node", "lineage"]


@dataclass(frozen=True)
class Node:
    """One thing in a lineage, with what it came from or what came of it."""

    kind: str
    """run, data, questions, base, adapter, teacher, certificate, copy, merged, model, comparison, variant or made."""
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    children: tuple[Node, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"kind": self.kind, "name": self.name, **self.facts, "children": [child.as_json() for child in self.children]}


def lineage(run: Run) -> tuple[Node, Node]:
    """The run with all it was made from, and the run with all that was made with it.

    Documents in the working directory and its recipes/ are looked through for variants that name the run.

    Raises:
        RunError: its recipe is damaged.
    """
    return _origins(run, ()), Node("run", run.name, {}, tuple(_uses(run)))


def _origins(run: Run, above: tuple[str, ...]) -> Node:
    """A run with its data, its base and whatever else it started from; each of these with its own run, where there is one."""
    recipe, lock = run.recipe, _json(run.folder / "lock.json")
    facts = {"state": run.status["state"], "method": recipe["method"], "created": run.created}
    return Node("run", run.name, facts, tuple(_made_from(run, recipe, lock, (*above, run.name))))


def _made_from(run: Run, recipe: dict[str, Any], lock: dict[str, Any], above: tuple[str, ...]) -> Iterator[Node]:
    report = _json(run.folder / "data.json")
    for part in ("train", "eval"):
        counted = (report.get(part) or {}).get("sources") or []
        for i, source in enumerate(lock.get("data", {}).get(part, [])):
            rows = {key: counted[i][key] for key in ("rows", "tokens") if i < len(counted) and key in counted[i]}
            yield _source(part, source, rows)
    asked = lock.get("questions")
    if asked:
        yield Node("questions", str(asked["path"]), {"sha256": asked["sha256"]} | _state(Path(asked["path"]), asked["sha256"]))
    model = lock.get("model", {})
    if "model" not in lock:
        name = recipe["model"]["model_name_or_path"]
        yield Node("base", str(name), {"weights": "not recorded"}, tuple(_runs_of(Path(str(name)), above)))
    elif model["name"] is None:
        yield Node("base", "random weights")
    else:
        facts = {"weights": model["fingerprint"].get("weights"), "revision": model.get("revision")}
        yield Node("base", str(model["name"]), _known(facts), tuple(_runs_of(Path(str(model["name"])), above)))
    started = recipe.get("adapter_name_or_path")
    if started:
        weights = model.get("adapter", {}).get("adapter_model.safetensors")
        yield Node("adapter", str(started), _known({"weights": weights}), tuple(_runs_of(Path(started), above)))
    teacher = (recipe.get("distillation") or {}).get("teacher", {}).get("model_name_or_path")
    if teacher:
        yield Node("teacher", str(teacher), {}, tuple(_runs_of(Path(str(teacher)), above)))
    replayed = _json(run.folder / "replay.json").get("of")
    if replayed:
        yield Node("run", str(replayed), {"replayed": True})


def _source(part: str, source: dict[str, Any], rows: dict[str, Any]) -> Node:
    facts: dict[str, Any] = {"part": part, **rows}
    lessons = source.get("lessons")
    if lessons:
        return Node("data", f"lessons {lessons['stage']}", facts | {"lessons": lessons})
    if source.get("dataset"):
        return Node("data", str(source["dataset"]), facts | _known({"split": source["split"], "revision": source["revision"]}))
    sha = source["sha256"]
    facts |= {"sha256": sha}
    if source.get("url"):
        return Node("data", str(source["url"]), facts, tuple(_maker(sha)))
    path, listed = Path(source["path"]), source.get("files", [])
    if len(listed) <= 1:
        file = path / listed[0]["name"] if listed and path.is_dir() else path
        return Node("data", str(path), facts | _state(file, sha), tuple(_maker(sha)))
    files = [(one["name"], one["sha256"]) for one in listed]
    nodes = (Node("data", name, {"sha256": each} | _state(path / name, each), tuple(_maker(each))) for name, each in files)
    return Node("data", str(path), facts, tuple(nodes))


def _maker(sha256: str) -> Iterator[Node]:
    found = made.of(sha256)
    if found is not None:
        yield Node("made", str(found["by"]), {key: value for key, value in found.items() if key != "by"})


def _state(path: Path, sha256: str) -> dict[str, str]:
    """Whether a file is still what was read."""
    try:
        return {"now": "unchanged" if provenance.file_hash(path) == sha256 else "changed"}
    except OSError:
        return {"now": "missing"}


def _runs_of(folder: Path, above: tuple[str, ...]) -> Iterator[Node]:
    """The run that left a folder, with what that one was made from."""
    home = workspace.runs().resolve()
    place = folder.resolve() if folder.is_absolute() else home / folder
    if not place.is_relative_to(home) or place == home:
        return
    run = Run(workspace.runs() / place.relative_to(home).parts[0])
    if not run.exists:
        return
    if run.name in above:
        yield Node("run", run.name, {"above": True})
        return
    try:
        yield _origins(run, above)
    except LlmbenchError as error:
        yield Node("run", run.name, {"damaged": str(error)})


def _uses(run: Run) -> Iterator[Node]:
    if run.adapter.is_dir():
        id = provenance.adapter_id(run.adapter)
        yield Node("adapter", str(run.adapter), {"id": id}, tuple(_of_adapter(run, id)))
    if run.model.is_dir():
        weights = _json(run.model / "llmbench.json").get("fingerprint", {}).get("weights")
        yield Node("model", str(run.model), _known({"weights": weights}))
    merged = run.folder / "merged"
    if merged.is_dir():
        facts = _json(merged / "llmbench.json").get("merged", {})
        yield Node("merged", str(merged), _known({key: facts.get(key) for key in ("dtype", "onto")}))
    for other in every():
        yield from _of_other(run, other)
    yield from _variants(run)


def _of_adapter(run: Run, id: str) -> Iterator[Node]:
    """Its certificate, the copy that was served, and the comparisons that asked it."""
    try:
        certificate = parity.read(run.adapter)
    except LlmbenchError as error:
        yield Node("certificate", "damaged", {"reason": str(error)})
    else:
        if certificate is not None:
            changed = list(certificate.changed(run.adapter))
            yield Node("certificate", "of other files" if changed else "valid", _known({"changed": changed or None}))
    copy = workspace.home() / "adapters" / id
    if copy.is_dir():
        yield Node("copy", str(copy), {"served": copy.stat().st_mtime})
    for path in sorted(workspace.comparisons().glob("*/summary.json")):
        found = _json(path)
        for variant, card in (found.get("listing") or {}).items():
            if isinstance(card, dict) and (card.get("adapter") or {}).get("id") == id:
                rag = card.get("rag")
                yield Node(
                    "comparison", path.parent.name, _known({"variant": variant, "rag": rag, "verdict": found["verdict"]})
                )


def _of_other(run: Run, other: Run) -> Iterator[Node]:
    """Another run that started from this one, or repeats it."""
    if other.name == run.name:
        return
    replay = _json(other.folder / "replay.json")
    if replay.get("of") == run.name:
        yield Node("run", other.name, _known({"replays": run.name, "verdict": replay.get("verdict")}))
        return
    try:
        recipe = other.recipe
    except LlmbenchError:
        return
    starts = {
        "model": recipe["model"]["model_name_or_path"],
        "adapter": recipe.get("adapter_name_or_path"),
        "teacher": (recipe.get("distillation") or {}).get("teacher", {}).get("model_name_or_path"),
    }
    for how, start in starts.items():
        if start and Path(start).is_absolute() and Path(start).resolve().is_relative_to(run.folder.resolve()):
            yield Node("run", other.name, {"started_from_its": how, "state": other.status["state"]})


def _variants(run: Run) -> Iterator[Node]:
    """Variants of serving documents nearby that name the run's adapter."""
    here = Path.cwd()
    for path in sorted({*here.glob("*.y*ml"), *(here / "recipes").glob("*.y*ml")}):
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        variants = found.get("variants") if isinstance(found, dict) else None
        for variant in variants if isinstance(variants, list) else []:
            named = variant.get("adapter") if isinstance(variant, dict) else None
            if named and (named == run.name or (path.parent / str(named)).resolve() == run.adapter.resolve()):
                name = f"{path.relative_to(here)}: {variant.get('name')}"
                yield Node("variant", name, _known({"rag": variant.get("rag")}))


def _known(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value is not None}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
