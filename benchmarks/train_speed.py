"""Training speed with loss parity: llmbench against TRL, LLaMA-Factory and a loop written by hand, at equal rows and steps.

    python benchmarks/train_speed.py PATH/TO/gsm8k/train.jsonl [--steps 20] [--repeats 3] [--threads 2]
        [--trl PYTHON] [--llamafactory CLI] [--arms llmbench,trl,...]

Makes a Qwen3 of 42M random parameters and a tokenizer of 4,000 tokens from the data, trains LoRA r=16 on the same rows in the
same order with each, each in a process of its own and its own environment (named by --trl and --llamafactory; an arm whose
environment is not named is left out), taking turns. Prints real tokens (padding not counted) a second of the training loop, the
peak memory of the process, and the loss of each adapter on 64 held-out rows, counted by one program for all. The arms that
begin with + add one technique at a time. Everything lies in outputs/train-speed/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from llmbench import workspace

HERE = Path(__file__).resolve().parent
ROWS, HELD_OUT = 8, 64
PLAIN = ["training.performance=plain", "training.padding_free=false"]
OURS: dict[str, list[str]] = {
    "llmbench": [],
    "llmbench-float32": ["model.dtype=float32"],
    "llmbench-packed": ["training.packing=true", "training.per_device_train_batch_size=3", "data.max_length=512"],
    "+ nothing": [*PLAIN, "model.dtype=float32", "training.gradient_checkpointing=true"],
    "+ no checkpointing": [*PLAIN, "model.dtype=float32"],
    "+ bfloat16": [*PLAIN],
    "+ rows end to end": ["training.fused_lora=false"],
    "+ LoRA in place": ["training.fused_lora=true"],
}
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m['content'] }}"
    "<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(source: Path, folder: Path) -> None:
    """The data, the tokenizer and the model that every arm starts from."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    with source.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("held-out", rows[:HELD_OUT]), ("train", rows[HELD_OUT:])):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"prompt": row["question"], "completion": row["answer"]}) + "\n" for row in part)
    alpaca = [{"instruction": row["question"], "input": "", "output": row["answer"]} for row in rows[HELD_OUT:]]
    (folder / "alpaca.json").write_text(json.dumps(alpaca), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "alpaca.json"}}), encoding="utf-8")
    text = Tokenizer(models.BPE())
    text.pre_tokenizer, text.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    text.train_from_iterator((row["question"] + "\n" + row["answer"] for row in rows[HELD_OUT:]), trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=text, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32000, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, tie_word_embeddings=True, max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model: Any = Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]
    model.to(torch.bfloat16).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def recipe(folder: Path, steps: int) -> Path:
    """llmbench's recipe; file order, so that every arm sees the same rows in the same steps."""
    import yaml

    document = {
        "name": "train-speed",
        "model": {"model_name_or_path": str(folder / "model")},
        "data": {"train": [{"path": str(folder / "train.jsonl"), "limit": steps * ROWS}], "shuffle": False, "max_length": 1024},
        "lora": {"r": 16, "lora_alpha": 32},
        "training": {
            "max_steps": steps, "per_device_train_batch_size": ROWS, "learning_rate": 2e-4, "lr_scheduler_type": "constant",
            "warmup_steps": 0, "logging_steps": 10, "seed": 0,
        },
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def llamafactory(folder: Path, steps: int, output: Path) -> Path:
    """LLaMA-Factory's document, as its users write it."""
    import yaml

    document = {
        "model_name_or_path": str(folder / "model"), "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "lora_rank": 16, "lora_alpha": 32, "lora_target": "all", "dataset_dir": str(folder), "dataset": "rows",
        "template": "qwen", "default_system": "", "cutoff_len": 1024, "max_samples": steps * ROWS,
        "output_dir": str(output / "adapter"),
        "overwrite_output_dir": True, "per_device_train_batch_size": ROWS, "gradient_accumulation_steps": 1, "max_steps": steps,
        "learning_rate": 2e-4, "lr_scheduler_type": "constant", "bf16": True, "use_cpu": True, "report_to": "none",
        "logging_steps": 10, "save_strategy": "no", "disable_shuffling": True,
    }  # fmt: skip
    path = output / "llamafactory.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def run(command: list[str], threads: int, cwd: Path) -> tuple[str, float]:
    """Runs a process; gives its stdout and its peak resident memory in GiB, children included."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "LLMBENCH_HOME": str(cwd / "home")
    }  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
    ) as process:
        peak = [0]

        def watch() -> None:
            while process.poll() is None:
                peak[0] = max(peak[0], resident(process.pid))
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        out, err = process.communicate()
        watcher.join()
        if process.returncode:
            raise SystemExit(f"{' '.join(command[:4])} failed:\n{err[-3000:]}")
    return out + err, peak[0] / 2**30


def resident(pid: int) -> int:
    """Resident bytes of a process and its children."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text(encoding="utf-8")
            waiting += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text(encoding="utf-8").split()]
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
    return total


