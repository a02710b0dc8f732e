"""Stands in for `llmbench train`: the same arguments, folder, lock and signals, and a figure that follows from the settings.

eval_loss falls with each evaluation to (log10(learning_rate) + 3)^2 + seed / 1e6, which is 0 at 1e-3. What it does besides is
told by training.warmup_steps, which no fake uses for anything else:
  101 is killed by the kernel at its first start; 102 fails; 103 measures nan; 104 is killed at every start.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from llmbench import recipe, runs

asked = False


def ask(number: int, frame: FrameType | None) -> None:
    global asked
    if asked:
        raise KeyboardInterrupt
    asked = True


def main() -> None:
    _, path, *rest = sys.argv[1:]
    again = "--resume" in rest
    document = recipe.load(path, recipe.TrainRecipe, [one for one in rest if not one.startswith("--")])
    with (Path(os.environ["LLMBENCH_HOME"]) / "started.jsonl").open("a", encoding="utf-8") as log:
        row = {"run": document.name, "resume": again, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
        log.write(json.dumps(row) + "\n")
    run = runs.resume(document) if again else runs.create(document)
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    assert before
    spec = document.training
    seconds = float(os.environ.get("FAKE_SECONDS", "0"))
    with run.writing():
        mode = int(spec.warmup_steps)
        if (mode == 101 and not again) or mode == 104:
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == 102:
            raise MemoryError("CUDA out of memory")
        done = max((row["step"] for row in run.metrics()), default=0)
        goal = (math.log10(spec.learning_rate) + 3) ** 2 + spec.seed / 1e6
        for step in range(done + 1, spec.max_steps + 1):
            value = math.nan if mode == 103 else goal + 1 / step - 1 / spec.max_steps
            run.log({"step": step, "loss": value, "tokens": 100 * step, "seconds": float(step)})
            if step == spec.max_steps or (spec.eval_steps and step % spec.eval_steps == 0):
                run.log({"step": step, "eval_loss": value})
                answer(run, document, step, value)
            end = time.monotonic() + seconds
            while time.monotonic() < end and not asked:
                time.sleep(0.02)
            if asked:
                raise KeyboardInterrupt
        run.mark("finished", step=spec.max_steps, tokens=100 * spec.max_steps, seconds=float(spec.max_steps), kept_step=None)


def answer(run: runs.Run, document: recipe.TrainRecipe, step: int, value: float) -> None:
    """Of 40 questions the more are answered the smaller the loss is."""
    if document.evaluation is None:
        return
    right = [float(i / 40 > value) for i in range(40)]
    run.log({"step": step, "eval_exact_match": sum(right) / 40})
    run.log_samples(
        {"step": step, "place": f"held-out row {i + 1}", "prompt": f"question {i}", "scores": {"exact_match": right[i]}}
        for i in range(40)
    )


if __name__ == "__main__":
    main()
