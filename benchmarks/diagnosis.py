"""How often `llmbench diagnose` alarms on curves with nothing wrong, and how often it names what is: synthetic curves.

    python benchmarks/diagnosis.py            # 1,000 healthy curves, and 200 of each fault that has a formula
    python benchmarks/diagnosis.py --show 5   # the curves that alarmed, with the evidence
    python benchmarks/diagnosis.py --cost     # what recording takes of a real training (recipes/sft-lora.yaml, 100 steps)

A healthy curve falls as an exponential or a power law of the updates so far, along the schedule's rate; its steps scatter as a
normal distribution, Student's t with 4 degrees of freedom or a lognormal; it is short or long, logged densely or sparsely, with
step losses or without (as older runs are), evaluated or not. Everything is drawn from the seed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter, defaultdict
from random import Random
from typing import Any

from llmbench.diagnosis.finding import Diagnosis
from llmbench.diagnosis.looking import judge
from llmbench.diagnosis.recorded import Traces

SCHEDULES = ("cosine", "linear", "constant", "warmup_stable_decay")


def rates(random: Random, steps: int, schedule: str, peak: float) -> list[float]:
    """The rate of each step, after a warm-up of 0 to 10 %."""
    warm = int(random.choice([0.0, 0.03, 0.1]) * steps)
    found = []
    for i in range(steps):
        x = (i - warm) / max(steps - warm, 1)
        match schedule:
            case "cosine":
                share = (1 + math.cos(math.pi * x)) / 2
            case "linear":
                share = 1 - x
            case "constant":
                share = 1.0
            case _:
                share = min(1.0, (1 - x) / 0.2)
        found.append(peak * (i / warm if i < warm else share))
    return found


def scatter(random: Random, kind: str) -> float:
    """A number of mean 0 and standard deviation about 1."""
    normal = random.gauss(0, 1)
    match kind:
        case "normal":
            return normal
        case "t4":
            return normal / math.sqrt(random.gammavariate(2, 2) / 4) / math.sqrt(2)
        case _:
            return (math.exp(0.5 * normal) - math.exp(0.125)) / 0.604


def healthy(seed: int, *, slow: float = 1.0, wrong: str = "") -> Traces:
    """One run with nothing wrong; with `wrong`, the fault of that name in it."""
    random = Random(f"diagnosis {wrong} {seed}")
    steps = round(math.exp(random.uniform(math.log(30), math.log(4_000))))
    schedule, kind = random.choice(SCHEDULES), random.choice(["normal", "t4", "lognormal"])
    every = 1 if steps < 60 else random.choice([1, 5, 10, 20] if steps < 600 else [1, 10, 20, 50])
    dense = random.random() < 0.7
    start, fall = math.exp(random.uniform(math.log(0.7), math.log(9))), random.uniform(0.1, 0.95)
    noise, floor = math.exp(random.uniform(math.log(0.003), math.log(0.15))), start * (1 - fall)
    bend, power = random.uniform(0.02, 0.3), random.choice([0.0, 0.5, 1.0])
    peak = 10 ** random.uniform(-1.5, 0) / steps  # so that an adapter's weights can move by .02 to 1 in all
    rate = rates(random, steps, schedule, peak)
    total, done = sum(rate), 0.0

    def level(x: float) -> float:
        if wrong == "learning rate too low":
            return start * (1 - 0.2 * x)
        shape = math.exp(-x / bend) if power == 0 else (1 + x / bend) ** -power
        return floor + (start - floor) * shape

    levels = []
    for one in rate:
        levels.append(level(done / total))
        done += one
    if wrong == "no progress":
        levels = [start] * steps
    if wrong == "divergence":
        at = random.randrange(steps // 3, 3 * steps // 4)
        levels = [x if i < at else x + (start - x) * min(1.0, (i - at) / (0.1 * steps)) for i, x in enumerate(levels)]
    if wrong == "learning rate too high":
        levels = [x if i < steps // 10 else 1.3 * start for i, x in enumerate(levels)]
    losses = [max(x * (1 + noise * scatter(random, kind)), 1e-4) for x in levels]
    if wrong == "loss spike":
        for at in random.sample(range(steps // 5, steps), 2):
            losses[at] += 3 * levels[at] + 0.3 * start
    if wrong == "data order":
        losses = [x * (1 + 0.6 * (i > steps // 2)) for i, x in enumerate(losses)]
    norm = 10 ** random.uniform(-1.5, 1)
    norms = [norm * math.exp(0.4 * random.gauss(0, 1)) * (1 + 3 * math.exp(-10 * i / steps)) for i in range(steps)]
    if wrong == "exploding gradients":
        norms = [one * 10 ** (4 * i / steps) for i, one in enumerate(norms)]
    if wrong == "clipped throughout":
        norms = [100 * one / norm for one in norms]
    epochs = random.choice([1.0, 1.0, 2.0, 3.0])
    layers = {str(i): math.exp(random.gauss(0, 1)) for i in range(random.choice([4, 16, 32]))}
    lines, first = [], 0
    for last in sorted({1, *range(every, steps + 1, every), steps}):
        part = slice(first, last)
        line: dict[str, Any] = {
            "step": last, "epoch": epochs * last / steps, "loss": sum(losses[part]) / (last - first),
            "learning_rate": rate[last - 1], "grad_norm": norms[last - 1],
        }  # fmt: skip
        if dense:
            line |= {"losses": losses[part], "norms": norms[part]} if last - first > 1 else {}
            line |= {"learned": random.uniform(0.05, 1.0)}
            line["layers"] = {i: norms[last - 1] * one * math.exp(0.3 * random.gauss(0, 1)) for i, one in layers.items()}
        lines.append(line)
        first = last
    held = _evaluations(random, levels, steps, dense, wrong)
    recipe = _recipe(every, schedule, peak, shuffle=random.random() < 0.8 and wrong != "data order")
    status = {"state": "finished", "step": steps, "steps": steps}
    return Traces(f"{wrong or 'healthy'}-{seed}", status, recipe, [*lines, *held[0]], held[1], {})


def _evaluations(random: Random, levels: list[float], steps: int, dense: bool, wrong: str) -> tuple[list[Any], list[Any]]:
    """Held-out losses of rows that differ in how hard they are, a little above the training's, at up to 20 steps."""
    count = random.choice([0, 2, 5, 10, 20])
    if wrong == "overfitting":
        count = max(count, 5)
    if not count:
        return [], []
    rows = random.choice([30, 100, 300])
    hard = [math.exp(0.5 * random.gauss(0, 1)) for _ in range(rows)]
    tokens = [random.randrange(5, 60) for _ in range(rows)]
    gap, own = random.uniform(1.0, 1.3), random.uniform(0.002, 0.03)
    lines, by_row = [], []
    for i in range(count):
        step = steps * (i + 1) // count
        level = levels[step - 1] * gap
        if wrong == "overfitting":
            level = levels[steps // 3] * gap * (1 + max(0.0, 0.5 * (i / count - 0.4)))
        losses = [level * one * (1 + 3 * own * random.gauss(0, 1)) for one in hard]
        lines.append({"step": step, "eval_loss": sum(x * t for x, t in zip(losses, tokens, strict=True)) / sum(tokens)})
        by_row.append({"step": step, "losses": losses, "tokens": tokens})
    return lines, by_row if dense else []


def _recipe(every: int, schedule: str, rate: float, *, shuffle: bool) -> dict[str, Any]:
    return {
        "method": "sft",
        "data": {"shuffle": shuffle, "train": [{}], "eval_fraction": 0.05, "max_length": 512, "train_on": "assistant"},
        "lora": {"r": 16},
        "training": {
            "learning_rate": rate, "warmup_steps": 0.03, "logging_steps": every, "max_grad_norm": 1.0,
            "optim": "adamw_torch_fused", "lr_scheduler_type": schedule,
        },
    }  # fmt: skip


PLANTED = (
    "learning rate too high", "learning rate too low", "divergence", "no progress", "loss spike", "overfitting", "data order",
    "exploding gradients", "clipped throughout",
)  # fmt: skip


def cost(steps: int = 100) -> None:
    """Trains the bundled recipe and prints the CPU time of what is recorded for a diagnosis beside that of the training."""
    import os
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from llmbench import recipe, runs, training
    from llmbench.recipe import TrainRecipe
    from llmbench.training.loop import record, signals

    spent: dict[str, float] = defaultdict(float)

    def timed(kind: Any, name: str) -> None:
        inner = getattr(kind, name)

        def outer(*arguments: Any) -> Any:
            began = time.process_time()
            try:
                return inner(*arguments)
            finally:
                spent[f"{kind.__name__}.{name}"] += time.process_time() - began

        setattr(kind, name, outer)

    for kind, name in (
        (signals.Signals, "batch"),
        (signals.Signals, "look"),
        (signals.Signals, "take"),
        (signals.RowLosses, "take"),
    ):
        timed(kind, name)
    began: list[float] = []
    first = record.Recorder.on_train_begin

    def begin(self: Any, *arguments: Any, **more: Any) -> None:
        began.append(time.process_time())
        first(self, *arguments, **more)

    setattr(record.Recorder, "on_train_begin", begin)  # noqa: B010 - a method, which mypy lets nobody assign to
    with TemporaryDirectory() as folder:
        os.environ["LLMBENCH_HOME"] = folder
        path = Path(__file__).resolve().parents[1] / "recipes" / "sft-lora.yaml"
        document = recipe.load(path, TrainRecipe, (f"training.max_steps={steps}", "training.eval_steps=50"))
        run = runs.create(document)
        training.train(document, run, progress=lambda *_: None)
        whole = time.process_time() - began[0]
        written = sum((run.folder / name).stat().st_size for name in ("metrics.jsonl", "held_out.jsonl"))
    print(f"{steps} steps: {whole:.1f} CPU s, {written / 1024:.1f} KiB of metrics.jsonl and held_out.jsonl")
    for name, seconds in sorted(spent.items(), key=lambda one: -one[1]):
        print(f"| {name} | {1e3 * seconds:.1f} ms | {seconds / whole:.3%} |")
    print(f"| all | {1e3 * sum(spent.values()):.1f} ms | {sum(spent.values()) / whole:.3%} |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=int, default=1_000)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--cost", action="store_true")
    given = parser.parse_args()
    if given.cost:
        cost()
        return
    began = time.perf_counter()
    found: list[Diagnosis] = [judge(healthy(seed)) for seed in range(given.curves)]
    seconds = (time.perf_counter() - began) / given.curves
    alarms = [one for one in found if one.alarms]
    share = len(alarms) / given.curves
    print(f"{len(alarms)} of {given.curves} healthy curves alarmed ({share:.2%}), {1e3 * seconds:.1f} ms a curve")
    print("\n| finding | severity | of healthy curves |\n|---|---|---|")
    for (name, severity), count in Counter((f.name, f.severity) for one in found for f in one.findings).most_common():
        print(f"| {name} | {severity} | {count / given.curves:.2%} |")
    for one in alarms[: given.show]:
        print(one.run, *(f"\n   {f.name}: {f.evidence}" for f in one.alarms))
    print("\n| planted | named | other alarms |\n|---|---|---|")
    for wrong in PLANTED:
        looked = [judge(healthy(seed, wrong=wrong)) for seed in range(given.planted)]
        named = sum(any(f.name == wrong for f in one.alarms) for one in looked)
        others = sum(any(f.name != wrong for f in one.alarms) for one in looked)
        print(f"| {wrong} | {named / given.planted:.0%} | {others / given.planted:.0%} |")


if __name__ == "__main__":
    main()
