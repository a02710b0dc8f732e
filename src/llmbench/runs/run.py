"""A run: one folder that holds everything about one training.

runs/NAME/
├── recipe.yaml     the recipe as resolved, every default written out
├── data.json       the data report, and data.html for people
├── lock.json       what it depended on: seed, packages, hardware, hashes of data, model and chat template
├── state.json      running, finished, failed or stopped, with times, the reason and the last figures
├── metrics.jsonl   one line per log step: step, epoch, loss, learning_rate, tokens_per_second, ...
├── held_out.jsonl  the held-out loss of each row at each evaluation
├── samples.jsonl   some answers of each evaluation, where the recipe asks questions
├── loss.svg        the curves
├── lr-range.json   what a learning-rate range test of its recipe showed; lr-range.svg is the curve
├── labels.json     a person's note and tags, and whether it is archived
├── replay.json     of a replay: which run it repeats, and the verdict
├── tracking.json   where trackers show it and how far they were told; tracking.log is what they said
├── checkpoints/    to resume from
└── adapter/        PEFT's files (safetensors); a full training leaves model/ instead
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from llmbench import workspace, written
from llmbench.errors import RunError
from llmbench.recipe import TrainRecipe
from llmbench.runs import checkpoints

__all__ = ["LABELS", "Run", "State", "check", "check_removal", "create", "every", "open_run", "remove", "resolved"]

State = Literal["running", "finished", "failed", "stopped"]

_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML has it: 10 times as fast, which 200 runs feel."""
_TAIL_BYTES = 20_000
_ASKED = ".stop"
"""The process that was asked to stop."""
LABELS = "labels.json"
"""A person's note and tags: `llmbench.runs.labels`."""
_FILES = (
    "recipe.yaml", "data.json", "data.html", "lock.json", "state.json", "metrics.jsonl", "held_out.jsonl", "samples.jsonl",
    "lr-range.json", "lr-range.svg", "loss.svg", "tracking.json", "tracking.log", "replay.json", LABELS, _ASKED,
)  # fmt: skip
"""What a run writes beside its folders. --overwrite replaces these and nothing else of the folder."""


