"""The data report of a recipe, made once for rows that do not change: kept in the cache beside the rows, and put into runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.data import cache, page, vocabulary
from llmbench.data.duplicates import THRESHOLD
from llmbench.data.report import SCHEMA, DataReport, Hashes, read_json, to_json
from llmbench.errors import DataError

if TYPE_CHECKING:
    from llmbench.data.values import Rows
    from llmbench.recipe import DataSpec, TrainRecipe

__all__ = ["hashes", "own_template", "report", "write"]

_UNLIMITED = 2**31 - 1
_MADE = 4
"""Counted up when the same rows are reported on otherwise than before."""
_KEPT = 200
"""Reports that stay in the cache; the oldest go first."""

Load = Callable[["DataSpec"], "Rows"]


def report(
    recipe: TrainRecipe,
    folder: Path,
    load: Load,
    *,
    stops: Sequence[int] = (),
    shown: int = 3,
    threshold: float = THRESHOLD,
) -> DataReport:
    """The report of a recipe's rows, from the cache or made now.

    Rows that training refuses, as too long or as unusable, are reported on all the same; the refusal is the first note.

    Args:
        recipe: what the rows are for.
        folder: where the tokenizer is.
        load: `data.load` with everything but the `data` section filled in; called only when there is no report yet.
        stops: the tokens at which the model stops by itself.
        shown: rows to render token by token.
        threshold: the Jaccard similarity from which rows are near duplicates.

    Raises:
        DataError: see `data.load`; a fault that leaves nothing to report on.
    """
    path = workspace.cache() / "reports" / f"{_key(recipe, folder, stops, shown, threshold)}.json"
    try:
        kept = read_json(path.read_text(encoding="utf-8"))
        os.utime(path)
        return kept
    except (OSError, ValueError):  # none yet, or not whole: it is rebuilt
        pass
    made = _made(recipe, folder, load, stops, shown, threshold)
    workspace.write_text(path, to_json(made))
    _forget(path.parent)
    return made


def write(report: DataReport, folder: Path) -> None:
    """Puts data.json and data.html into a run's folder, each whole or not at all."""
    workspace.write_text(folder / "data.json", to_json(report))
    workspace.write_text(folder / "data.html", page.html(report))


def hashes(recipe: TrainRecipe, folder: Path) -> Hashes:
    """sha256 of the tokenizer and of the chat template that is in force."""
    template = recipe.data.template() or own_template(folder)
    return Hashes(
        hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
        hashlib.sha256(template.encode()).hexdigest() if template else None,
    )


def own_template(folder: Path) -> str | None:
    """The chat template in a tokenizer's folder, in either of the two places where it may stand."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    found = json.loads(settings.read_text(encoding="utf-8")).get("chat_template") if settings.exists() else None
    if isinstance(found, list):  # several with names, as older models have them
        found = next((one["template"] for one in found if one["name"] == "default"), found[0]["template"])
    return found


def _made(recipe: TrainRecipe, folder: Path, load: Load, stops: Sequence[int], shown: int, threshold: float) -> DataReport:
    from tokenizers import Tokenizer

    from llmbench.data.examination import examine

    refused = None
    try:
        rows = load(recipe.data)
    except DataError as error:
        refused = str(error)
        rows = _all_the_same(recipe.data, load, error)
    tokenizer: Any = vocabulary.extended(Tokenizer.from_file(str(folder / "tokenizer.json")), recipe.tokenizer)
    found = hashes(recipe, folder)
    return examine(recipe, rows, tokenizer, found, stops=stops, shown=shown, threshold=threshold, refused=refused)


def _all_the_same(spec: DataSpec, load: Load, error: DataError) -> Rows:
    """The rows that there are, without those that cannot be used, and if need be without `max_length`."""
    lenient = spec.model_copy(update={"bad_rows": "skip"})
    whole = lenient.model_copy(update={"max_length": _UNLIMITED, "over_length": "drop"})
    for tried in (lenient, whole) if spec.over_length in ("drop", "truncate") else (whole,):
        try:
            return load(tried)
        except DataError:
            continue
    raise error


def _key(recipe: TrainRecipe, folder: Path, stops: Sequence[int], shown: int, threshold: float) -> str:
    """The hash of everything that a report follows from: the rows of both parts and the recipe."""
    files, spec, seed = cache.Hashes(workspace.cache()), recipe.data, recipe.training.seed
    tokenizer = cache.grown(cache.tokenizer_hash(folder), recipe.tokenizer, stops)
    fraction = 0.0 if spec.eval else spec.eval_fraction
    parts = [cache.key(spec, spec.train, tokenizer, None, fraction, seed, files)]
    if spec.eval:
        parts.append(cache.key(spec, spec.eval, tokenizer, None, 0.0, seed, files))
    files.save()
    batches = {
        "per_device_train_batch_size", "max_tokens_per_batch", "pad_to_multiple_of", "padding_free", "packing", "performance",
        "torch_compile",
    }  # fmt: skip
    used = recipe.model_dump(mode="json", include={"name": True, "method": True, "data": True, "training": batches})
    what = [SCHEMA, _MADE, *parts, str(recipe.source), recipe.model.model_name_or_path, used, seed, shown, threshold]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def _forget(folder: Path) -> None:
    own = [path for path in folder.glob("*.json") if re.fullmatch(r"[0-9a-f]{32}", path.stem)]
    kept = sorted(own, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[_KEPT:]:
        path.unlink(missing_ok=True)
