"""Who is asked: a running endpoint, or engines that are started for it one after another."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from llmbench.compare import ask, engines
from llmbench.compare.ask import Endpoint, Enough, Keeping, Progress, Tallying
from llmbench.compare.jobs import AnswerJob, Way, jobs
from llmbench.compare.passages import Frozen
from llmbench.endpoint import Delta, HttpEndpoint, Message
from llmbench.errors import RecipeError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe

__all__ = ["Asking", "AskingWatch", "Starting", "wait_for"]

T = TypeVar("T")
Starting = Callable[[str, float], None]
"""What an engine that starts is doing, and for how many seconds."""


@dataclass(frozen=True)
class AskingWatch:
    """Who is told how far it is: called after each answer, while an engine starts, and with lines about engines."""

    progress: Progress | None = None
    starting: Starting | None = None
    say: Callable[[str], None] | None = None


class Asking:
    """All answers that a recipe wants, from whomever it wants them.

    Args:
        recipe: the comparison.
        asked: its questions; in the order in which they are to be asked, where it may be enough before all are.
        frozen: the passages that all variants are given, where they are given the same.
        watched: who is told how far it is.
        endpoint: another one than the recipe's URL, for tests.
    """

    def __init__(
        self,
        recipe: CompareRecipe,
        asked: Sequence[Question],
        frozen: Frozen | None = None,
        *,
        watched: AskingWatch = AskingWatch(),
        endpoint: Endpoint | None = None,
    ) -> None:
        self._recipe, self._asked, self._frozen = recipe, asked, frozen
        self._watched, self._endpoint = watched, endpoint

    def fill(
        self, log: Keeping, *, promise: Callable[[], None] = lambda: None, enough: Enough | None = None
    ) -> dict[str, dict[str, Any]]:
        """Asks what the log lacks; what is known of each variant, in the recipe's order.

        Args:
            log: where answers are, and go.
            promise: called once, when it is known whom to ask, and before the first is asked.
            enough: says when no more questions are needed.

        Raises:
            EndpointError: nobody answers, a variant is not served, or too many questions failed.
            RecipeError, EngineError: a model, an adapter or an engine is not fit.
        """
        if self._recipe.engine == "auto":
            return self._of_engines(log, promise, enough)
        return wait_for(self._of_endpoint(log, promise, enough))

    async def _of_endpoint(self, log: Keeping, promise: Callable[[], None], enough: Enough | None) -> dict[str, dict[str, Any]]:
        spec, wanted = self._recipe.endpoint, self._recipe.compared
        async with HttpEndpoint(spec.base_url, api_key=os.environ.get(spec.api_key_env), timeout=spec.timeout) as http:
            endpoint: Endpoint = self._endpoint or http
            models = [variant.model or variant.name for variant in wanted]
            listed = await ask.entries(endpoint, list(dict.fromkeys(models)))
            ways = [
                Way(variant, model, listed[model], _about(listed[model])) for variant, model in zip(wanted, models, strict=True)
            ]
            promise()
            todo = self._jobs(ways, None, enough)
            tallying = Tallying(todo, log, self._watched.progress)
            await ask.ask(endpoint, todo, log, tallying, concurrency=self._recipe.concurrency, enough=enough)
        return {way.variant.name: dict(way.entry) for way in ways}

    def _of_engines(self, log: Keeping, promise: Callable[[], None], enough: Enough | None) -> dict[str, dict[str, Any]]:
        """One engine after another; one whose answers are all there is not started."""
        found = engines.started(self._recipe, self._recipe.compared)
        if enough is not None and len(found) > 1:
            raise RecipeError(
                f"{self._recipe.source}: preregistration.stop: sequential stops question by question, and engines of "
                f"{len(found)} models are started one after another. Use stop: all, or serve all variants at one endpoint"
            )
        promise()
        of = [self._jobs(one.ways, "", enough) for one in found]
        tallying = Tallying([job for todo in of for job in todo], log, self._watched.progress)
        for one, todo in zip(found, of, strict=True):
            if all(log.has(job.cell, job.key, job.repeat) for job in todo):
                wait_for(ask.ask(_Nobody(), todo, log, tallying, concurrency=1, enough=enough))
                continue
            with engines.running(one, self._watched.starting, self._watched.say) as base_url:
                wait_for(self._of_one(base_url, todo, log, tallying, enough))
        entries = {way.variant.name: dict(way.entry) for one in found for way in one.ways}
        return {name: entries[name] for name in self._recipe.names}

    async def _of_one(
        self, base_url: str, todo: Sequence[AnswerJob], log: Keeping, tallying: Tallying, enough: Enough | None
    ) -> None:
        async with HttpEndpoint(base_url, timeout=self._recipe.endpoint.timeout) as endpoint:
            await ask.ask(endpoint, todo, log, tallying, concurrency=self._recipe.concurrency, enough=enough)

    def _jobs(self, ways: Sequence[Way], base_url: str | None, enough: Enough | None) -> list[AnswerJob]:
        return jobs(self._recipe, self._asked, ways, self._frozen, base_url=base_url, drawn=enough is None)


class _Nobody:
    """Whom nothing is asked, as all answers are there."""

    async def listing(self) -> list[dict[str, Any]]:
        raise AssertionError("nothing is asked")

    def stream(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> AsyncIterator[Delta]:
        raise AssertionError("nothing is asked")


def _about(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of a model that an endpoint lists."""
    told = {"base": entry.get("root"), "adapter": entry.get("adapter"), "pipeline": entry.get("rag")}
    told |= {"model": entry.get("fingerprint"), "endpoint": entry.get("owned_by")}
    return {name: value for name, value in told.items() if value is not None}


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end; in a thread of its own where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()
