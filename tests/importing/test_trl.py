"""TRL's commands and files: the values of its published ones, written anew, and what a recipe must have of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.importing.facts import ROWS, Case, check, imported, loaded

from llmbench import assets
from llmbench.errors import RecipeError

SFT = (
    "python trl/scripts/sft.py \\\n    --model_name_or_path Qwen/Qwen2-0.5B \\\n    --dataset_name trl-lib/Capybara \\\n"
    "    --num_train_epochs 1 --packing --per_device_train_batch_size 2 --gradient_accumulation_steps 8 \\\n"
    "    --gradient_checkpointing --eos_token '<|im_end|>' --eval_strategy steps --eval_steps 100 \\\n"
    "    --output_dir Qwen2-0.5B-SFT --push_to_hub "
)
DPO = (
    "trl dpo --dataset_name trl-lib/ultrafeedback_binarized --dataset_streaming --model_name_or_path Qwen/Qwen2-0.5B-Instruct "
    "--num_train_epochs 1 --per_device_train_batch_size 2 --gradient_accumulation_steps 8 --gradient_checkpointing "
    "--logging_steps 25 --eval_strategy steps --eval_steps 50 --output_dir Qwen2-0.5B-DPO --no_remove_unused_columns "
)
KTO = (
    "python trl/scripts/kto.py --dataset_name trl-lib/kto-mix-14k --model_name_or_path=trl-lib/qwen1.5-1.8b-sft "
    "--num_train_epochs 1 --learning_rate 5e-7 --lr_scheduler_type=cosine --gradient_accumulation_steps 1 --eval_steps 500 "
    "--output_dir=kto-aligned-model --warmup_steps 0.1 --logging_first_step "
)

CASES = [
    Case("cli_configs/example_config", "model_name_or_path:\n  Qwen/Qwen2.5-0.5B\ndataset_name:\n  stanfordnlp/imdb\n"
         "report_to:\n  none\nlearning_rate:\n  0.0001\nlr_scheduler_type:\n  cosine\n",
         {"method": "sft", "lora": None, "training.learning_rate": 1e-4, "training.lr_scheduler_type": "cosine", "batch": 8,
          "training.warmup_steps": 0, "training.num_train_epochs": 3, "data.max_length": 1024, "data.over_length": "truncate",
          "data.train_on": "all", "data.train.0.dataset": "stanfordnlp/imdb", "training.gradient_checkpointing": True}),
    Case("scripts/sft full", SFT + "--learning_rate 2.0e-5",
         {"method": "sft", "lora": None, "training.learning_rate": 2e-5, "batch": 16, "training.packing": True,
          "data.eval.0.split": "test", "training.eval_steps": 100, "name": "qwen2-0.5b-sft"}, file="train.sh",
         dropped={"push_to_hub", "eos_token", "eval_strategy"}),
    Case("scripts/sft LoRA", SFT + "--learning_rate 2.0e-4 --use_peft --lora_r 32 --lora_alpha 16",
         {"lora.r": 32, "lora.lora_alpha": 16, "lora.lora_dropout": 0.05, "lora.target_modules": ["q_proj", "v_proj"],
          "training.learning_rate": 2e-4, "training.lr_scheduler_type": "linear"}, file="train.sh"),
    Case("scripts/dpo full", DPO + "--learning_rate 5.0e-7 --report_to wandb",
         {"method": "dpo", "lora": None, "training.learning_rate": 5e-7, "batch": 16, "dpo.beta": 0.1,
          "dpo.loss_type": ["sigmoid"], "training.logging_steps": 25, "tracking.to": ["wandb"]}, file="train.sh"),
    Case("scripts/dpo LoRA", DPO + "--learning_rate 5.0e-6 --use_peft --lora_r 32 --lora_alpha 16",
         {"lora.r": 32, "training.learning_rate": 5e-6, "training.eval_steps": 50, "data.eval.0.split": "test"},
         file="train.sh", dropped={"dataset_streaming", "no_remove_unused_columns"}),
    Case("scripts/kto full", KTO + "--per_device_train_batch_size 16",
         {"method": "kto", "batch": 16, "training.learning_rate": 5e-7, "training.warmup_steps": 0.1,
          "training.eval_steps": None, "lora": None, "kto.beta": 0.1}, file="train.sh", dropped={"eval_steps"}),
    Case("scripts/kto QLoRA", KTO + "--per_device_train_batch_size 8 --use_peft --load_in_4bit "
         "--lora_target_modules=all-linear --lora_r=16 --lora_alpha=16",
         {"quantization.load_in_4bit": True, "quantization.bnb_4bit_use_double_quant": False, "lora.r": 16,
         "lora.lora_alpha": 16,
          "lora.target_modules": "all-linear", "batch": 8}, file="train.sh"),
    Case("scripts/reward",
    "trl reward --model_name_or_path Qwen/Qwen2-0.5B-Instruct --dataset_name trl-lib/ultrafeedback_binarized "
         "--output_dir Qwen2-0.5B-Reward --per_device_train_batch_size 8 --num_train_epochs 1 --learning_rate 1.0e-4 "
         "--eval_strategy steps --eval_steps 50 --max_length 2048 --use_peft --lora_task_type SEQ_CLS --lora_r 32 "
         "--lora_alpha 16",
         {"method": "reward", "data.max_length": 2048, "data.over_length": "drop", "lora.r": 32}, file="train.sh",
         dropped={"lora_task_type"}),
    Case("8 processes",
    "accelerate launch --num_processes 8 --config_file zero3.yaml examples/scripts/sft.py --model_name_or_path a/b "
         "--dataset_name c/d --per_device_train_batch_size 2 --gradient_accumulation_steps 4 --assistant_only_loss true "
         "--bf16 --max_length 4096 --seed 7",
         {"batch": 64, "data.train_on": "assistant", "model.dtype": "bfloat16", "data.max_length": 4096, "training.seed": 7},
         file="train.sh"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_published_command_keeps_its_training(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, "trl")


def test_the_first_losses_are_trl_s_own(tmp_path: Path) -> None:
    """A step sees all rows, so that their order has no part; the command that the file is written for trains beside."""
    settings = {
        "model_name_or_path": assets.model_folder(assets.TINY), "datasets": [{"path": "json", "data_files": "rows.jsonl"}],
        "max_length": 256, "dtype": "float32", "bf16": False, "assistant_only_loss": True, "learning_rate": 1e-3,
        "lr_scheduler_type": "constant", "per_device_train_batch_size": 4, "logging_steps": 1, "max_steps": 3, "save_steps": 3,
        "report_to": "none", "output_dir": "theirs", "use_peft": True, "lora_r": 8, "lora_target_modules": "all-linear",
        "lora_dropout": 0.0,
    }  # fmt: skip
    turns = [[("user", f"What is fee {i}?"), ("assistant", f"It is {i} euros.")] for i in range(4)]
    rows = [{"messages": [{"role": role, "content": content} for role, content in row]} for row in turns]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "trl.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "LLMBENCH_HOME": str(tmp_path / "outputs")}
    llmbench = [sys.executable, "-m", "llmbench"]
    for command in (
        [str(Path(sys.executable).with_name("trl")), "sft", "--config", "trl.yaml"],
        [*llmbench, "import", "trl.yaml", "-o", "ours.yaml", "--from", "trl"],
        [*llmbench, "train", "ours.yaml", "name=ours"],
    ):
        done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    state = json.loads((tmp_path / "theirs/checkpoint-3/trainer_state.json").read_text(encoding="utf-8"))
    lines = (tmp_path / "outputs/runs/ours/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    theirs = [row["loss"] for row in state["log_history"] if "loss" in row]
    assert len(theirs) == 3 and theirs[2] < theirs[0]
    assert [row["loss"] for row in map(json.loads, lines) if "loss" in row] == pytest.approx(theirs, rel=1e-5)


def test_a_mixture_of_data_sets(tmp_path: Path) -> None:
    text = (
        "model_name_or_path: a/b\nuse_peft: true\ndatasets:\n  - path: stanfordnlp/imdb\n  - path: roneneldan/TinyStories\n"
        "    split: validation\n  - path: rows.jsonl\ntest_split_size: 0.1\n"
    )
    data = loaded(imported(tmp_path, text, rows_DOT_jsonl=ROWS), tmp_path).data
    assert [source.dataset for source in data.train] == ["stanfordnlp/imdb", "roneneldan/TinyStories", None]
    assert data.train[1].split == "validation" and data.eval_fraction == 0.1


@pytest.mark.parametrize(
    ("line", "fate"),
    [
        ("truncation_mode: keep_end", "refused"),
        ("truncation_mode: keep_start", "dropped"),
        ("model_revision: abc123", "kept"),
        ("model_revision: main", "dropped"),
    ],
)
def test_only_a_value_that_changes_nothing_is_reported_as_dropped(line: str, fate: str, tmp_path: Path) -> None:
    result = imported(tmp_path, f"model_name_or_path: a/b\ndataset_name: c/d\nuse_peft: true\n{line}\n")
    assert {one.theirs: one.fate for one in result.translations}[line.partition(":")[0]] == fate


def test_a_command_takes_the_file_that_it_names(tmp_path: Path) -> None:
    config = "model_name_or_path: a/b\ndataset_name: c/d\nlearning_rate: 1e-5\nbeta: 0.3\n"
    result = imported(tmp_path, "trl dpo --config dpo.yaml --learning_rate 3e-6\n", "run.sh", dpo_DOT_yaml=config)
    document = loaded(result, tmp_path)
    assert (document.method, document.training.learning_rate) == ("dpo", 3e-6)
    assert document.dpo is not None and document.dpo.beta == 0.3


def test_variables_of_the_script_are_filled_in_and_no_others(tmp_path: Path) -> None:
    text = 'MODEL="Qwen/Qwen3-0.6B"\nexport LR=1e-4\n'
    text += "trl sft --model_name_or_path $MODEL --dataset_name a/b --learning_rate ${LR}\n"
    document = loaded(imported(tmp_path, text, "run.sh"), tmp_path)
    assert document.model.model_name_or_path == "Qwen/Qwen3-0.6B" and document.training.learning_rate == 1e-4
    with pytest.raises(RecipeError, match=r"run\.sh:1: \$HOME is not set in this file"):
        imported(tmp_path, "trl sft --model_name_or_path $HOME/model --dataset_name a/b\n", "run.sh")


def test_the_trainer_is_guessed_from_its_own_keys_and_asked_for_otherwise(tmp_path: Path) -> None:
    text = "model_name_or_path: a/b\ndataset_name: c/d\nper_device_train_batch_size: 4\n"
    assert loaded(imported(tmp_path, text + "desirable_weight: 1.2\n"), tmp_path).method == "kto"
    assert loaded(imported(tmp_path, text + "center_rewards_coefficient: 0.01\n"), tmp_path).method == "reward"
    with pytest.raises(RecipeError, match="the verb says which"):
        imported(tmp_path, text + "beta: 0.2\n")


def test_distillation_and_grpo(tmp_path: Path) -> None:
    text = "trl gkd --model_name_or_path a/student --teacher_model_name_or_path a/teacher --dataset_name c/d --seq_kd\n"
    document = loaded(imported(tmp_path, text, "run.sh"), tmp_path)
    assert document.distillation is not None and document.distillation.seq_kd
    assert (document.distillation.lmbda, document.distillation.beta) == (0.5, 0.5)
    judged = imported(
        tmp_path,
        "trl grpo --model_name_or_path a/b --dataset_name c/d --reward_funcs judge.score --num_generations 4 --use_vllm "
        "--per_device_train_batch_size 4 --use_peft --loss_type dr_grpo\n",
        "run.sh",
        judge_DOT_py="def score(completions, **rest):\n    return [0.0]\n",
    )
    spec = loaded(judged, tmp_path).grpo
    assert spec is not None and (spec.num_generations, spec.loss_type, spec.max_completion_length) == (4, "dr_grpo", 512)
    named = imported(
        tmp_path, "trl grpo --model_name_or_path a/b --dataset_name c/d --reward_funcs accuracy_reward\n", "run.sh"
    )
    assert named.recipe is None and "accuracy_reward" in named.unfit[0]


SCRIPT = """
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer
import torch

