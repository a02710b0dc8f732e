"""What a training leaves behind while it runs: metrics, a progress bar or lines, and a clean stop at Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from rich import progress as rich_progress
from rich.console import Console
from transformers import TrainerCallback

from llmbench import interrupts
from llmbench.runs import Run
from llmbench.shown import clock
from llmbench.training.distributed import ranks, verify
from llmbench.training.loop import figures
from llmbench.training.loop.idle import Idle

__all__ = ["Progress", "Recorder", "Stop", "peak_memory"]

_LINE_SECONDS = 5.0
_STATE_SECONDS = 2.0
"""How often a run's state is told its progress. A write and a rename, so that a kill leaves the figures of 2 s before."""
_CLOCKED = ("_runtime", "_per_second")
"""Endings of what transformers measures about an evaluation's speed."""

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and the latest figures."""


class Stop:
    """Whether somebody asked for the end. The first Ctrl-C asks, the second one ends at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM while the block runs."""

        def ask() -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            print(
                "\nStopping after this step and saving a checkpoint. Ctrl-C again stops at once, without saving.",
                file=sys.stderr,
            )

        with interrupts.handed_to(ask):
            yield


class Recorder(TrainerCallback):
    """Writes metrics.jsonl, shows progress on stderr, and stops the training when it is asked to."""

    def __init__(
        self,
        run: Run,
        stop: Stop,
        progress: Progress | None = None,
        *,
        stop_after: int | None = None,
        log_at: Sequence[int] = (),
        rates: Sequence[float] = (),
    ) -> None:
        self.run, self.stop, self.progress = run, stop, progress
        self.stop_after, self.log_at = stop_after, frozenset(log_at)
        self.rates = rates
        self.trainer: Any
        self.last: dict[str, Any] = {}
        console = Console(stderr=True)
        self.bar = _bar(console) if console.is_terminal and progress is None else None
        self.printed = self.since = self.began = self.told = 0.0
        self.tokens = self.first_step = 0
        self.idle = Idle()
        self.ranks = ranks.current()

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Shows the bar while the block runs, and leaves the terminal in order however it ends."""
        with self.bar or nullcontext():
            yield

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluates the base where the recipe wants it, and starts the clocks."""
        if not self.ranks.alone:
            verify.check(self.trainer)
        state.compute_steps(args, state.max_steps)  # a checkpoint brings its own, and the recipe may say others by now
        if self.trainer.recipe.training.eval_on_start and state.global_step == 0:
            self.trainer.measure()
        self.began = self.since = self.printed = time.perf_counter()
        self.tokens, self.first_step = state.num_input_tokens_seen, state.global_step
        self.trainer.paused = 0.0
        self._tell(state)
        if self.bar is not None:
            self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step, figures="")

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Sets the step's rate where a range test says which; groups with rates of their own keep their share of it."""
        if self.rates:
            factor = self.rates[min(state.global_step, len(self.rates) - 1)] / self.trainer.args.learning_rate
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Moves the bar; at the last step, and when asked to stop, has everything written."""
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps, self._figures())
        self.idle.step(self.trainer)
        if state.global_step == self.stop_after:
            self.stop.asked = True
        if time.perf_counter() - self.told > _STATE_SECONDS and self.ranks.first:
            self.stop.asked |= self.run.asked_to_stop  # from a machine whose signals do not come here
        self.stop.asked = bool(self.ranks.most(self.stop.asked)[0])  # a signal may have reached one process alone
        if state.global_step in self.log_at:
            control.should_log = True
        if time.perf_counter() - self.told > _STATE_SECONDS or self.stop.asked:
            self._tell(state)
        if self.stop.asked:
            control.should_save = control.should_training_stop = control.should_log = True
        if state.global_step >= state.max_steps:
            control.should_log = True
        every = self.trainer.recipe.training.eval_steps
        if every is not None and (state.global_step % every == 0 or state.global_step >= state.max_steps):
            control.should_evaluate = True  # transformers does so only where there are held-out rows

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """One line of metrics for each log step."""
        logs = more["logs"]
        row: dict[str, Any] = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4)}
        held_out = {key: value for key, value in logs.items() if key.startswith("eval_") and not key.endswith(_CLOCKED)}
        if held_out:
            row |= held_out
        elif "loss" in logs:
            now = time.perf_counter()
            seconds = now - self.since - self.trainer.paused
            row |= {key: logs[key] for key in ("loss", "learning_rate", "grad_norm") if key in logs}
            row["tokens"] = state.num_input_tokens_seen
            row["tokens_per_second"] = round((state.num_input_tokens_seen - self.tokens) / max(seconds, 1e-9), 1)
            row["seconds"] = round(now - self.began, 2)
            held = peak_memory(self.trainer.args.device.type)
            row["peak_memory"] = int(self.ranks.most(held)[0])
            if not self.ranks.alone:
                row["peak_memory_together"] = int(self.ranks.total(held)[0])
            self.since, self.tokens, self.trainer.paused = now, state.num_input_tokens_seen, 0.0
            row |= self.trainer.signals.take(self.trainer, state.global_step) if self.trainer.signals is not None else {}
        else:
            return
        row |= figures.of(logs)
        self.run.log(row)
        self.last |= row
        self._show(state)

    def at(self, step: int) -> dict[str, Any]:
        """What was logged at a step."""
        rows = [row for row in self.run.metrics() if row["step"] == step]
        return {key: value for row in rows for key, value in row.items()}

    def summary(self, kept: int | None = None) -> dict[str, Any]:
        """The figures of a finished training, over every session that it took; `kept` is the best step, if that is kept."""
        rows = self.run.metrics()
        logged = [row for row in rows if "loss" in row]
        after = [row["seconds"] for row in logged[1:]] + [0.0]  # each session counts its own seconds from nought
        seconds = sum(row["seconds"] for row, then in zip(logged, after, strict=True) if then < row["seconds"])
        measured = [row for row in rows if any(key.startswith("eval_") for key in row)]
        step = kept if kept is not None else measured[-1]["step"] if measured else None
        at = {key: value for row in measured if row["step"] == step for key, value in row.items() if key.startswith("eval_")}
        return {
            "loss": logged[-1]["loss"] if logged else None,
            "eval_loss": at.get("eval_loss"),
            "evaluation": at,
            "kept_step": kept,
            "tokens": logged[-1]["tokens"] if logged else 0,
            "seconds": round(seconds, 2),
            "startup_seconds": _startup(logged),
            "tokens_per_second": round(logged[-1]["tokens"] / max(seconds, 1e-9), 1) if logged else None,
            "peak_memory": max((row["peak_memory"] for row in logged), default=0),
        }

    def _tell(self, state: Any) -> None:
        """Writes step, steps, loss and the seconds left into the run's state, for whoever looks at it meanwhile."""
        self.told = time.perf_counter()
        steps = state.global_step - self.first_step
        left = (state.max_steps - state.global_step) * (self.told - self.began) / steps if steps else None
        self.run.mark(
            "running",
            step=state.global_step,
            steps=state.max_steps,
            loss=self.last.get("loss"),
            seconds_left=None if left is None else round(left, 1),
        )

    def _figures(self) -> str:
        """The latest loss, evaluation and speed in a few words."""
        words = [f"loss {self.last['loss']:.4f}"] if "loss" in self.last else []
        if "eval_loss" in self.last:
            words.append(f"eval {self.last['eval_loss']:.4f}")
        words.append(figures.shown(self.last))
        if "tokens_per_second" in self.last:
            words.append(f"{self.last['tokens_per_second']:,.0f} tok/s")
        return "  ".join(word for word in words if word)

    def _show(self, state: Any) -> None:
        if self.progress is not None:
            return
        latest = self._figures()
        if self.bar is not None:
            self.bar.update(self.task, figures=latest)
            return
        now, done = time.perf_counter(), state.global_step >= state.max_steps
        if now - self.printed > _LINE_SECONDS or done or self.stop.asked:
            steps = state.global_step - self.first_step
            left = clock((state.max_steps - state.global_step) * (now - self.began) / steps) + " left" if steps else ""
            print(f"step {state.global_step}/{state.max_steps}  {latest}  {left}".rstrip(), file=sys.stderr, flush=True)
            self.printed = now


def _startup(logged: list[dict[str, Any]]) -> float:
    """Seconds that the first step took beyond what the others take: libraries make their kernels in it."""
    first, last = (logged[0], logged[-1]) if logged else ({"step": 0}, {"step": 0})
    if first["step"] != 1 or last["step"] < 3 or last["seconds"] < first["seconds"]:
        return 0.0
    each = (last["seconds"] - first["seconds"]) / (last["step"] - 1)
    return round(max(float(first["seconds"]) - each, 0.0), 2)


def _bar(console: Console) -> rich_progress.Progress:
    return rich_progress.Progress(
        rich_progress.TextColumn("[bold]{task.description}"),
        rich_progress.BarColumn(bar_width=None),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[figures]}"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("left"),
        console=console,
    )


def peak_memory(device: str) -> int:
    """The most memory this process has held so far, in bytes: the GPU's when it trains there, else the machine's."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
