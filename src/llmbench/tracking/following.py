"""Starts the program that tells trackers of a run, hears what it says, and waits for it at the end.

A training is not touched by it: that program follows the run's folder (feed.py says how).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.recipe import Tracker, TrackingSpec
from llmbench.runs import Run
from llmbench.tracking import feed

__all__ = ["Following", "check", "follow", "send", "tell"]

_PROGRAM = Path(feed.__file__)
_OPENING_SECONDS = 120
"""How long a tracker may take to open a run. Its library's own limit comes first, unless it hangs."""
_CLOSING_SECONDS = 120
"""How long the last figures and the files may take."""


def check(spec: TrackingSpec, verb: str = "train") -> None:
    """Looks whether the trackers can be started, before anything is loaded; `verb` is what needs them.

    Raises:
        MissingPackage: one is not installed.
        LlmbenchError: `tracking.python` is no Python.
    """
    if spec.python is None:
        for name in spec.to:
            if find_spec(name) is None:
                raise MissingPackage(verb, name, "tracking")
    elif spec.to and not spec.python.expanduser().is_file():
        raise LlmbenchError(f"tracking.python: there is no {spec.python}. Name a Python that has {' and '.join(spec.to)}.")


class Following:
    """A run that is being followed. Without trackers nothing is started, and every call does nothing."""

    def __init__(self, run: Run, spec: TrackingSpec, tell: dict[str, Any] | None = None) -> None:
        self.run, self.spec, self._told = run, spec, tell
        self.shown: dict[str, str] = {}
        """Where each tracker shows the run."""
        self._process: subprocess.Popen[bytes] | None = None
        self._said: SimpleQueue[dict[str, Any]] = SimpleQueue()
        if spec.to:
            self._start()

    def _start(self) -> None:
        python = sys.executable if self.spec.python is None else str(self.spec.python.expanduser().absolute())
        job = {
            "folder": str(self.run.folder),
            "name": self.run.name,
            "to": self.spec.to,
            "project": self.spec.project,
            "log_model": self.spec.log_model,
            "home": str(workspace.home() / "tracking"),
            "settings": feed.flat(self.run.recipe),
            "pid": os.getpid(),
            "tell": self._told,
        }
        try:
            self._process = subprocess.Popen(
                [python, str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the training, whose end this program sends
            )
        except OSError as error:
            raise LlmbenchError(f"tracking.python: {python} cannot be started ({error.strerror}).") from error
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        self._tell(job)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Takes what the program says; a warning goes to stderr at once."""
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            if "warning" in said:
                print(
                    f"Tracking: {said['warning']}. Training continues, and it will be tried again.", file=sys.stderr, flush=True
                )
            else:
                self._said.put(said)
        self._said.put({"error": f"its program has ended; see {self.run.folder / 'tracking.log'}"})

    def _tell(self, what: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what went wrong is what it said last
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()

    def begin(self) -> None:
        """Has the run opened in the trackers: from here on its folder's figures are the training's."""
        if self._process is not None:
            self._tell({"go": True})

    def opened(self) -> None:
        """Waits until every tracker has opened the run, and says where people find it.

        Raises:
            LlmbenchError: one cannot.
        """
        if self._process is None:
            return
        try:
            said = self._said.get(timeout=_OPENING_SECONDS)
        except Empty:
            said = {"error": f"nothing heard for {_OPENING_SECONDS} s"}
        if "ready" not in said:
            raise LlmbenchError(
                f"tracking: {said['error']}. Mend it and use --resume; or train with tracking=none, and send the run when "
                f"it has ended: llmbench runs track {self.run.name} --to {self.spec.to[0]}"
            )
        self.shown = said["ready"]
        for name, where in self.shown.items():
            print(f"Tracked in {name}: {where}", file=sys.stderr)

    def end(self) -> dict[str, str]:
        """Has the rest sent and waits for it.

        Returns:
            By tracker, why something was left out; empty if everything was sent.
        """
        process = self._process
        if process is None:
            return {}
        self._process = None
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=_CLOSING_SECONDS)
            left = self._last() if self.shown else {}
        except subprocess.TimeoutExpired:
            left = dict.fromkeys(self.shown or self.spec.to, f"nothing heard for {_CLOSING_SECONDS} s")
        finally:
            process.kill()
            process.wait()
        for name, reason in left.items():
            again = f"llmbench runs track {self.run.name} --to {name}"
            print(f"Tracking: {name} was not told everything ({reason}). Send it later: {again}", file=sys.stderr)
        return left

    def _last(self) -> dict[str, str]:
        while True:
            said = self._said.get(timeout=5)
            if "done" in said:
                return dict(said["done"])
            if "error" in said:
                return dict.fromkeys(self.shown, str(said["error"]))


@contextmanager
def follow(run: Run, spec: TrackingSpec) -> Iterator[Following]:
    """Follows a run while the block trains it: `begin` when its folder is ready, `opened` before the first step.

    Raises:
        LlmbenchError: the program cannot be started.
    """
    followed = Following(run, spec)
    try:
        yield followed
    finally:
        followed.end()


def send(run: Run, to: Sequence[Tracker], spec: TrackingSpec) -> tuple[dict[str, str], dict[str, str]]:
    """Sends a run that is not training to trackers, as far as they have not been told of it.

    Args:
        run: a finished, stopped or failed run.
        to: the trackers.
        spec: where from; its `to` does not count.

    Returns:
        Where each tracker shows the run, and by tracker why something was left out.

    Raises:
        LlmbenchError: it is training, or a tracker cannot be told.
    """
    if run.state == "running":
        raise LlmbenchError(f"Run {run.name} is training. It can be sent when it has ended.")
    return _told(run, spec.model_copy(update={"to": list(to)}), "runs track")


def tell(run: Run, values: Mapping[str, float], notes: Mapping[str, str], files: Sequence[Path]) -> dict[str, str]:
    """Tells the trackers that know a run what was found out about it later, such as a comparison's verdict.

    Args:
        run: a run that has ended; one that no tracker knows is left alone.
        values: figures by their names, as of its last step.
        notes: words by their names.
        files: kept with the run where the tracker keeps files.

    Returns:
        By tracker, why something was left out.

    Raises:
        LlmbenchError: a tracker cannot be told.
    """
    known = json.loads(path.read_text(encoding="utf-8")) if (path := run.folder / "tracking.json").exists() else {}
    if not known or run.state == "running":
        return {}
    spec = TrackingSpec.model_validate((run.recipe.get("tracking") or {}) | {"to": list(known)})
    what = {"values": dict(values), "notes": dict(notes), "files": [str(file) for file in files]}
    return _told(run, spec, "compare", what)[1]


def _told(run: Run, spec: TrackingSpec, verb: str, what: dict[str, Any] | None = None) -> tuple[dict[str, str], dict[str, str]]:
    check(spec, verb)
    followed = Following(run, spec, what)
    try:
        followed.begin()
        followed.opened()
    finally:
        left = followed.end()
    return followed.shown, left
