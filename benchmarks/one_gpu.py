"""Training on one NVIDIA GPU: speed with loss parity against TRL, and estimated against measured peak memory and time.

    python benchmarks/one_gpu.py PATH/TO/gsm8k/train.jsonl [--shape 0.6B] [--rows 32] [--steps 20] [--repeats 3] [--arms a;b]
    python benchmarks/one_gpu.py PATH/TO/gsm8k/train.jsonl --embedder all-MiniLM-L6-v2

Makes a Qwen3 of random weights in a published model's shape and a tokenizer of 4,000 tokens from the data, then trains on
the same rows in the same order, all arms in this one process, one after another; the first run of each warms its kernels up
and is not counted. Liger comes last: what it replaces in transformers stays replaced for the process. Prints real tokens a
second (padding not counted), the peak that PyTorch allocated, what `llmbench check` would have said of both, and the mean
loss of the last ten steps that were logged together. With --embedder it measures texts a second instead, by batch size and
precision. Everything lies in outputs/one-gpu/.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

from train_speed import TEMPLATE

from llmbench import workspace

HELD_OUT = 64
SHAPES: dict[str, dict[str, Any]] = {
    "42M": {
        "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True,
    },
    "0.6B": {
        "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
    },
    "8B": {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Of Qwen3-0.6B and Qwen3-8B, and the small one of train_speed.py."""
FULL = ["lora=null", "training.learning_rate=1e-5"]
OURS: dict[str, list[str]] = {
    "llmbench": [],
    "llmbench, padded": ["training.padding_free=false"],
    "llmbench, plain": ["training.performance=plain", "training.padding_free=false"],
    "llmbench, packed": ["training.packing=true", "training.per_device_train_batch_size=10", "data.max_length=512"],
    "llmbench, compiled": ["training.torch_compile=true"],
    "Liger": ["training.use_liger_kernel=true"],
    "checkpointing": ["training.gradient_checkpointing=true"],
    "float32": ["model.dtype=float32"],
    "offloading": ["training.activation_offloading=true"],
    "QLoRA": ["quantization.load_in_4bit=true"],
    "QLoRA, checkpointing": ["quantization.load_in_4bit=true", "training.gradient_checkpointing=true"],
    "LoRA on 8 bits": ["quantization.load_in_8bit=true"],
    "all parameters": FULL,
    "all parameters, 8-bit AdamW": [*FULL, "training.optim=adamw_8bit"],
    "all parameters, checkpointing": [*FULL, "training.gradient_checkpointing=true"],
}
TRL: dict[str, tuple[str, dict[str, Any]]] = {
    "TRL": ("float32", {}),
    "TRL, bfloat16": ("bfloat16", {}),
    "TRL, bfloat16, no checkpointing": ("bfloat16", {"gradient_checkpointing": False}),
}
"""Precision of the base and what is set beside TRL's defaults, which compute activations again."""


def make(source: Path, folder: Path, shape: str) -> None:
    """Rows, tokenizer and model, unless they lie there already."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    if (folder / "model" / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with source.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][HELD_OUT:]
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": row["question"], "completion": row["answer"]}) + "\n" for row in rows)
    text = Tokenizer(models.BPE())
    text.pre_tokenizer, text.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    text.train_from_iterator((row["question"] + "\n" + row["answer"] for row in rows), trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=text, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = Qwen3Config(
        **SHAPES[shape], max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model: Any = Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def settings(folder: Path, rows: int, steps: int) -> Path:
    """The recipe; file order, so that every arm sees the same rows in the same steps."""
    import yaml

    document = {
        "name": "one-gpu",
        "model": {"model_name_or_path": str(folder / "model")},
        "data": {"train": [{"path": str(folder / "train.jsonl"), "limit": steps * rows}], "shuffle": False, "max_length": 1024},
        "lora": {"r": 16, "lora_alpha": 32},
        "training": {
            "max_steps": steps, "per_device_train_batch_size": rows, "learning_rate": 2e-4, "lr_scheduler_type": "constant",
            "warmup_steps": 0, "logging_steps": 10, "seed": 0, "save_steps": 100000,
        },
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def ours(arm: str, folder: Path, rows: int, steps: int) -> dict[str, Any]:
    """One training by llmbench."""
    from llmbench import recipe, runs, training

    name = f"one-gpu-{list(OURS).index(arm)}"
    document = recipe.load(settings(folder, rows, steps), recipe.TrainRecipe, [f"name={name}", *OURS[arm]])
    job = training.prepare(document)
    run = runs.create(document, overwrite=True)
    training.train(job, run)
    state, needs = run.status, job.needs
    losses = [row["loss"] for row in run.metrics() if "loss" in row and row["step"] % 10 == 0]
    return {
        "seconds": state["seconds"], "loss": losses[-1] if losses else state["loss"], "tokens": state["tokens"],
        "memory": dict(needs.memory) if needs else {},
        "estimated_peak": needs.peak if needs else 0, "estimated_seconds": needs.uncorrected_seconds if needs else 0.0,
    }  # fmt: skip


def trl(arm: str, folder: Path, rows: int, steps: int) -> dict[str, Any]:
    """One training by TRL's SFTTrainer."""
    import torch
    from datasets import Dataset  # type: ignore[import-untyped]
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    dtype, more = TRL[arm]
    with (folder / "train.jsonl").open(encoding="utf-8") as file:
        data = [json.loads(line) for _, line in zip(range(steps * rows), file, strict=False)]
    chats = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in data
    ]
    arguments = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=steps, per_device_train_batch_size=rows, learning_rate=2e-4,
        lr_scheduler_type="constant", save_strategy="no", report_to=[], disable_tqdm=True, seed=0, logging_steps=10,
        train_sampling_strategy="sequential", **more,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=getattr(torch, dtype))
    trainer: Any = SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(chats),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"seconds": seconds, "loss": losses[-1]}


