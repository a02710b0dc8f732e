"""The program that tells trackers of a run, beside the training, in whatever Python has them: it needs nothing of llmbench.

It reads what the run's folder says and sends what is new. So no tracker is imported where a model trains, none can slow a
step, change a random number or end the training, and what was not sent can be sent later from the folder.

Standard input is JSON, a line each: first what to do, then `{"go": true}` when the folder is ready to be read; its end
means that the training has ended, however it did. Standard output is JSON too: `ready` with where each tracker shows the
run, or `error`; `warning`s; at the end `done`, with what could not be sent. What trackers print goes to tracking.log.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

__all__ = ["figures", "flat", "main", "new"]

POLL_SECONDS = 1.0
AGAIN_SECONDS = 10.0
"""How long a tracker that failed is left alone."""
SMALL_FILES = ("recipe.yaml", "lock.json", "data.json", "data.html", "samples.jsonl", "loss.svg")
FINAL = ("loss", "eval_loss", "tokens", "seconds", "tokens_per_second", "peak_memory", "step", "kept_step")
"""What of state.json is sent of a run that has finished."""
LONGEST_VALUE = 500
"""Characters of a setting that are sent: MLflow's older servers refuse more."""


class Tracker(Protocol):
    """What a tracker is told. Each call may raise what its library does."""

    known: dict[str, Any]
    """By which a later session finds this run again."""
    shown: str
    """Where people look at the run: an address or a folder."""

    def log(self, step: int, values: dict[str, float], when: float) -> None:
        """Figures of a step; `when` in seconds since 1970."""

    def note(self, values: dict[str, str]) -> None:
        """Words about the run, such as how it ended."""

    def keep(self, paths: list[Path]) -> None:
        """Files, and folders whole."""

    def close(self, state: str) -> None:
        """The end of this session: finished, stopped or failed."""


def main() -> None:
    """Does what standard input says."""
    out, what = _own_output(), "llmbench"
    try:
        job = json.loads(sys.stdin.buffer.readline())
        log = Path(job["folder"]) / "tracking.log"
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644), 1)
        os.dup2(1, 2)
        feeds = [Feed(name, job) for name in job["to"]]
        for feed in feeds:
            what = feed.name
            feed.load()
        if not sys.stdin.buffer.readline():
            return  # the training did not begin
        for feed in feeds:
            what = feed.name
            feed.open()
    except Exception as error:
        _say(out, error=f"{what}: {_line(error)}")
        return
    _say(out, ready={feed.name: feed.tracker.shown for feed in feeds})
    _follow(feeds, out)
    _say(out, done={feed.name: feed.left for feed in feeds if feed.left})


