"""Who is asked: a running endpoint, or engines that are started for it one after another."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from llmbench.compare import ask, engines
from llmbench.compare.ask import Endpoint, Keeping, Progress, Tallying
from llmbench.compare.jobs import Job, Way, jobs
from llmbench.compare.passages import Frozen
from llmbench.compare.variants import variants
from llmbench.endpoint import HttpEndpoint
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe

__all__ = ["Asking", "Starting"]

T = TypeVar("T")
Starting = Callable[[str, float], None]
"""What an engine that starts is doing, and for how many seconds."""


class Asking:
    """All answers that a recipe wants, from whomever it wants them.

    Args:
        recipe: the comparison.
        asked: its questions.
        frozen: the passages that all variants are given, where they are given the same.
        progress: called at the start and after each answer.
        starting: called while an engine starts.
        say: told what is worth knowing of engines, a line each.
        endpoint: another one than the recipe's URL, for tests.
    """

    def __init__(
        self,
        recipe: CompareRecipe,
        asked: Sequence[Question],
        frozen: Frozen | None,
        *,
        progress: Progress | None = None,
        starting: Starting | None = None,
        say: Callable[[str], None] | None = None,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._recipe, self._asked, self._frozen = recipe, asked, frozen
        self._progress, self._starting, self._say, self._endpoint = progress, starting, say, endpoint

    def fill(self, log: Keeping) -> dict[str, dict[str, Any]]:
        """Asks what the log lacks; what is known of each variant, in the recipe's order.

        Raises:
            EndpointError: nobody answers, a variant is not served, or too many questions failed.
            RecipeError, EngineError: a model, an adapter or an engine is not fit.
        """
        if self._recipe.engine == "auto":
            return self._of_engines(log)
        return _wait_for(self._of_endpoint(log))

    async def _of_endpoint(self, log: Keeping) -> dict[str, dict[str, Any]]:
        spec, wanted = self._recipe.endpoint, variants(self._recipe)
        async with HttpEndpoint(spec.base_url, api_key=os.environ.get(spec.api_key_env), timeout=spec.timeout) as http:
            endpoint: Endpoint = self._endpoint or http
            models = [variant.model or variant.name for variant in wanted]
            listed = await ask.entries(endpoint, list(dict.fromkeys(models)))
            ways = [
                Way(variant, model, listed[model], _about(listed[model])) for variant, model in zip(wanted, models, strict=True)
            ]
            todo = self._jobs(ways, None)
            tallying = Tallying(todo, log, self._progress)
            await ask.ask(endpoint, todo, log, tallying, concurrency=self._recipe.concurrency)
        return {way.variant.name: dict(way.entry) for way in ways}

    def _of_engines(self, log: Keeping) -> dict[str, dict[str, Any]]:
        """One engine after another; one whose answers are all there is not started."""
        wanted = variants(self._recipe)
        found = engines.started(self._recipe, wanted)
        of = [self._jobs(one.ways, "") for one in found]
        tallying = Tallying([job for todo in of for job in todo], log, self._progress)
        for one, todo in zip(found, of, strict=True):
            if all(log.has(job.cell, job.key, job.repeat) for job in todo):
                continue
            with engines.running(one, self._starting, self._say) as base_url:
                _wait_for(self._of_one(base_url, todo, log, tallying))
        entries = {way.variant.name: dict(way.entry) for one in found for way in one.ways}
        return {variant.name: entries[variant.name] for variant in wanted}

    async def _of_one(self, base_url: str, todo: Sequence[Job], log: Keeping, tallying: Tallying) -> None:
        async with HttpEndpoint(base_url, timeout=self._recipe.endpoint.timeout) as endpoint:
            await ask.ask(endpoint, todo, log, tallying, concurrency=self._recipe.concurrency)

    def _jobs(self, ways: Sequence[Way], base_url: str | None) -> list[Job]:
        return jobs(self._recipe, self._asked, ways, self._frozen, base_url=base_url)


def _about(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of a model that an endpoint lists."""
    told = {"base": entry.get("root"), "adapter": entry.get("adapter"), "pipeline": entry.get("rag")}
    told |= {"model": entry.get("fingerprint"), "endpoint": entry.get("owned_by")}
    return {name: value for name, value in told.items() if value is not None}


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end; in a thread of its own where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()
