"""The rollouts of a running server: observations come in, decisions go out, and the routes follow in a fifth of a second."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import Feedback
from llmbench.gateway.traffic.audit import Record, records
from llmbench.gateway.traffic.observation import observed
from llmbench.gateway.traffic.rollout import LIVE, Decision, Rollout, RolloutPlan
from llmbench.gateway.traffic.routes import Routes
from llmbench.recipe import Guardrails, RolloutSpec

__all__ = ["Control"]

_LOOK_SECONDS = 0.2
_SETTLE_SECONDS = 60.0
"""After which an answer that has not ended counts as missing in the ratio of the variants."""


@dataclass
class _Course:
    """A rollout with its record, and since when requests are divided as they are now."""

    rollout: Rollout
    record: Record
    since: float
    news: bool = True
    waiting: list[tuple[float, str]] = field(default_factory=list)
    """When the units that are not settled yet began, and whose they are; a heap."""

    def settle(self, before: float) -> None:
        """Settles those that began before a time."""
        while self.waiting and self.waiting[0][0] < before:
            self.rollout.settle(heappop(self.waiting)[1])
            self.news = True


class Control:
    """Starts, watches and ends rollouts. Any thread may call it; a thread of its own looks at what came in.

    Args:
        routes: which it divides.
        served: the names of the variants that are served now.
        folder: where rollouts are recorded.
        clock: the monotonic clock that exchanges are timed by.
        say: told what is worth knowing, a line each.
    """

    def __init__(
        self,
        routes: Routes,
        served: Callable[[], Collection[str]],
        folder: Path,
        *,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.routes = routes
        self._served = served
        self._folder = folder
        self._clock = clock
        self._say = say
        self._lock = threading.RLock()
        self._courses: dict[str, _Course] = {}
        self._inbox: deque[Exchange | Feedback] = deque()
        self._end = threading.Event()
        self._lease = ExitStack()
        self._ours = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Takes up what an earlier server left, and looks until the block ends."""
        self.routes.held, self.routes.tried = self._held, self.busy_with
        with self._lease:
            if self.routes.now or self._folder.exists():
                try:
                    self._own()
                    self._restore()
                except LlmbenchError as error:
                    self._say(f"Cannot resume the rollouts of an earlier server: {error}")
            thread = threading.Thread(target=self._watch, name="rollouts", daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._end.set()
                thread.join()
                self.look()

    def told(self, exchange: Exchange) -> None:
        """Keeps an exchange for the next look; a sink, which the event loop does not wait for."""
        course = self._courses.get(exchange.asked)
        if course is not None and course.rollout.stand in LIVE and exchange.arm is not None:
            self._inbox.append(exchange)

    def told_feedback(self, feedback: Feedback) -> None:
        """Keeps a vote or a score for the next look; the first about a request counts, what replaces it does not."""
        course = self._courses.get(feedback.request.asked)
        if course is not None and course.rollout.stand in LIVE and not feedback.repeated:
            self._inbox.append(feedback)

    def look(self) -> None:
        """Takes what came in as observations, and decides what is to be decided now, on every route."""
        with self._lock:
            while self._inbox:
                one = self._inbox.popleft()
                self._count(one) if isinstance(one, Exchange) else self._learn(one)
        for course in list(self._courses.values()):
            with self._lock:
                course.settle(self._clock() - _SETTLE_SECONDS)
                if not course.news or course.rollout.stand not in LIVE:
                    continue
                course.news = False
                self._write(course)
                decision = course.rollout.look()
                if decision is not None:
                    self._decide(course, decision)

    def start(
        self, route: str, canary: str, *, rollout: RolloutSpec | None = None, guardrails: Guardrails | None = None
    ) -> dict[str, Any]:
        """Gives a variant a share of a route's requests, and more as long as it is no worse.

        Args:
            route: its name.
            canary: a variant that is served.
            rollout: what to use in place of the document's plan.
            guardrails: what to use in place of the document's.

        Raises:
            LlmbenchError: there is no such route, a rollout is running on it, or it has no single control.
        """
        with self._lock:
            found = self.routes.now.get(route)
            if found is None:
                raise self._unknown(route)
            if reason := self._held(route):
                raise LlmbenchError(reason)
            if canary not in self._served():
                raise LlmbenchError(f"There is no variant {canary}. Available: {', '.join(self._served())}")
            self._own()
            folder = self._folder / route
            number = max((record.number for record in records(folder)), default=0) + 1
            changes = {"rollout": rollout or found.spec.rollout, "guardrails": guardrails or found.spec.guardrails}
            try:
                plan = RolloutPlan.of(found.spec.model_copy(update=changes), canary, found.weights, number)
            except ValueError as error:
                raise LlmbenchError(str(error)) from None
            course = self._course(Rollout(plan), Record(folder / f"{number:04}"))
            deviations = [name for name, value in changes.items() if value != getattr(found.spec, name)]
            apart = f"; {' and '.join(deviations)} other than the document's" if deviations else ""
            reason = f"plan {plan.hash}: {plan.canary} against {plan.control}{apart}"
            self._courses[route] = course
            try:
                self._decide(course, Decision("start", reason, course.rollout.share, course.rollout.units))
            except LlmbenchError:
                del self._courses[route]
                raise
            return self.status(route)

    def pause(self, route: str) -> dict[str, Any]:
        """Takes no further step; the share stays, and the canary is still rolled back where it is worse."""
        return self._change(route, ("running",), lambda rollout: rollout.pause("by hand"))

    def resume(self, route: str) -> dict[str, Any]:
        """Goes on with one that is paused."""
        return self._change(route, ("paused",), lambda rollout: rollout.resume())

    def abort(self, route: str) -> dict[str, Any]:
        """Ends one, and divides the route as the document says."""
        return self._change(route, LIVE, lambda rollout: rollout.abort("by hand"))

    def status(self, route: str) -> dict[str, Any]:
        """The present rollout of a route, or its last one, with its guard-rails, and its decisions."""
        with self._lock:
            course = self._courses.get(route)
            if course is None:
                raise (
                    self._unknown(route)
                    if route not in self.routes.now
                    else LlmbenchError(f"{route} has had no rollout. Start one: llmbench rollout start {route} --to VARIANT")
                )
            rollout, audit = course.rollout, course.record.audit()
            live = rollout.stand in LIVE
            evidence = [asdict(one) for one in rollout.verdicts()] if live else (audit[-1]["evidence"] if audit else [])
            waits = rollout.waits_for({one["rail"]: one["state"] for one in evidence}) if live else []
            row = self._row(route)
            return row | {
                "plan": asdict(rollout.plan),
                "hash": rollout.plan.hash,
                "evidence": evidence,
                "turnout": rollout.turnouts(evidence, row["units"]),
                "waits_for": waits if rollout.canary.units >= rollout.plan.least else [],
                "audit": audit,
                "folder": str(course.record.folder),
            }

    def busy_with(self, variant: str) -> str | None:
        """The route on which a variant takes part in a rollout that has not ended."""
        with self._lock:
            for route, course in self._courses.items():
                if course.rollout.stand in LIVE and variant in (course.rollout.plan.canary, course.rollout.plan.control):
                    return route
        return None

    def listing(self) -> list[dict[str, Any]]:
        """The present or last rollout of each route."""
        with self._lock:
            return [self._row(route) for route in self._courses]

    def _count(self, exchange: Exchange) -> None:
        course = self._courses.get(exchange.asked)
        if course is None or exchange.arm is None or exchange.unit is None or exchange.begun < course.since:
            return  # one that was assigned when the shares were others belongs to no step
        values = observed(exchange, course.rollout.plan.phrase)
        if values and course.rollout.add(exchange.arm, exchange.unit, values):
            course.record.note(course.rollout.step, exchange.arm, exchange.unit, values)
            heappush(course.waiting, (exchange.begun, exchange.arm))
            course.news = True

    def _learn(self, feedback: Feedback) -> None:
        request, rail = feedback.request, "votes" if feedback.metric == "vote" else "judge"
        course = self._courses.get(request.asked)
        if course is None or request.arm is None or request.unit is None or request.begun < course.since:
            return  # about an answer of an earlier step, whose shares were others
        if course.rollout.learn(request.arm, request.unit, rail, feedback.value):
            course.record.note(course.rollout.step, request.arm, request.unit, {rail: feedback.value})
            course.news = True

    def _row(self, route: str) -> dict[str, Any]:
        course = self._courses[route]
        rollout, plan = course.rollout, course.rollout.plan
        units = rollout.units if rollout.stand in LIVE else (course.record.audit() or [{"units": {}}])[-1]["units"]
        return {
            "route": route,
            "number": course.record.number,
            "state": rollout.stand,
            "reason": rollout.reason,
            "canary": plan.canary,
            "control": plan.control,
            "share": rollout.share,
            "step": rollout.step + 1,
            "steps": [*plan.steps, 100.0],
            "units": units,
        }

    def _change(self, route: str, when: tuple[str, ...], change: Callable[[Rollout], Decision]) -> dict[str, Any]:
        with self._lock:
            course = self._courses.get(route)
            if course is None or course.rollout.stand not in when:
                stands = (
                    f"The rollout of {route} is {course.rollout.stand}" if course is not None else f"{route} has no rollout"
                )
                raise LlmbenchError(f"{stands}. See: llmbench rollout list")
            self._decide(course, change(course.rollout))
            return self.status(route)

    def _decide(self, course: _Course, decision: Decision) -> None:
        """Makes a decision hold: the routes first, so that a full disk keeps nobody on a bad variant, then the record."""
        rollout = course.rollout
        if decision.action != "start":
            self._divide(course)
        problem: LlmbenchError | None = None
        try:
            course.record.decide(rollout, decision)
        except LlmbenchError as error:
            if decision.action == "start":
                raise
            problem = error
        if decision.action == "start":
            self._divide(course)
        elif decision.action == "resume":
            course.waiting.clear()  # the ratio is counted from now on
        course.news = True
        plan = rollout.plan
        self._say(f"Rollout of {plan.canary} on {plan.route}: {decision.action}, now {rollout.share:g} % ({decision.reason})")
        if problem is not None:
            self._say(f"Rollout of {plan.canary} on {plan.route}: not recorded: {problem}")

    def _divide(self, course: _Course) -> None:
        rollout, plan = course.rollout, course.rollout.plan
        if plan.route not in self.routes.now:
            return
        live, before = rollout.stand in LIVE, self.routes.now[plan.route]
        weights = before.spec.variants if rollout.stand == "aborted" else rollout.weights
        experiment = plan.experiment if live else plan.route
        self.routes.divide(plan.route, weights, experiment=experiment, reads=live or before.spec.shadow is not None)
        if dict(before.weights) != dict(weights) or before.experiment != experiment:
            course.since = self._clock()
            course.waiting.clear()

    def _course(self, rollout: Rollout, record: Record) -> _Course:
        return _Course(rollout, record, self._clock())

    def _restore(self) -> None:
        """Takes up the last rollout of each route, as far as the document still says what it did when that began."""
        for name, route in self.routes.now.items():
            for record in records(self._folder / name)[-1:]:
                try:
                    course = self._course(record.rollout(), record)
                except LlmbenchError as error:
                    self._say(f"Cannot resume rollout {record.number} of {name}: {error}")
                    continue
                self._courses[name] = course
                rollout = course.rollout
                plan = rollout.plan
                missing = [one for one in rollout.weights if rollout.weights[one] and one not in self._served()]
                if dict(plan.document) != dict(route.spec.variants) or missing:
                    why = f"{missing[0]} is not served" if missing else "the document divides the route in another way now"
                    if rollout.stand in LIVE:
                        self._decide(course, rollout.abort(why))
                    elif rollout.stand == "promoted" and route.shares.get(plan.canary) != 100:
                        self._say(f"{name} is divided as the document says, not as by rollout {record.number}: {why}")
                    continue
                if rollout.stand in LIVE:
                    self._decide(course, Decision("restore", "the server was started again", rollout.share, rollout.units))
                else:
                    self._divide(course)

    def _watch(self) -> None:
        while not self._end.wait(_LOOK_SECONDS):
            try:
                self.look()
            except Exception as error:  # a mistake must not end the watch over other rollouts
                self._say(f"Rollouts: {type(error).__name__}: {error}")

    def _write(self, course: _Course) -> None:
        try:
            course.record.write()
        except OSError as error:
            self._say(f"{course.record.folder}: observations cannot be written ({error.strerror})")

    def _own(self) -> None:
        """Makes this server the one that writes the records; raises LlmbenchError where another one of the document is."""
        if not self._ours:
            self._lease.enter_context(workspace.lock(self._folder, "the record of rollouts"))
            self._ours = True

    def _held(self, route: str) -> str | None:
        course = self._courses.get(route)
        if course is None or course.rollout.stand not in LIVE:
            return None
        return f"{route} has a rollout ({course.rollout.stand}). End it first: llmbench rollout abort {route}"

    def _unknown(self, route: str) -> LlmbenchError:
        there = ", ".join(self.routes.now) or "none; add one under routes: in the document"
        return LlmbenchError(f"There is no route {route}. Available: {there}")