rank = 32
model = AutoModelForCausalLM.from_pretrained("facebook/opt-350m", torch_dtype=torch.bfloat16,
    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True))
args = SFTConfig(output_dir="outputs/opt", max_length=512, packing=True, learning_rate=1e-4,
    per_device_train_batch_size=4, gradient_accumulation_steps=4, num_train_epochs=2, warmup_steps=compute_warmup())
peft = LoraConfig(r=rank, lora_alpha=64, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
SFTTrainer(model, args=args, train_dataset=load_dataset("stanfordnlp/imdb", split="train"), peft_config=peft).train()
raise SystemExit("nothing of this file may run")
"""


def test_a_script_is_read_and_not_run(tmp_path: Path) -> None:
    result = imported(tmp_path, SCRIPT, "train.py")
    document = loaded(result, tmp_path)
    assert document.lora is not None and (document.lora.r, document.lora.lora_alpha, document.lora.lora_dropout) == (
        32,
        64,
        0.1,
    )
    assert document.quantization is not None and document.quantization.bnb_4bit_use_double_quant
    spec = document.training
    assert (spec.learning_rate, spec.packing, spec.num_train_epochs, document.data.max_length) == (1e-4, True, 2, 512)
    assert document.model.dtype == "bfloat16" and document.data.train[0].dataset == "stanfordnlp/imdb"
    [computed] = [one for one in result.translations if one.theirs == "warmup_steps" and one.fate == "refused"]
    assert computed.value == "compute_warmup()"
