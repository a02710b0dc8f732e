"""The main job from end to end on the bundled model and handbook: index, fine-tune, serve, compare.

Each step reuses what an earlier run left, so that a demo that was killed goes on where it was, and a second one is quick.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import yaml

from llmbench import assets, provenance, runs
from llmbench import recipe as recipes
from llmbench.errors import RunError
from llmbench.recipe import CompareRecipe, RagRecipe, ServeRecipe, TrainRecipe
from llmbench.runs import Run

if TYPE_CHECKING:
    from llmbench.compare import Comparison

__all__ = ["STEPS", "Display", "Documents", "run"]

STEPS = ("Index the handbook", "Fine-tune an adapter", "Start vLLM", "Compare four variants")


class Display(Protocol):
    """What shows the steps, on a terminal or in a log."""

    def begin(self, step: int) -> None:
        """A step starts, counted from 0."""

    def report(self, share: float | None, words: str) -> None:
        """How far it is: a share from 0 to 1, or None where nobody knows, and a few words."""

    def end(self, words: str, seconds: float) -> None:
        """It is done."""


@dataclass(frozen=True)
class Documents:
    """The four documents of the demo, loaded before anything starts."""

    rag: RagRecipe
    train: TrainRecipe
    serve: ServeRecipe
    compare: CompareRecipe

    @classmethod
    def load(cls) -> Documents:
        """Reads the bundled documents; the gateway takes a free port, so that a running one is in nobody's way."""
        return cls(
            recipes.load("rag/handbook.yaml", RagRecipe),
            recipes.load("recipes/sft-lora.yaml", TrainRecipe),
            recipes.load("recipes/serve.yaml", ServeRecipe, ["gateway.port=0"]),
            recipes.load("recipes/compare.yaml", CompareRecipe),
        )


def run(display: Display, *, fresh: bool = False) -> Comparison:
    """Runs the four steps and returns the comparison.

    Args:
        display: shows how far it is.
        fresh: forget what an earlier demo left, and do everything again.

    Raises:
        LlmbenchError: something is missing on this machine; `llmbench doctor` says what.
        KeyboardInterrupt: stopped; the next demo goes on from there.
    """
    from llmbench import compare

    documents = Documents.load()
    with _step(display, 0) as done:
        done(_index(documents.rag, display, fresh))
    with _step(display, 1) as done:
        done(_fine_tune(documents.train, display, fresh))
    with ExitStack() as stack:
        with _step(display, 2) as done:
            base_url = stack.enter_context(_serve(documents.serve, display))
            done(f"{len(documents.serve.variants)} variants at {base_url}")
        with _step(display, 3) as done:
            endpoint = documents.compare.endpoint.model_copy(update={"base_url": base_url})
            asked = documents.compare.model_copy(update={"endpoint": endpoint})
            comparison = compare.run(
                asked, fresh=fresh, progress=lambda tally: display.report(tally.done / max(1, tally.wanted), "asking")
            )
            done(f"{len(comparison.questions)} questions x {len(comparison.variants)} variants")
    return comparison


@contextmanager
def _step(display: Display, number: int) -> Iterator[Callable[[str], None]]:
    """Shows a step from its begin to its end; the block says in a few words what came out."""
    began, words = time.perf_counter(), ""

    def done(text: str) -> None:
        nonlocal words
        words = text

    display.begin(number)
    yield done
    display.end(words, time.perf_counter() - began)


def _index(recipe: RagRecipe, display: Display, fresh: bool) -> str:
    from llmbench import retrieval

    report = retrieval.build(
        recipe, rebuild=fresh, progress=lambda files, total, source: display.report(files / max(1, total), source)
    )
    pages = report.added + report.changed + report.unchanged
    return f"{pages} pages, {report.chunks} chunks, {report.embedded} embedded"


def _fine_tune(recipe: TrainRecipe, display: Display, fresh: bool) -> str:
    """Trains the adapter, or goes on with a stopped run, or takes the finished one when its recipe is the same."""
    found = None if fresh else _earlier(recipe)
    if found is not None and found.state == "finished":
        return f"reused ({found.folder})"

    from llmbench import training

    run = runs.resume(recipe) if found is not None else runs.create(recipe, overwrite=True)
    training.train(
        recipe, run, resume=found is not None, progress=lambda step, steps, words: display.report(step / steps, words)
    )
    status = run.status
    return f"loss {status['loss']:.3f}, {status['tokens_per_second']:,.0f} tokens/s"


def _earlier(recipe: TrainRecipe) -> Run | None:
    """The run that an earlier demo left, unless its recipe or its base model was another one."""
    try:
        run = runs.open_run(recipe.name)
    except RunError:
        return None
    if run.recipe != yaml.safe_load(runs.resolved(recipe)) or not (run.folder / "lock.json").exists():
        return None
    base = provenance.fingerprint(Path(assets.model_folder(recipe.model.model_name_or_path)))
    return run if run.lock["model"]["fingerprint"] == base else None


@contextmanager
def _serve(recipe: ServeRecipe, display: Display) -> Iterator[str]:
    from llmbench import gateway

    with gateway.running(recipe, progress=lambda state: display.report(None, state.phase)) as base_url:
        yield base_url
