"""What lies beside the weights for people: the model card in the hubs' form, the base's licence, and the lineage.

A folder that is exported is meant to be given away, so no path of this machine is written into it: a file is called by its
name and its sha256.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from llmbench import assets, provenance, shown, workspace
from llmbench.exporting import proof as proofs
from llmbench.exporting.proof import Proof
from llmbench.runs import Run
from llmbench.runs.lineage import lineage

__all__ = ["CARD", "LINEAGE", "Subject", "front_matter", "write"]

CARD, LINEAGE = "README.md", "lineage.json"
_LICENCES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")
_LIBRARIES = {"adapter": "peft", "merged": "transformers"} | dict.fromkeys(
    ("int8", "w4a16", "awq", "fp8", "torchao-int8"), "transformers"
)
_MOST = 100_000
"""Characters of the base's own card that are looked through."""


@dataclass(frozen=True)
class Subject:
    """What a card is about."""

    run: Run
    step: int | None
    base: Path | None
    """The base's folder."""
    base_name: str | None
    """As the recipe calls it; None where training began with random weights."""
    adapter: Path | None
    """The run's adapter, which comparisons know by its content; None for a whole model or a checkpoint."""
    title: str
    """Of the format."""
    usage: str
    """How to use the folder, in Markdown."""


def write(subject: Subject, proof: Proof, folder: Path) -> None:
    """Writes the card, the lineage, and the base's licence files into an exported folder."""
    copied = _licence(subject.base, folder)
    workspace.write_json(folder / LINEAGE, _lineage(subject, proof))
    text = "\n".join(_lines(subject, proof, copied))
    workspace.write_text(folder / CARD, f"---\n{yaml.safe_dump(front_matter(subject, proof), sort_keys=False, allow_unicode=True)}---\n\n{text}\n")  # fmt: skip  # noqa: E501


def front_matter(subject: Subject, proof: Proof) -> dict[str, Any]:
    """The head of the card, as the hubs read it."""
    recipe = subject.run.recipe
    known = _card(subject.base)
    values: dict[str, Any] = {"license": str(known.get("license") or "other")}
    values |= {key: known[key] for key in ("license_name", "license_link", "language") if known.get(key)}
    if _on_a_hub(subject.base_name):
        relation = {"adapter": "adapter", "merged": "finetune"}.get(proof.format, "quantized")
        values |= {"base_model": subject.base_name, "base_model_relation": relation}
    values["library_name"] = _LIBRARIES.get(proof.format, proof.format)
    values["pipeline_tag"] = "text-generation"
    kinds = [name for name in ("lora", "quantization") if recipe.get(name)]
    values["tags"] = ["llmbench", recipe["method"], *({"lora": "lora", "quantization": "qlora"}[kind] for kind in kinds)]
    hubs = sorted({str(source["dataset"]) for source in recipe["data"]["train"] if source.get("dataset")})
    if hubs:
        values["datasets"] = hubs
    results = list(_results(subject))
    if results:
        values["model-index"] = [{"name": subject.run.name, "results": results}]
    return values


def _on_a_hub(name: str | None) -> bool:
    return name is not None and name != assets.TINY and name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _card(base: Path | None) -> dict[str, Any]:
    """The head of the base's own card; empty where it has none."""
    try:
        text = (base / CARD).read_text(encoding="utf-8")[:_MOST] if base is not None else ""
        found = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _licence(base: Path | None, folder: Path) -> list[str]:
    """Copies the base's licence files, and of the bundled model llmbench's own; returns their names."""
    if base is None:
        return []
    found = [path for pattern in _LICENCES for path in sorted(base.glob(pattern)) if path.is_file()]
    if not found and base == Path(assets.model_folder(assets.TINY)):
        found = [path for path in (assets.bundle() / "LICENSE", *_installed()) if path.is_file()][:1]
    for path in found:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in found]


def _installed() -> list[Path]:
    """Where an installed llmbench has its licence."""
    try:
        return [Path(str(file.locate())) for file in metadata.files("llmbench") or () if file.name == "LICENSE"]
    except metadata.PackageNotFoundError:
        return []


