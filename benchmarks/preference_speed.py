"""DPO, KTO, ORPO and full fine-tuning: llmbench against TRL's own trainers, at equal rows, order, start and losses.

    python benchmarks/preference_speed.py PATH/TO/gsm8k/train.jsonl [--steps 6] [--repeats 3] [--methods dpo,kto,orpo,sft]

Makes train_speed.py's Qwen3 of 42M random parameters and its tokenizer, and pairs of a question's answer and the next
question's. DPO, KTO and ORPO train the same LoRA r=16, sft all parameters; 8 rows a step, float32, one thread. Each arm is a
process, and the two of a pair take turns. An arm that is TRL's has its trainer with its defaults but for what is set for both
(no gradient checkpointing, constant rate), on rows that are tokenised already. Prints processor seconds of the steps after the
first, the growth of resident memory over what was there before the first step, their ratios pair by pair, and the largest
relative difference of a step's loss.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from llmbench import workspace

METHODS = ("dpo", "kto", "orpo", "sft")
ROWS, RATE, MARK = 8, 2e-4, "measured: "


def pairs(folder: Path) -> None:
    """Files of pairs, of judged answers and of conversations, from train_speed.py's rows."""
    with (folder / "train.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:400]
    wrong = [row["completion"] for row in rows[1:] + rows[:1]]
    judged = [
        {"prompt": row["prompt"], "completion": row["completion"] if i % 2 else other, "label": bool(i % 2)}
        for i, (row, other) in enumerate(zip(rows, wrong, strict=True))
    ]
    paired = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other}
        for row, other in zip(rows, wrong, strict=True)
    ]
    for name, made in (("pairs", paired), ("judged", judged)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")


def adapter(folder: Path) -> None:
    """The adapter that every arm starts from."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(str(folder / "start"))


def recipe(folder: Path, method: str, steps: int) -> Path:
    """llmbench's document."""
    import yaml

    name = {"dpo": "pairs", "orpo": "pairs", "kto": "judged", "sft": "train"}[method]
    document: dict[str, Any] = {
        "name": f"preference-{method}", "method": method,
        "model": {"model_name_or_path": str(folder / "model"), "dtype": "float32"},
        "data": {
            "train": [{"path": str(folder / f"{name}.jsonl"), "limit": steps * ROWS}], "shuffle": False, "max_length": 1024
        },
        "training": {
            "max_steps": steps, "per_device_train_batch_size": ROWS, "learning_rate": RATE, "lr_scheduler_type": "constant",
            "warmup_steps": 0, "logging_steps": 1, "seed": 0, "gradient_checkpointing": False, "torch_compile": False,
        },
    }  # fmt: skip
    document |= {"lora": None} if method == "sft" else {"adapter_name_or_path": str(folder / "start"), "lora": {"r": 16}}
    path = folder / f"preference-{method}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


class Meter:
    """Processor seconds between the end of the first step and of the last, and the highest resident memory from its making."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the highest so far is forgotten
        self.before = self.resident("VmRSS")
        self.times: list[float] = []

    @staticmethod
    def resident(name: str) -> int:
        """A line of the process's status, in bytes."""
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    def step(self) -> None:
        """Notes the end of a step."""
        self.times.append(time.process_time())

    def said(self, losses: list[float]) -> str:
        """All of it, in a line."""
        found = {"seconds": self.times[-1] - self.times[0], "grown": self.resident("VmHWM") - self.before, "losses": losses}
        return MARK + json.dumps(found)


def ours(folder: Path, method: str, steps: int) -> None:
    """One training by llmbench."""
    from llmbench import recipe as recipes
    from llmbench import runs, training

    document = recipes.load(recipe(folder, method, steps), recipes.TrainRecipe, [])
    job, run = training.prepare(document), runs.create(document, overwrite=True)
    meter = Meter()
    lines: list[str] = []

    def told(done: int, total: int, figures: str) -> None:
        meter.step()
        if done == total:
            lines.append(meter.said([]))

    training.train(job, run, progress=told)
    found = json.loads(lines[0].removeprefix(MARK))
    found["losses"] = [row["loss"] for row in run.metrics() if "loss" in row]
    print(MARK + json.dumps(found), flush=True)


def theirs(folder: Path, method: str, steps: int) -> None:
    """One training by TRL: on the same tokens, with nothing of llmbench's in the model or the trainer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed

    from llmbench import recipe as recipes
    from llmbench import training

    document = recipes.load(recipe(folder, method, steps), recipes.TrainRecipe, ["training.performance=plain"])
    rows = training.prepare(document).rows.train
    set_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    if method != "sft":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder / "start", is_trainable=True)
    arguments: dict[str, Any] = {
        "output_dir": str(folder / "arms" / f"trl-{method}"), "max_steps": steps, "per_device_train_batch_size": ROWS,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "use_cpu": True, "save_strategy": "no", "report_to": [],
        "disable_tqdm": True, "seed": 0, "logging_steps": 1, "bf16": False, "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential", "optim": "adamw_torch_fused",
    }  # fmt: skip
    trainer = peer(method, model, AutoTokenizer.from_pretrained(folder / "model"), rows, arguments)

    class Timed(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step()

    trainer.add_callback(Timed())
    meter = Meter()
    trainer.train()
    print(meter.said([row["loss"] for row in trainer.state.log_history if "loss" in row]), flush=True)


def peer(method: str, model: Any, tokenizer: Any, rows: Any, arguments: dict[str, Any]) -> Any:
    """TRL's trainer of a method, which takes the tokens as they are."""
    import trl

    given = {"model": model, "processing_class": tokenizer, "train_dataset": rows}

    def prepared(self: Any, dataset: Any, *_: Any) -> Any:
        return dataset

    match method:
        case "dpo" | "kto":
            kind, config = {"dpo": (trl.DPOTrainer, trl.DPOConfig), "kto": (trl.KTOTrainer, trl.KTOConfig)}[method]  # type: ignore[attr-defined]
            if method == "kto":
                from llmbench.training.methods.kto import _with_neighbours

                given["train_dataset"] = _with_neighbours(rows, ROWS)
            made = type("Tokenised", (kind,), {"_prepare_dataset": prepared})
            return made(args=config(**arguments, max_length=None), **given)
        case "orpo":
            from trl.experimental.orpo import ORPOConfig, ORPOTrainer

            from llmbench.training.methods.orpo import Trainer

            made = type("Tokenised", (ORPOTrainer,), {"tokenize_row": staticmethod(Trainer.tokenize_row)})
            return made(args=ORPOConfig(**arguments, max_length=1024, remove_unused_columns=False), **given)
    plain: dict[str, Any] = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return trl.SFTTrainer(args=trl.SFTConfig(**arguments, **plain), **given)  # type: ignore[attr-defined]


def measure(arm: str, folder: Path, method: str, steps: int) -> dict[str, Any]:
    """One arm, in a process of its own."""
    command = [sys.executable, __file__, "--arm", arm, "--folder", str(folder), "--methods", method, "--steps", str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LLMBENCH_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} {method} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith(MARK))[len(MARK) :])
    said = f"{found['seconds']:.1f} s, {found['grown'] / 2**20:,.0f} MiB"
    print(f"{method} {arm}: {said}", file=sys.stderr, flush=True)
    return found


