"""Before anything is trained: what a run was made of, what of it is here, and what keeps it from being replayed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmbench import hardware
from llmbench.errors import LlmbenchError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.runs.ingredients import CONTENT, Ingredient, compare
from llmbench.training import lock
from llmbench.training.loading.model import computation_dtype, device_of, load_tokenizer, local_folder
from llmbench.training.lock import Grounds
from llmbench.training.replaying.history import Stretch, stretches

__all__ = ["Check", "changed_rows", "check", "threads"]

_LATER = ("rows", "resumed", "changed")
"""What a lock says that only reading the rows, or resuming, tells."""


@dataclass(frozen=True)
class Check:
    """What a replay of a run would be made of. Nothing has been trained or written."""

    run: Run
    recorded: dict[str, Any]
    """The run's lock."""
    stretches: tuple[Stretch, ...]
    """The recipes to train; empty where there is an obstacle."""
    steps: int
    """Steps of the recording: the last that it logged."""
    ingredients: tuple[Ingredient, ...]
    """As recorded, and as they are here."""
    obstacles: tuple[str, ...]
    """Why it cannot be replayed."""
    notes: tuple[str, ...]
    """What a person should know of the recording."""

    @property
    def content(self) -> list[Ingredient]:
        """What makes it another training: data, base, tokenizer, template, seed, questions that are not those recorded."""
        return [one for one in self.ingredients if one.part in CONTENT and one.state == "differs"]

    @property
    def same(self) -> bool:
        """Whether it can be replayed and everything that is recorded is the same here."""
        return not self.obstacles and all(one.state != "differs" for one in self.ingredients)


def check(run: Run, name: str) -> Check:
    """Looks at everything that a run's lock records, and compares it with what is here. Loads no model.

    Args:
        run: the recording; it is only read.
        name: of the run to be made.

    Raises:
        RunError: recipe.yaml is damaged.
    """
    status = run.status
    logged = [row["step"] for row in run.metrics() if "loss" in row]
    if status["state"] == "running":
        return _refused(run, f"run {run.name} is training; replay it when it has ended")
    if not (run.folder / "lock.json").exists() or not logged:
        return _refused(run, f"run {run.name} has no {'logged step' if logged == [] else 'lock.json'} to compare with")
    recorded = run.lock
    drawn = run.recipe.get("grpo") or {}
    by = next((name for name, value in (("use_vllm", True), ("generator", "vllm")) if drawn.get(name) == value), None)
    if by is not None:
        return _refused(
            run,
            f"grpo.{by}: vLLM wrote the answers that it learned from, and the order of its batches, which decides about "
            "their last bits, is not recorded",
        )
    try:
        found = stretches(run, recorded, _overrides(run.recipe, recorded), name)
        with threads(recorded):
            now = lock.of(found[-1].recipe, _grounds(found[-1].recipe)) | {"settled": lock.settled(found[-1].recipe)}
    except LlmbenchError as error:
        return _refused(run, str(error), recorded)
    before = {key: value for key, value in recorded.items() if key not in _LATER}
    ingredients = tuple(compare(before, now if "settled" in before else {k: v for k, v in now.items() if k != "settled"}))
    return Check(run, recorded, tuple(found), max(logged), ingredients, (), tuple(_notes(run, recorded)))


def _refused(run: Run, obstacle: str, recorded: dict[str, Any] | None = None) -> Check:
    return Check(run, recorded or {}, (), 0, (), (obstacle,), ())


def _overrides(recipe: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    """What the recipe left open and the run's machine decided: device, precision, and what `performance: auto` chose.

    Trackers are told nothing of a replay: it is a test of a run that they have.
    """
    found, there = ["tracking=none"], recorded.get("hardware", {})
    device, dtype = there.get("device"), there.get("dtype")
    if recipe["model"]["device"] == "auto" and (device == "cpu" or (device == "cuda" and torch.cuda.is_available())):
        found.append(f"model.device={device}")
        if recipe["model"]["dtype"] == "auto" and dtype:
            found.append(f"model.dtype={dtype}")
    for key, value in recorded.get("settled", {}).items():
        if recipe["training"].get(key) is None and value is not None:
            found.append(f"training.{key}={str(value).lower()}")
    return found


def _grounds(recipe: TrainRecipe) -> Grounds:
    spec = recipe.model
    folder = local_folder(spec) if spec.config is None else None
    device = device_of(spec)
    started = Path(recipe.adapter_name_or_path) if recipe.adapter_name_or_path is not None else None
    grown = started if started is not None and (started / "tokenizer.json").exists() else None
    template = recipe.data.template()
    if template is None:
        tokenizer = load_tokenizer(spec.tokenizer or grown or folder or local_folder(spec), spec)
        template = getattr(tokenizer, "chat_template", None)
    return Grounds(folder, device, computation_dtype(spec, device), template)


def changed_rows(recorded: dict[str, Any], rows: Any) -> list[Ingredient]:
    """The prepared rows beside those of the recording."""
    return compare({"rows": recorded["rows"]} if "rows" in recorded else {}, {"rows": lock.row_hashes(rows)})


@contextmanager
def threads(recorded: dict[str, Any]) -> Iterator[None]:
    """As many threads as the recording had, where this process has as many cores: their number decides about the last bits."""
    there, before = recorded.get("hardware", {}), torch.get_num_threads()
    wanted = there.get("threads")
    if there.get("device") != "cpu" or not isinstance(wanted, int) or not 0 < wanted <= hardware.cores():
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _notes(run: Run, recorded: dict[str, Any]) -> Iterator[str]:
    for entry in recorded.get("resumed", []):
        parts = [part for part in ("versions", "hardware", "numerics", "settled") if part in entry]
        if parts:
            yield f"resumed at step {entry['step']} with other {' and '.join(parts)}, which a replay does not change midway"
    for entry in recorded.get("changed", []):
        yield f"resumed at step {entry['step']} with {', '.join(entry['recipe'])}; the replay does the same"
    if recorded.get("hardware", {}).get("device") == "cuda":
        yield "trained on a GPU, whose kernels add in no fixed order: expect the same within the tolerance, not the same bits"