def _lineage(subject: Subject, proof: Proof) -> dict[str, Any]:
    origins, _ = lineage(subject.run)
    exported = {"format": proof.format, "precision": proof.precision, "step": subject.step, "files": proof.files}
    found: dict[str, Any] = _public({"exported": exported, "made_from": origins.as_json()})
    return found


def _public(value: Any) -> Any:
    """The same without paths: of a file of this machine its name stays."""
    match value:
        case dict():
            return {key: _public(item) for key, item in value.items()}
        case list() | tuple():
            return [_public(item) for item in value]
        case str() if value.startswith(("/", "~")) and "\n" not in value:
            return Path(value).name
    return value


def _results(subject: Subject) -> Iterator[dict[str, Any]]:
    """Entries of `model-index`: the held-out loss, and what comparisons found, with their intervals."""
    for name, value in (subject.run.status.get("evaluation") or {}).items() if subject.step is None else ():
        kind = name.removeprefix("eval_")
        held = {"name": "held-out rows of the training's data", "type": "held-out"}
        yield _result(held, [{"type": kind, "value": float(value), "name": kind}])
    for found in _comparisons(subject.adapter):
        of = {"name": str(found["name"]), "type": "llmbench-comparison"}
        metrics = [
            {
                "type": metric, "value": one["mean"],
                "name": f"{metric} ({found['confidence']:.0%} interval {one['low']:.3f} to {one['high']:.3f}, n={one['n']})",
                "args": {"low": one["low"], "high": one["high"], "n": one["n"], "confidence": found["confidence"]},
            }
            for metric, one in found["estimates"].items()
        ]  # fmt: skip
        if metrics:
            yield _result(of, metrics)


def _result(dataset: dict[str, str], metrics: list[dict[str, Any]]) -> dict[str, Any]:
    return {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}