def spread(values: list[float], digits: int = 2) -> str:
    """The median and the ends."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def table(method: str, done: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """A line of the table."""
    faster = [other["seconds"] / own["seconds"] for own, other in done]
    smaller = [other["grown"] / own["grown"] for own, other in done]
    apart = max(
        abs(a - b) / abs(b) for own, other in done for a, b in zip(own["losses"], other["losses"], strict=True)
    )  # fmt: skip
    seconds = [statistics.median(one[i]["seconds"] for one in done) for i in (0, 1)]
    grown = [statistics.median(one[i]["grown"] for one in done) / 2**20 for i in (0, 1)]
    return (
        f"| {method} | {seconds[1]:.1f} | {seconds[0]:.1f} | {spread(faster)} | {grown[1]:,.0f} | {grown[0]:,.0f} | "
        f"{spread(smaller)} | {apart:.1e} |"
    )


def main() -> None:
    """Trains in turns and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--arm", choices=["trl", "llmbench"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    if arguments.arm is not None:
        (theirs if arguments.arm == "trl" else ours)(arguments.folder, methods[0], arguments.steps)
        return
    if arguments.source is None:
        parser.error("name the training file of GSM8K")
    import train_speed

    folder = workspace.home().absolute() / "preference-speed"
    train_speed.make(arguments.source, folder)
    pairs(folder)
    adapter(folder)
    print(f"{arguments.steps} steps of {ROWS} rows, the first not timed; {arguments.repeats} pairs; median [least, most]\n")
    print("| method | TRL CPU s | llmbench CPU s | times faster | TRL MiB | llmbench MiB | times smaller | loss apart |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for method in methods:
        done = []
        for repeat in range(arguments.repeats):
            order = ("llmbench", "trl") if repeat % 2 == 0 else ("trl", "llmbench")
            found = {arm: measure(arm, folder, method, arguments.steps) for arm in order}
            done.append((found["llmbench"], found["trl"]))
        print(table(method, done), flush=True)


if __name__ == "__main__":
    main()