@dataclass(frozen=True)
class Run:
    """One run's folder. Only the process that trains writes to it."""

    folder: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter in PEFT's format."""
        return self.folder / "adapter"

    @property
    def model(self) -> Path:
        """The trained model, when all parameters were trained."""
        return self.folder / "model"

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run: its state.json says one of the four states."""
        try:
            status = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        numbered = isinstance(status, dict) and isinstance(status.get("created"), (int, float))
        return numbered and status.get("state") in get_args(State)

    @property
    def status(self) -> dict[str, Any]:
        """state.json as it stands; a run that says running while nobody holds its lock was killed, so it is stopped."""
        status: dict[str, Any] = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        if status["state"] == "running" and not self._is_held():
            status |= {"state": "stopped", "reason": "killed"}
        return status

    @property
    def created(self) -> float:
        """When it was made, in seconds since 1970."""
        return float(json.loads((self.folder / "state.json").read_text(encoding="utf-8"))["created"])

    @property
    def state(self) -> State:
        """running, finished, failed or stopped."""
        state: State = self.status["state"]
        return state

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe as plain values.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.folder / "recipe.yaml"
        try:
            loader = _SafeLoader(path.read_text(encoding="utf-8"))
            try:
                values = loader.get_single_data()
            finally:
                loader.dispose()
            if isinstance(values, dict):
                return values
            reason = "not a recipe"
        except FileNotFoundError:
            reason = "missing"
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:100]
        raise RunError(f"Run {self.name} is damaged: {path} cannot be read ({reason}). Restore the file, or remove the run")

    @property
    def lock(self) -> dict[str, Any]:
        """lock.json."""
        values: dict[str, Any] = json.loads((self.folder / "lock.json").read_text(encoding="utf-8"))
        return values

    def metrics(self) -> list[dict[str, Any]]:
        """Every complete line of metrics.jsonl, oldest first. A line cut off by a kill is left out."""
        return _lines(self.folder / "metrics.jsonl")

    def last_metrics(self) -> dict[str, Any]:
        """The last value of each figure in the last lines of metrics.jsonl, however long it is."""
        path = self.folder / "metrics.jsonl"
        found: dict[str, Any] = {}
        if path.exists():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                for line in file.read().split(b"\n"):
                    try:
                        found |= json.loads(line)
                    except ValueError:  # cut off where the reading began, or by a kill
                        continue
        return found

    def log(self, row: dict[str, Any]) -> None:
        """Appends one line of metrics."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def held_out(self) -> list[dict[str, Any]]:
        """Every complete line of held_out.jsonl, oldest first: step, and the mean loss and learned tokens of each row."""
        return _lines(self.folder / "held_out.jsonl")

    def log_held_out(self, row: dict[str, Any]) -> None:
        """Appends the held-out losses of one evaluation, row by row."""
        with (self.folder / "held_out.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def samples(self) -> list[dict[str, Any]]:
        """Every complete line of samples.jsonl, oldest first."""
        return _lines(self.folder / "samples.jsonl")

    def log_samples(self, rows: Iterable[dict[str, Any]]) -> None:
        """Appends answers that an evaluation was given."""
        with (self.folder / "samples.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def drop_metrics_after(self, step: int) -> None:
        """Forgets the lines past a checkpoint that is resumed from, so that no step is listed twice."""
        for name in ("metrics.jsonl", "held_out.jsonl", "samples.jsonl"):
            path = self.folder / name
            if path.exists() or name == "metrics.jsonl":
                kept = [row for row in _lines(path) if row["step"] <= step]
                workspace.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def write_lock(self, lock: dict[str, Any]) -> None:
        """Writes what the run depends on."""
        workspace.write_json(self.folder / "lock.json", lock)

    def mark(self, state: State, reason: str = "", **figures: Any) -> None:
        """Writes the state; figures (JSON values) are kept beside it and stay until overwritten."""
        path = self.folder / "state.json"
        status = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"created": time.time()}
        status |= {"state": state, "reason": reason, "updated": time.time(), **figures}
        workspace.write_json(path, status)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the run's lock and marks it: running inside, then finished, stopped (Ctrl-C) or failed.

        Raises:
            LlmbenchError: another process is training this run.
        """
        with workspace.lock(self.folder, "run"):
            (self.folder / _ASKED).unlink(missing_ok=True)
            self.mark("running")
            try:
                yield
            except KeyboardInterrupt:
                self.mark("stopped", "interrupted")
                raise
            except BaseException as error:
                self.mark("failed", f"{type(error).__name__}: {error}"[:2000])
                raise
            self.mark("finished")

    @property
    def holder(self) -> workspace.LockHolder | None:
        """The process that trains it; None where none does, or it does not say which it is."""
        return workspace.holder(self.folder) if self._is_held() else None

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody asked whoever holds it now to stop."""
        try:
            return (self.folder / _ASKED).read_text(encoding="utf-8") == _named(workspace.holder(self.folder))
        except OSError:
            return False

    def stop(self) -> workspace.LockHolder:
        """Asks the process that trains it to stop, as Ctrl-C in its terminal does, and says which it is.

        One of another machine, which sees the same folder, looks at what is written there every two seconds.

        It ends after its step with a checkpoint to resume from. A second signal would end it at once, with nothing saved, so
        whoever asks again is refused.

        Raises:
            RunError: nobody trains it, it was asked already, or it is another user's process.
        """
        holder = self.holder
        if holder is None:
            raise RunError(f"Run {self.name} is not training.")
        if self.asked_to_stop:
            raise RunError(f"Run {self.name} was already asked to stop. It ends after its current step.")
        try:
            if holder.here:
                os.kill(holder.process, signal.SIGINT)
            (self.folder / _ASKED).write_text(_named(holder), encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"Run {self.name} cannot be stopped from here: {error.strerror}. Press Ctrl-C where it runs."
            ) from error
        return holder

    def _is_held(self) -> bool:
        return workspace.held(self.folder)


def _named(holder: workspace.LockHolder | None) -> str:
    return "" if holder is None else f"{holder.process} {holder.machine}"


def check(recipe: TrainRecipe, *, overwrite: bool = False) -> Run:
    """The run that `create` would make, before anything is loaded or replaced.

    Raises:
        RunError: there is a run of this name already and `overwrite` is false, or it is training right now.
    """
    run = Run(workspace.runs() / recipe.name)
    written.check_claim(run.folder, "run", known=run.exists)
    if run.exists:
        if run.state == "running":
            raise RunError(f"Run {run.name} is training. Stop it first, or choose another name with name=...")
        if not overwrite:
            raise RunError(
                f"Run {run.name} already exists ({run.state}). "
                "Continue it with --resume, replace it with --overwrite, or choose another name with name=..."
            )
        for folder, ours in _folders(run):
            written.refuse(folder, ours)
    return run


def create(recipe: TrainRecipe, *, overwrite: bool = False) -> Run:
    """Makes the folder of a new run with its resolved recipe. What a former run of this name wrote is removed, nothing else.

    Raises:
        RunError: as `check`.
    """
    run = check(recipe, overwrite=overwrite)
    with workspace.lock(run.folder, "run"):  # nobody may begin to train in what is being replaced
        written.claim(run.folder, "run", known=run.exists)
        for folder, ours in _folders(run):
            written.remove(folder, ours)
        for name in _FILES:
            (run.folder / name).unlink(missing_ok=True)
        checkpoints.clear(run.checkpoints)
        workspace.write_text(run.folder / "recipe.yaml", resolved(recipe))
        run.mark("stopped", "not started")
    return run


def check_removal(run: Run) -> None:
    """Looks whether a run may be removed; changes nothing.

    Raises:
        LlmbenchError: as `remove`.
    """
    if run.state == "running":
        raise RunError(f"Run {run.name} is training. Stop it first: llmbench runs stop {run.name}")
    written.refuse(run.folder, [*_ours(run), *_unfinished(run)])


def remove(run: Run) -> None:
    """Removes a run with its adapter, model and checkpoints.

    Raises:
        LlmbenchError: it is training now, or its folder holds something that llmbench did not write; nothing was changed.
    """
    if run.state == "running":
        raise RunError(f"Run {run.name} is training. Stop it first: llmbench runs stop {run.name}")
    with workspace.lock(run.folder, "run"):
        for part in (*run.folder.glob(".*.part"), run.checkpoints / ".part"):  # left by a kill
            written.drop(part)
        folders, ours = _leftovers(run), _ours(run)
        written.refuse(run.folder, ours)
        run.mark(
            "stopped", f"only partly removed; to remove the rest: llmbench runs rm {run.name}"
        )  # what a kill from here on leaves
        for folder, files in folders:
            written.remove(folder, files)
        written.remove(run.folder, ours)


def _leftovers(run: Run) -> list[tuple[Path, list[str] | None]]:
    """As `_folders`, with the checkpoints that were being removed."""
    return [*_folders(run), *((path, checkpoints.own(path)) for path in run.checkpoints.glob(".old-checkpoint-*"))]


def _ours(run: Run) -> list[str]:
    """Every file of a run that llmbench wrote, by its path inside the folder."""
    ours = [*_FILES, written.RECORD, ".lock", run.checkpoints.name]
    for folder, files in _leftovers(run):
        names = written.files(folder) if files is None else files
        ours += [(folder / name).relative_to(run.folder).as_posix() for name in names]
    return ours


def _unfinished(run: Run) -> list[str]:
    """The files of what a kill left half-written, which goes with the run."""
    parts = [part for part in (*run.folder.glob(".*.part"), run.checkpoints / ".part") if written.unfinished(part)]
    return [path.relative_to(run.folder).as_posix() for part in parts for path in part.rglob("*") if not path.is_dir()]


def open_run(name: str) -> Run:
    """The run of this name.

    Raises:
        RunError: there is none; the message lists those there are.
    """
    run = Run(workspace.runs() / workspace.check_name(name, "run"))
    if not run.exists:
        known = ", ".join(r.name for r in every()) or "none yet"
        raise RunError(f"There is no run {name} in {workspace.runs()} (available: {known}). Make one: llmbench train RECIPE")
    return run


def every() -> list[Run]:
    """All runs, the newest first; without those that have lost their recipe, which `Run.recipe` says of one."""
    found = [run for path in workspace.runs().glob("*/recipe.yaml") if (run := Run(path.parent)).exists]
    return sorted(found, key=lambda run: run.created, reverse=True)


def resolved(recipe: TrainRecipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _folders(run: Run) -> list[tuple[Path, list[str] | None]]:
    """The folders that a run wrote, each with llmbench's files in it (None: as its record lists them)."""
    whole: list[tuple[Path, list[str] | None]] = [(folder, None) for folder in (run.adapter, run.model, run.folder / "merged")]
    return whole + [(folder, checkpoints.own(folder)) for folder in checkpoints.every(run.checkpoints)]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines that is appended to; a line cut off by a kill, or damaged, is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