def train(arm: str, folder: Path, steps: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One training: seconds of its loop, and its peak memory."""
    output = folder / "arms" / arm.replace(" ", "")
    output.mkdir(parents=True, exist_ok=True)
    if arm in OURS:
        name = f"train-speed-{list(OURS).index(arm)}"
        command = [sys.executable, "-m", "llmbench", "train", str(recipe(folder, steps)), f"name={name}", *OURS[arm]]
        out, memory = run([*command, "--overwrite", "--json"], arguments.threads, folder)
        record = json.loads(out[out.index("{") : out.rindex("}") + 1])
        return {"seconds": record["seconds"], "memory": memory, "adapter": record["result"]}
    if arm == "llamafactory":
        out, memory = run(
            [arguments.llamafactory, "train", str(llamafactory(folder, steps, output))], arguments.threads, folder
        )
        said = json.loads((output / "adapter" / "train_results.json").read_text(encoding="utf-8"))
        return {"seconds": said["train_runtime"], "memory": memory, "adapter": str(output / "adapter")}
    python = sys.executable if arm.startswith("by-hand") else arguments.trl
    script = str(HERE / "train_speed_arms.py")
    out, memory = run([python, script, arm, str(folder), str(steps), str(output)], arguments.threads, folder)
    line = next(line for line in reversed(out.splitlines()) if line.startswith('{"seconds"'))
    return {"seconds": json.loads(line)["seconds"], "memory": memory, "adapter": str(output / "adapter")}


def judge(folder: Path, adapters: dict[str, str]) -> dict[str, float]:
    """The mean loss of each adapter over the learned tokens of the held-out rows, in float32."""
    import torch
    from peft import PeftModel
    from torch.nn import functional
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "model")
    with (folder / "held-out.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = {}
    for arm, adapter in {"base": "", **adapters}.items():
        model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        if adapter:
            model = PeftModel.from_pretrained(model, adapter)
        total = count = 0.0
        for row in rows:
            turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
            prompt = len(tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False))
            ids = torch.tensor(tokenizer.apply_chat_template(turns, return_dict=False)[:-1])
            with torch.no_grad():
                logits = model(input_ids=ids[None]).logits[0, prompt - 1 : -1].float()
            total += float(functional.cross_entropy(logits, ids[prompt:], reduction="sum"))
            count += len(ids) - prompt
        found[arm] = total / count
    return found


def tokens(folder: Path, steps: int) -> int:
    """Real tokens of all steps."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "model")
    total = 0
    with (folder / "train.jsonl").open(encoding="utf-8") as file:
        for _, line in zip(range(steps * ROWS), file, strict=False):
            row = json.loads(line)
            turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
            total += len(tokenizer.apply_chat_template(turns, return_dict=False))
    return total


def program(name: str) -> str:
    """A program by its name or path, absolute: arms run in a folder of their own. A link stays one, as a venv's Python is."""
    found = shutil.which(os.path.expanduser(name))  # noqa: PTH111 (a Path would lose the ./ that makes it one)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {name}")
    return str(Path(found).absolute())


def main() -> None:
    """Trains in turns and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--trl", type=program, help="a Python with trl and peft")
    parser.add_argument("--llamafactory", type=program, help="the llamafactory-cli of an environment")
    parser.add_argument("--arms", help="only these, with commas between")
    arguments = parser.parse_args()
    folder = workspace.home() / "train-speed"
    make(arguments.source, folder)
    peers = ["by-hand", "by-hand-fused"] + (["trl", "trl-bfloat16", "trl-tuned", "trl-packed"] if arguments.trl else [])
    peers += ["llamafactory"] if arguments.llamafactory else []
    arms = arguments.arms.split(",") if arguments.arms else [*OURS, *peers]
    measured: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for repeat in range(arguments.repeats):
        for arm in arms if repeat % 2 == 0 else reversed(arms):
            found = train(arm, folder, arguments.steps, arguments)
            measured[arm].append(found)
            print(f"{repeat + 1} {arm}: {found['seconds']:.1f} s, {found['memory']:.2f} GiB", file=sys.stderr, flush=True)
    losses = judge(folder, {arm: found[-1]["adapter"] for arm, found in measured.items()})
    work = tokens(folder, arguments.steps)
    (folder / "measured.json").write_text(
        json.dumps({"measured": measured, "losses": losses, "tokens": work}), encoding="utf-8"
    )
    print(f"{work:,} tokens in {arguments.steps} steps of {ROWS} rows, {arguments.threads} threads")
    print(f"Held-out loss of the base: {losses['base']:.4f}\n")
    print("| arm | tokens/s, median [least, most] | peak memory GiB | held-out loss |\n| --- | --- | --- | --- |")
    for arm in arms:
        speeds = sorted(work / one["seconds"] for one in measured[arm])
        memory = statistics.median(one["memory"] for one in measured[arm])
        spread = f"{statistics.median(speeds):,.0f} [{speeds[0]:,.0f}, {speeds[-1]:,.0f}]"
        print(f"| {arm} | {spread} | {memory:.2f} | {losses[arm]:.4f} |")


if __name__ == "__main__":
    main()