def measured(arm: str, folder: Path, rows: int, steps: int) -> dict[str, Any]:
    """One training of an arm with its peak on the GPU: allocated, and reserved by PyTorch's allocator."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = (ours if arm in OURS else trl)(arm, folder, rows, steps)
    if torch.cuda.is_available():
        found |= {"peak": torch.cuda.max_memory_allocated() - held, "reserved": torch.cuda.max_memory_reserved(), "held": held}
    return found


def train(arguments: argparse.Namespace) -> None:
    """Trains in turns and prints the table."""
    folder = workspace.home() / "one-gpu" / arguments.shape
    make(arguments.source, folder, arguments.shape)
    arms = arguments.arms.split(";") if arguments.arms else [*OURS, *TRL]
    arms.sort(key=lambda arm: arm == "Liger")
    rounds: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for arm in arms:
        try:
            for number in range(arguments.repeats + 1):
                rounds[arm].append(measured(arm, folder, arguments.rows, arguments.steps))
                print(json.dumps({"run": number, "arm": arm, **rounds[arm][-1]}), flush=True)
        except Exception as error:  # one arm that fails leaves the others their figures
            print(f"{arm}: {type(error).__name__}: {str(error)[:300]}", flush=True)
    tokens = next((row["tokens"] for found in rounds.values() for row in found if row.get("tokens")), 0)
    print(f"\n{arguments.shape}, {arguments.rows} rows a step, {arguments.steps} steps, {tokens:,} tokens\n")
    print("| arm | tokens/s, median [least, most] | peak GiB | estimated | error | seconds | estimated | loss |")
    print("|---|---|---|---|---|---|---|---|")
    for arm, found in rounds.items():
        if len(found) < 2:
            continue
        speeds = sorted(row.get("tokens", tokens) / row["seconds"] for row in found[1:])
        last = found[-1]
        peak, said = last.get("peak", 0) / 2**30, last.get("estimated_peak", 0) / 2**30
        seconds = statistics.median(row["seconds"] for row in found[1:])
        print(
            f"| {arm} | {statistics.median(speeds):,.0f} [{speeds[0]:,.0f}, {speeds[-1]:,.0f}] | {peak:.2f} "
            f"| {said:.2f} | {said / peak - 1 if peak else 0:+.0%} | {seconds:.2f} "
            f"| {last.get('estimated_seconds', 0):.2f} | {last['loss']:.4f} |"
        )


def embed(arguments: argparse.Namespace) -> None:
    """Texts a second: single questions, and passages of about 200 tokens made of several."""
    import numpy as np

    from llmbench.recipe import EmbedderSpec
    from llmbench.retrieval.embedding import Dtype, Embedder

    with arguments.source.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    short = [row["question"] for row in rows] * 8
    long = [" ".join(row["question"] + " " + row["answer"] for row in rows[i : i + 2]) for i in range(len(rows) - 1)] * 8
    exact: dict[str, Any] = {}
    print("| texts | precision | batch | texts/s, median [least, most] | least cosine to float32 |\n|---|---|---|---|---|")
    for title, texts in (("questions", short), ("passages", long)):
        dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
        for dtype in dtypes:
            for size in (32, 128, 512):
                spec = EmbedderSpec(model_name_or_path=arguments.embedder, batch_size=size)
                embedder = Embedder(spec, dtype=dtype, gpu=True)
                vectors = embedder.embed(texts[:2048])
                exact.setdefault(title, vectors)
                cosine = float(np.sum(vectors * exact[title], 1).min())
                speeds = []
                for _ in range(3):
                    start = time.perf_counter()
                    embedder.embed(texts)
                    speeds.append(len(texts) / (time.perf_counter() - start))
                spread = f"{statistics.median(speeds):,.0f} [{min(speeds):,.0f}, {max(speeds):,.0f}]"
                print(f"| {title} | {dtype} | {size} | {spread} | {cosine:.5f} |", flush=True)


def main() -> None:
    """Trains, or embeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--shape", choices=list(SHAPES), default="0.6B")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", help="only these, with semicolons between")
    parser.add_argument("--embedder", help="measure this embedder instead")
    arguments = parser.parse_args()
    if arguments.embedder:
        embed(arguments)
    else:
        train(arguments)


if __name__ == "__main__":
    main()
