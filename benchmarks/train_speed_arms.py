"""One training of train_speed.py in an environment that need not have llmbench: TRL, or a loop written by hand.

    python train_speed_arms.py ARM FOLDER STEPS OUTPUT

Reads FOLDER/model and FOLDER/train.jsonl (prompt, completion), trains LoRA r=16 for STEPS steps of 8 rows in file order, saves
the adapter to OUTPUT/adapter and prints one JSON line: seconds of the steps, without starting up.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

RATE, ROWS = 2e-4, 8


def lora() -> LoraConfig:
    """What every arm trains."""
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def rows(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first rows as conversations."""
    found: list[dict[str, Any]] = []
    with (folder / "train.jsonl").open(encoding="utf-8") as file:
        for line in file:
            if len(found) == count:
                break
            row = json.loads(line)
            found.append(
                {
                    "prompt": [{"role": "user", "content": row["prompt"]}],
                    "completion": [{"role": "assistant", "content": row["completion"]}],
                }
            )
    return found


def trl(arm: str, folder: Path, steps: int, output: Path) -> float:
    """TRL's SFTTrainer: with the defaults of `trl sft` (told only that there is no GPU), the base in bfloat16, or tuned."""
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    settings: dict[str, dict[str, Any]] = {
        "trl": {},
        "trl-bfloat16": {},
        "trl-tuned": {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"},
        "trl-packed": {"gradient_checkpointing": False, "packing": True, "max_length": 512},
    }
    tuned = settings[arm]
    arguments = SFTConfig(
        output_dir=str(output / "trl"), max_steps=steps, per_device_train_batch_size=ROWS, learning_rate=RATE,
        lr_scheduler_type="constant", use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True, seed=0,
        **{"logging_steps": 10, **tuned},
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32 if arm == "trl" else torch.bfloat16)
    trainer: Any = SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows(folder, steps * ROWS)),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"), peft_config=lora(),
    )  # fmt: skip
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    trainer.model.save_pretrained(output / "adapter")
    return seconds


def by_hand(folder: Path, steps: int, output: Path, *, fused: bool = False) -> float:
    """Rows end to end, attention for each, the head on learned positions only, bfloat16 beside float32 adapters.

    With `fused` the same loop with llmbench's own attention for short rows, LoRA in place and frozen head.
    """
    from torch.nn import functional
    from transformers import AttentionInterface

    if fused:
        from llmbench.training.kernels import fused_lora
        from llmbench.training.kernels.chunked_head import score
        from llmbench.training.kernels.short_attention import LONGEST, ShortAttention

    ends: list[int] = []

    def attention(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float | None = None, **_: Any) -> tuple[Any, None]:
        parts = zip(*(torch.split(x, ends, 2) for x in (q, k, v)), strict=True)
        seen = [
            ShortAttention.apply(a, b, c, scaling)  # type: ignore[no-untyped-call]
            if fused and a.shape[2] <= LONGEST
            else functional.scaled_dot_product_attention(a, b, c, is_causal=True, scale=scaling, enable_gqa=True)
            for a, b, c in parts
        ]
        return torch.cat(seen, 2).transpose(1, 2).contiguous(), None

    AttentionInterface.register("by_hand", attention)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    base: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16, attn_implementation="by_hand")
    model: Any = get_peft_model(base, lora())
    if fused:
        fused_lora.install(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    encoded = []
    for row in rows(folder, steps * ROWS):
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)[:-1]
        encoded.append((whole, len(prompt)))
    start = time.perf_counter()
    for step in range(steps):
        batch = encoded[step * ROWS : (step + 1) * ROWS]
        ends[:] = [len(ids) for ids, _ in batch]
        ids = torch.tensor([[token for row, _ in batch for token in row]])
        places = torch.cat([torch.arange(length) for length in ends])[None]
        learned = torch.tensor([i >= prompt for row, prompt in batch for i in range(len(row))]).nonzero()[:, 0]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = base.model(input_ids=ids, position_ids=places, attention_mask=None, use_cache=False).last_hidden_state[0]
            if fused:
                loss: Any = -score(hidden[learned - 1], base.lm_head.weight, None, ids[0, learned])[0].mean()
            else:
                loss = functional.cross_entropy(base.lm_head(hidden[learned - 1]).float(), ids[0, learned])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - start
    model.save_pretrained(output / "adapter")
    return seconds


def main() -> None:
    """Trains one arm."""
    arm, folder, steps, output = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    if arm.startswith("by-hand"):
        seconds = by_hand(folder, steps, output, fused=arm == "by-hand-fused")
    else:
        seconds = trl(arm, folder, steps, output)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