def _comparisons(adapter: Path | None) -> Iterator[dict[str, Any]]:
    """What comparisons of this workspace found about an adapter, known by its content."""
    if adapter is None:
        return
    id_ = provenance.adapter_id(adapter)
    for path in sorted(workspace.comparisons().glob("*/summary.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            for variant, listed in found["listing"].items():
                if (listed.get("adapter") or {}).get("id") == id_:
                    estimates = {m: each[variant] for m, each in found["estimates"].items() if variant in each}
                    yield {
                        "name": path.parent.name, "variant": variant, "verdict": found["verdict"], "rag": listed.get("rag"),
                        "confidence": float(found.get("confidence") or 0.95), "estimates": estimates,
                    }  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # damaged, or of an older form: a card does without it


def _lines(subject: Subject, proof: Proof, licences: list[str]) -> Iterator[str]:
    recipe, run = subject.run.recipe, subject.run
    base = subject.base_name or "random weights"
    at = f", step {subject.step}" if subject.step is not None else ""
    yield f"# {run.name}"
    yield ""
    yield f"{base}, trained further by {recipe['method'].upper()}{at}; {subject.title} ({proof.precision})."
    if not proof.holds:
        yield "\n**Its proof failed: this folder is not what was trained. Do not use it.**"
    yield f"\n## How to use it\n\n{subject.usage}"
    yield "\n## Proof\n"
    yield f"Read back and compared with the trained model, which was asked in {proof.reference['dtype']} (`{proofs.FILE}`):\n"
    yield "| check | holds | found | allowed |\n|---|---|---|---|"
    words = {True: "yes", False: "**no**", None: "-"}
    yield from (f"| {one.name} | {words[one.holds]} | {_cell(one.found)} | {_cell(one.allowed)} |" for one in proof.checks)
    yield from _figures(subject)
    yield from _training(subject)
    yield "\n## Limits\n"
    yield from _limits(subject)
    yield "\n## Licence\n"
    yield _terms(subject, licences)
    yield "\n<details><summary>The whole recipe</summary>\n"
    yield f"```yaml\n{yaml.safe_dump(_public(recipe), sort_keys=False, allow_unicode=True)}```\n\n</details>"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _figures(subject: Subject) -> Iterator[str]:
    yield "\n## Evaluation\n"
    held = (subject.run.status.get("evaluation") or {}) if subject.step is None else {}
    for name, value in held.items():
        yield f"- {name.removeprefix('eval_')} on held-out rows: {value:.4g}"
    compared = list(_comparisons(subject.adapter))
    for found in compared:
        rag = f" with passages from {found['rag']}" if found["rag"] else ""
        yield f"\nComparison `{found['name']}` ({found['variant']}{rag}): {found['verdict']}\n"
        yield f"| metric | mean | {found['confidence']:.0%} interval | questions |\n|---|---|---|---|"
        for metric, one in found["estimates"].items():
            yield f"| {metric} | {one['mean']:.3f} | {one['low']:.3f} to {one['high']:.3f} | {one['n']} |"
    if not held and not compared:
        yield "No evaluation of these weights is recorded."


def _training(subject: Subject) -> Iterator[str]:
    run = subject.run
    lock, status, report = run.lock, run.status, _report(run)
    machine, spec = lock["hardware"], run.recipe["training"]
    yield "\n## Training\n"
    yield f"- base: {subject.base_name or 'random weights'}{_revision(lock)}"
    for source in lock["data"]["train"]:
        name = source.get("dataset") or source.get("url") or Path(str(source.get("path", "generated lessons"))).name
        digest = f", sha256 {source['sha256'][:16]}" if source.get("sha256") else ""
        yield f"- data: {name}{digest}"
    rows, tokens = report.get("rows"), report.get("tokens")
    if rows:
        yield f"- rows: {rows:,}" + (f", {tokens:,} tokens" if isinstance(tokens, int) else "")
    yield f"- method: {run.recipe['method']}, learning rate {spec['learning_rate']}, seed {lock['seed']}"
    adapter = run.recipe.get("lora")
    if adapter:
        yield f"- LoRA: rank {adapter['r']}, alpha {adapter['lora_alpha']}, modules {adapter['target_modules']}"
    gpu = machine.get("gpu") or machine.get("processor", "")
    yield f"- hardware: {machine['device']}, {gpu}; computed in {machine['dtype']}"
    if status.get("seconds"):
        yield f"- {status.get('step', 0):,} steps in {shown.clock(status['seconds'])}, {status.get('tokens', 0):,} tokens"
    versions = {name: lock["versions"][name] for name in ("torch", "transformers", "trl", "peft") if name in lock["versions"]}
    yield f"- versions: {', '.join(f'{name} {version}' for name, version in versions.items())}"
    yield f"- `{LINEAGE}` has the hashes of data and base, and where these came from"


def _report(run: Run) -> dict[str, Any]:
    try:
        found = json.loads((run.folder / "data.json").read_text(encoding="utf-8"))["train"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _revision(lock: dict[str, Any]) -> str:
    model = lock.get("model") or {}
    weights = (model.get("fingerprint") or {}).get("weights")
    revision = f", revision {model['revision']}" if model.get("revision") else ""
    return revision + (f" (weights sha256 {weights[:16]})" if weights else "")


def _limits(subject: Subject) -> Iterator[str]:
    yield "- It keeps the limits and biases of its base, and may have learned those of its data."
    length = subject.run.recipe["data"].get("max_length")
    if length:
        yield f"- It was trained on texts of at most {length:,} tokens; longer ones are less certain."
    yield "- Nothing here says that its answers are safe or true. Evaluate it on your own questions before you rely on it."


def _terms(subject: Subject, licences: list[str]) -> str:
    known = _card(subject.base).get("license")
    if licences:
        return (
            f"That of the base, {subject.base_name}{f' ({known})' if known else ''}: {', '.join(licences)} next to this file."
        )
    if known:
        return f"That of the base, {subject.base_name}: {known}, as its own card says. Its text is with the base."
    if subject.base_name is None:
        return "It was trained from random weights, so no base's licence applies: choose one."
    return f"The folder of the base, {subject.base_name}, names no licence. Look it up before you pass this on."
