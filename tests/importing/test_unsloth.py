"""Unsloth's program, files and notebooks: their published values, written anew, and what a recipe must have of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.importing.facts import ROWS, Case, check, imported, loaded

from llmbench.errors import RecipeError

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NOTEBOOK = """
from unsloth import FastLanguageModel, is_bfloat16_supported
max_seq_length = 2048
dtype = None
load_in_4bit = True
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name = "unsloth/Meta-Llama-3.1-8B", max_seq_length = max_seq_length, dtype = dtype, load_in_4bit = load_in_4bit,
)
model = FastLanguageModel.get_peft_model(
    model, r = 16, target_modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",],
    lora_alpha = 16, lora_dropout = 0, bias = "none", use_gradient_checkpointing = "unsloth", random_state = 3407,
    use_rslora = False, loftq_config = None,
)
from datasets import load_dataset
dataset = load_dataset("yahma/alpaca-cleaned", split = "train")
dataset = dataset.map(formatting_prompts_func, batched = True,)
from trl import SFTTrainer
from transformers import TrainingArguments
trainer = SFTTrainer(
    model = model, tokenizer = tokenizer, train_dataset = dataset, dataset_text_field = "text",
    max_seq_length = max_seq_length, dataset_num_proc = 2, packing = False,
    args = ARGS(
        per_device_train_batch_size = 2, gradient_accumulation_steps = 4, warmup_steps = 5, max_steps = 60,
        learning_rate = 2e-4, fp16 = not is_bfloat16_supported(), bf16 = is_bfloat16_supported(), logging_steps = 1,
        optim = "adamw_8bit", weight_decay = 0.01, lr_scheduler_type = "linear", seed = 3407, output_dir = "outputs",
        report_to = "none",
    ),
)
"""
FACTS = {
    "method": "sft", "lora.r": 16, "lora.lora_alpha": 16, "lora.lora_dropout": 0.0, "lora.target_modules": SEVEN, "batch": 8,
    "training.max_steps": 60, "training.learning_rate": 2e-4, "training.optim": "adamw_8bit", "training.warmup_steps": 5,
    "training.weight_decay": 0.01, "training.lr_scheduler_type": "linear", "training.seed": 3407, "data.max_length": 2048,
    "quantization.load_in_4bit": True, "model.dtype": "auto", "training.gradient_checkpointing": True,
    "data.train.0.dataset": "yahma/alpaca-cleaned", "data.train_on": "all", "training.packing": False,
}  # fmt: skip

CASES = [
    Case("notebook, Llama 3.1 8B, Alpaca", NOTEBOOK.replace("ARGS", "TrainingArguments"), FACTS, file="notebook.py",
         refused={"map"}, dropped={"report_to", "random_state"}),
    Case("unsloth-cli.py",
    "python unsloth-cli.py --model_name \"unsloth/llama-3-8b\" --max_seq_length 8192 --dtype None --load_in_4bit \\\n"
         "--r 64 --lora_alpha 32 --lora_dropout 0.1 --bias \"none\" --use_gradient_checkpointing \"unsloth\" \\\n"
         "--random_state 3407 --use_rslora --per_device_train_batch_size 4 --gradient_accumulation_steps 8 \\\n"
         "--warmup_steps 5 --max_steps 400 --learning_rate 2e-6 --logging_steps 1 --optim \"adamw_8bit\" \\\n"
         "--weight_decay 0.005 --lr_scheduler_type \"linear\" --seed 3407 --output_dir \"outputs\" \\\n"
         "--report_to \"tensorboard\" --save_model --save_path \"model\" --push_model --hub_path \"hf/model\"\n",
         {"lora.r": 64, "lora.lora_alpha": 32, "lora.lora_dropout": 0.1, "lora.use_rslora": True, "batch": 32,
          "training.learning_rate": 2e-6, "training.weight_decay": 0.005, "data.max_length": 8192,
          "quantization.load_in_4bit": True, "training.max_steps": 400, "data.train.0.dataset": "yahma/alpaca-cleaned",
          "data.train_on": "all"}, file="run.sh", refused={"dataset"}, dropped={"save_model", "push_model"}),
    Case("unsloth train", "model: unsloth/Qwen3-4B\ndata: {dataset: yahma/alpaca-cleaned, format_type: alpaca}\n"
         "training: {max_seq_length: 4096, num_epochs: 1, learning_rate: 1e-4, batch_size: 4, random_seed: 11, max_steps: 0,\n"
         "  save_steps: 0, train_on_completions: true, gradient_checkpointing: 'true'}\nlora: {lora_r: 32, lora_alpha: 32}\n"
         "logging: {enable_wandb: true, wandb_project: mine}\n",
         {"batch": 16, "training.seed": 11, "training.num_train_epochs": 1, "lora.r": 32, "data.train_on": "assistant",
          "training.max_steps": -1, "training.optim": "adamw_8bit", "data.train.0.format": "alpaca",
          "training.warmup_steps": 5, "quantization.load_in_4bit": True, "tracking.to": ["wandb"],
          "tracking.project": "mine"}, dropped={"save_steps"}),
    Case("unsloth train, defaults", "model: unsloth/Llama-3.2-1B\ndata: {dataset: a/b}\ntraining: {training_type: lora}\n",
         {"lora.r": 64, "lora.lora_alpha": 16, "training.seed": 3407, "training.num_train_epochs": 3, "batch": 8,
          "training.learning_rate": 2e-4, "training.weight_decay": 0.01, "data.train_on": "all", "data.max_length": 2048}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_published_settings_keep_their_training(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, "unsloth")


def test_a_notebook_is_read_cell_by_cell_without_its_shell_lines(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "source": ["%%capture\n", "!pip install unsloth\n"]},
        {"cell_type": "markdown", "source": ["# Fine-tune\n"]},
        {"cell_type": "code", "source": ["!nvidia-smi\n", *NOTEBOOK.replace("ARGS", "SFTConfig").splitlines(keepends=True)]},
        {"cell_type": "code", "source": ["from unsloth.chat_templates import train_on_responses_only\n",
                                         "trainer = train_on_responses_only(trainer, instruction_part = 'a', "
                                         "response_part = 'b')\n"]},
    ]  # fmt: skip
    result = imported(tmp_path, json.dumps({"cells": cells}), "notebook.ipynb")
    document = loaded(result, tmp_path)
    assert document.data.train_on == "assistant" and document.training.seed == 3407 and document.training.max_steps == 60


def test_defaults_of_unsloths_own_configs_differ_from_transformers(tmp_path: Path) -> None:
    short = (
        "from unsloth import FastLanguageModel\nfrom trl import SFTConfig, SFTTrainer\n"
        "m, t = FastLanguageModel.from_pretrained('unsloth/Qwen3-4B', max_seq_length=1024, load_in_4bit=False)\n"
        "m = FastLanguageModel.get_peft_model(m)\n"
        "SFTTrainer(model=m, train_dataset=load_dataset('a/b', split='train'), args={}(output_dir='x'))\n"
    )
    own = loaded(imported(tmp_path, short.format("SFTConfig"), "train.py"), tmp_path)
    assert (own.training.optim, own.training.seed, own.training.warmup_steps) == ("adamw_8bit", 3407, 0.1)
    assert own.quantization is None and own.lora is not None and own.lora.target_modules == SEVEN
    plain = loaded(imported(tmp_path, short.format("TrainingArguments"), "train.py"), tmp_path)
    assert (plain.training.optim, plain.training.seed, plain.training.warmup_steps) == ("adamw_torch_fused", 42, 0)


def test_all_parameters_and_a_local_file(tmp_path: Path) -> None:
    text = "model: a/b\ndata: {local_dataset: [rows.jsonl]}\ntraining: {training_type: full, random_seed: 1}\n"
    document = loaded(imported(tmp_path, text, rows_DOT_jsonl=ROWS), tmp_path)
    assert document.lora is None and document.quantization is None
    assert document.data.train[0].path == tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("print('hello')\n", "has no call of a trainer"),
        ("SFTTrainer()\nDPOTrainer()\n", "trains with sft and dpo"),
        ("def f(:\n", r"train\.py:1: is not valid Python"),
    ],
)
def test_a_script_of_no_training_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        imported(tmp_path, text, "train.py")
    assert "\n" not in str(caught.value)


def test_a_published_quantised_base_is_not_quantised_again(tmp_path: Path) -> None:
    text = "model: unsloth/llama-3-8b-bnb-4bit\ndata: {dataset: a/b}\ntraining: {training_type: lora, load_in_4bit: true}\n"
    assert loaded(imported(tmp_path, text), tmp_path).quantization is None