def _follow(feeds: list[Feed], out: int) -> None:
    """Sends what is new until standard input ends, and then the rest."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    ended = False
    while not ended:
        ended = bool(poll.poll(POLL_SECONDS * 1000)) and not os.read(0, 4096)
        for feed in feeds:
            feed.send(out, last=ended)
    for feed in feeds:
        feed.finish()


class Feed:
    """One tracker, and how far it has been told."""

    def __init__(self, name: str, job: dict[str, Any]) -> None:
        self.name, self.job = name, job
        self.folder = Path(job["folder"])
        self.told: dict[str, Any] = _record(self.folder).get(name, {})
        self.tracker: Tracker
        self.left = ""
        """Why something could not be sent; empty if everything was."""
        self._quiet_until = 0.0
        self._warned = False

    def load(self) -> None:
        """Imports the tracker's library, while the training is still being made ready."""
        import trackers

        trackers.load(self.name, self.job["home"])

    def open(self) -> None:
        """Opens the run there, the one that was opened before if there was one."""
        import trackers

        self.tracker = trackers.open(self.name, self.job, self.told.get("known"))
        self._remember()

    def send(self, out: int, *, last: bool = False) -> None:
        """Sends the rows that were not sent yet. A tracker that fails is asked again later, and said so once."""
        if time.monotonic() < self._quiet_until and not last:
            return
        try:
            for row in new(self.folder / "metrics.jsonl", self.told.setdefault("sent", {})):
                kind, values = figures(row)
                self.tracker.log(row["step"], values, time.time())
                self.told["sent"][kind] = row["step"]
                self.told.pop("closed", None)  # it was finished, and was given more steps
            self.left = ""
        except Exception as error:
            self.left = _line(error)
            self._quiet_until = time.monotonic() + AGAIN_SECONDS
            if not self._warned and not last:
                self._warned = True
                _say(out, warning=f"{self.name}: {self.left}")
        self._remember()

    def finish(self) -> None:
        """Sends files and how the training ended, and closes the run there."""
        state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        ended = "stopped" if state["state"] == "running" else state["state"]  # nobody trains any more: it was killed
        tell = self.job.get("tell")
        try:
            if tell is not None:
                self.tracker.log(int(state.get("step") or 0), tell["values"], time.time())
                self.tracker.note(tell["notes"])
                self.tracker.keep([Path(path) for path in tell["files"]])
            elif self.told.get("closed") != "finished":
                self.tracker.note({"llmbench.state": ended, "llmbench.reason": str(state.get("reason") or "")})
            if ended == "finished" and self.told.get("closed") != "finished":
                values = {f"final/{key}": value for key, value in state.items() if _is_number(value) and key in FINAL}
                self.tracker.log(int(state.get("step") or 0), values, time.time())
                self.tracker.keep([path for name in SMALL_FILES if (path := self.folder / name).exists()])
                if self.job["log_model"]:
                    self.tracker.keep([path for name in ("adapter", "model") if (path := self.folder / name).exists()])
            self.tracker.close(ended)
            self.told["closed"] = ended
        except Exception as error:
            self.left = self.left or _line(error)
        self._remember()

    def _remember(self) -> None:
        """Writes how far the tracker has been told; a kill leaves the file of before or of now."""
        record = _record(self.folder)
        self.told["known"], self.told["shown"] = self.tracker.known, self.tracker.shown
        record[self.name] = self.told
        text = json.dumps(record, indent=2) + "\n"
        path = self.folder / "tracking.json"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            part = path.with_name(".tracking.json.part")
            part.write_text(text, encoding="utf-8")
            part.replace(path)


def new(path: Path, sent: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The whole lines of metrics.jsonl that were not sent: of each kind, those past the last step that was.

    A resumed run says some steps again, with the same figures; they are not sent twice.
    """
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:  # cut off by a kill, or being written
            continue
        if row["step"] > sent.get(figures(row)[0], -1):
            yield row


def figures(row: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """Whether a row is of the training or of an evaluation, and its numbers under the names that trackers have for them."""
    kind = "eval" if any(key.startswith("eval_") for key in row) else "train"
    values = {
        f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}": float(value)
        for key, value in row.items()
        if key != "step" and _is_number(value)
    }
    return kind, values


def flat(values: dict[str, Any], place: str = "") -> dict[str, str]:
    """A recipe as dotted settings; what is null is left out, what is long is cut."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{place}{key}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[f"{place}{key}"] = text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _record(folder: Path) -> dict[str, Any]:
    """tracking.json: of each tracker, by what the run is known there and what was sent."""
    try:
        found = json.loads((folder / "tracking.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _own_output() -> int:
    """The pipe to llmbench, kept apart from what trackers print."""
    out = os.dup(1)
    os.set_inheritable(out, False)
    return out


def _say(out: int, **said: Any) -> None:
    try:
        os.write(out, (json.dumps(said) + "\n").encode())
    except OSError:  # llmbench was killed
        pass


def _line(error: BaseException) -> str:
    """An error in one line, without the passwords of addresses in it."""
    text = re.sub(r"://[^/@\s]*@", "://", " ".join(str(error).split()))
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:300]


if __name__ == "__main__":
    main()
