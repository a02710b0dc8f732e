"""torchtune's configurations: the values of each, written anew, and what a recipe must have of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.importing.facts import ROWS, Case, check, imported, loaded

from llmbench.errors import RecipeError

TAIL = (
    "output_dir: /tmp/torchtune/{0}\nresume_from_checkpoint: False\nseed: null\nshuffle: True\ndevice: cuda\ndtype: bf16\n"
    "compile: False\nlog_every_n_steps: 1\nlog_peak_memory_stats: True\nmetric_logger:\n"
    "  _component_: torchtune.training.metric_logging.DiskLogger\n  log_dir: ${{output_dir}}/logs\n"
    "profiler: {{_component_: torchtune.training.setup_torch_profiler, enabled: False}}\n"
)
LORA = (
    "  lora_attn_modules: ['q_proj', 'v_proj', 'output_proj']\n  apply_lora_to_mlp: True\n  lora_rank: {0}\n"
    "  lora_alpha: {1}\n  lora_dropout: 0.0\n"
)
ADAMW = "optimizer:\n  _component_: torch.optim.AdamW\n  fused: True\n  weight_decay: {0}\n  lr: {1}\n"
COSINE = (
    "lr_scheduler:\n  _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup\n  num_warmup_steps: 100\n"
)
CLEANED = "dataset:\n  _component_: torchtune.datasets.alpaca_cleaned_dataset\n  packed: False\n"
LOSS = "loss:\n  _component_: torchtune.modules.loss.LinearCrossEntropyLoss\n"


def files(folder: str, model: str, tokenizer: str = "llama3.llama3_tokenizer") -> str:
    """The tokenizer and the weights, with the command that downloads them as the published files have it."""
    return (
        f'#   tune download {model} --output-dir {folder} --ignore-patterns "original/*"\n'
        f"tokenizer:\n  _component_: torchtune.models.{tokenizer}\n  path: {folder}/tokenizer.model\n  max_seq_len: null\n"
        f"checkpointer:\n  _component_: torchtune.training.FullModelHFCheckpointer\n  checkpoint_dir: {folder}/\n"
        "  checkpoint_files: [model.safetensors]\n  recipe_checkpoint: null\n  output_dir: ${output_dir}\n  model_type: X\n"
    )


FIVE = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = [
    Case("llama3_2/1B_lora_single_device", files("/tmp/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-1B-Instruct")
         + "model:\n  _component_: torchtune.models.llama3_2.lora_llama3_2_1b\n" + LORA.format(64, 128) + CLEANED + LOSS
         + ADAMW.format(0.01, "3e-4") + COSINE + "batch_size: 4\nepochs: 1\nmax_steps_per_epoch: null\n"
         "gradient_accumulation_steps: 8\nclip_grad_norm: null\nenable_activation_checkpointing: False\n"
         "enable_activation_offloading: False\n" + TAIL.format("llama3_2_1B/lora_single_device"),
         {"model.model_name_or_path": "meta-llama/Llama-3.2-1B-Instruct", "lora.r": 64, "lora.lora_alpha": 128,
          "lora.target_modules": FIVE, "batch": 32, "training.learning_rate": 3e-4, "training.weight_decay": 0.01,
          "training.lr_scheduler_type": "cosine", "training.warmup_steps": 100, "training.max_grad_norm": 1e9,
          "training.optim": "adamw_torch_fused", "model.dtype": "bfloat16", "data.train_on": "all", "quantization": None,
          "data.train.0.dataset": "yahma/alpaca-cleaned", "training.gradient_checkpointing": False, "data.over_length": "error",
          "name": "llama3_2_1b-lora_single_device", "training.seed": 42, "training.packing": False},
         refused={"dataset._component_"}, dropped={"metric_logger._component_", "profiler.enabled", "device"}),
    Case("llama3_2/1B_qlora_single_device", files("/tmp/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-1B-Instruct")
         + "model:\n  _component_: torchtune.models.llama3_2.qlora_llama3_2_1b\n" + LORA.format(64, 128) + CLEANED + LOSS
         + ADAMW.format(0.01, "3e-4") + COSINE + "batch_size: 4\nepochs: 1\ngradient_accumulation_steps: 8\n"
         "clip_grad_norm: 1.0\n" + TAIL.format("llama3_2_1B/qlora_single_device"),
         {"quantization.load_in_4bit": True, "quantization.bnb_4bit_quant_type": "nf4", "training.max_grad_norm": 1.0},
         refused={"dataset._component_"}),
    Case("llama3_1/8B_full_single_device", files("/tmp/Meta-Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct")
         + "model:\n  _component_: torchtune.models.llama3_1.llama3_1_8b\n"
         "dataset:\n  _component_: torchtune.datasets.alpaca_dataset\n  packed: False\n" + LOSS
         + "batch_size: 2\nepochs: 1\noptimizer:\n  _component_: bitsandbytes.optim.PagedAdamW8bit\n  lr: 2e-5\n"
         "max_steps_per_epoch: null\ngradient_accumulation_steps: 1\noptimizer_in_bwd: True\nclip_grad_norm: null\n"
         "enable_activation_checkpointing: True\n" + TAIL.format("llama3_1_8B/full_single_device"),
         {"lora": None, "training.optim": "paged_adamw_8bit", "training.learning_rate": 2e-5, "batch": 2,
          "training.lr_scheduler_type": "constant", "training.warmup_steps": 0, "training.weight_decay": 0.01,
          "training.gradient_checkpointing": True, "data.train.0.dataset": "tatsu-lab/alpaca"},
         refused={"dataset._component_"}, dropped={"optimizer_in_bwd"}),
    Case("llama3_1/8B_lora_dpo_single_device", files("/tmp/Meta-Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct")
         + "model:\n  _component_: torchtune.models.llama3_1.lora_llama3_1_8b\n  apply_lora_to_output: False\n"
         + LORA.format(8, 16)
         + "dataset:\n  _component_: torchtune.datasets.stack_exchange_paired_dataset\n"
         "loss:\n  _component_: torchtune.rlhf.loss.DPOLoss\n" + ADAMW.format(0.05, "5e-4") + COSINE
         + "batch_size: 4\nepochs: 1\nmax_steps_per_epoch: 1000\ngradient_accumulation_steps: 8\n"
         "enable_activation_checkpointing: True\n" + TAIL.format("llama3_1_8B/lora_dpo_single_device"),
         {"method": "dpo", "dpo.loss_type": ["sigmoid"], "dpo.beta": 0.1, "training.max_steps": 1000, "batch": 32,
          "training.learning_rate": 5e-4, "training.weight_decay": 0.05, "lora.r": 8,
          "data.train.0.columns": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}}),
    Case("qwen2_5/0.5B_lora_single_device", files("/tmp/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2_5.qwen2_5_tokenizer")
         + "model:\n  _component_: torchtune.models.qwen2_5.lora_qwen2_5_0_5b\n" + LORA.format(32, 64) + CLEANED + LOSS
         + ADAMW.format(0.01, "2e-3") + COSINE + "batch_size: 2\nepochs: 1\ngradient_accumulation_steps: 8\n"
         + TAIL.format("qwen2_5_0_5B/lora_single_device"),
         {"model.model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct", "lora.r": 32, "batch": 16, "training.learning_rate": 2e-3},
         refused={"dataset._component_"}),
    Case("mistral/7B_full_low_memory", files("/tmp/Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.1", "mistral.mistral_tokenizer")
         + "model:\n  _component_: torchtune.models.mistral.mistral_7b\n"
         "dataset:\n  _component_: torchtune.datasets.alpaca_dataset\n" + LOSS + "batch_size: 2\nepochs: 3\n"
         "optimizer:\n  _component_: bitsandbytes.optim.PagedAdamW\n  lr: 5e-6\ngradient_accumulation_steps: 1\n"
         "enable_activation_checkpointing: True\n" + TAIL.format("mistral"),
         {"training.optim": "adamw_torch", "training.learning_rate": 5e-6, "training.num_train_epochs": 3, "lora": None,
          "model.model_name_or_path": "mistralai/Mistral-7B-v0.1"}, refused={"dataset._component_"}),
    Case("llama3/8B_dora_single_device", files("/tmp/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct").replace(
         "checkpoint_dir: /tmp/Meta-Llama-3-8B-Instruct/", "checkpoint_dir: /tmp/Meta-Llama-3-8B-Instruct/original/")
         + "model:\n  _component_: torchtune.models.llama3.lora_llama3_8b\n  lora_attn_modules: ['q_proj', 'v_proj']\n"
         "  apply_lora_to_mlp: False\n  apply_lora_to_output: False\n  lora_rank: 8\n  lora_alpha: 16\n  use_dora: True\n"
         + CLEANED + LOSS + ADAMW.format(0.01, "3e-4") + COSINE + "batch_size: 2\nepochs: 1\ngradient_accumulation_steps: 64\n"
         + TAIL.format("dora"),
         {"lora.use_dora": True, "lora.target_modules": ["q_proj", "v_proj"], "batch": 128, "lora.r": 8,
          "model.model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct"}, refused={"dataset._component_"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_configuration_keeps_its_training(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, "torchtune")


SMALL = (
    "checkpointer: {checkpoint_dir: /tmp/Llama-3.2-1B-Instruct}\nbatch_size: 4\nepochs: 1\n"
    "model: {_component_: torchtune.models.llama3_2.llama3_2_1b}\noptimizer: {_component_: torch.optim.AdamW, lr: 1e-5}\n"
)
KD = (
    "teacher_checkpointer: {checkpoint_dir: /tmp/Meta-Llama-3.1-8B-Instruct/}\n"
    "teacher_model: {_component_: torchtune.models.llama3_1.llama3_1_8b}\n"
    "kd_loss: {_component_: torchtune.modules.loss.ForwardKLWithChunkedOutputLoss}\n"
)


@pytest.mark.parametrize(("value", "fate"), [("True", "refused"), ("False", "dropped")])
def test_an_adapter_of_the_head_is_refused_and_none_is_dropped(value: str, fate: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if "apply_lora_to_output: False" in case.text)
    text = case.text.replace("apply_lora_to_output: False", f"apply_lora_to_output: {value}")
    result = imported(tmp_path, text)
    assert {one.theirs: one.fate for one in result.translations}["model.apply_lora_to_output"] == fate


def test_a_distillation_that_mixes_losses_gives_no_recipe_and_a_pure_one_does(tmp_path: Path) -> None:
    mixed = imported(tmp_path, SMALL + CLEANED + KD + "kd_ratio: 0.5\n")
    assert mixed.recipe is None and "kd_ratio" in {one.theirs for one in mixed.translations if one.fatal}
    pure = loaded(imported(tmp_path, SMALL + CLEANED + KD + "kd_ratio: 1.0\n"), tmp_path)
    assert pure.method == "distillation" and pure.distillation is not None
    assert pure.distillation.teacher.model_name_or_path == "meta-llama/Meta-Llama-3.1-8B-Instruct"
    assert (pure.distillation.beta, pure.distillation.lmbda) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ("{_component_: torchtune.datasets.instruct_dataset, source: json, data_files: rows.jsonl, split: train,"
         " column_map: {input: question, output: answer}, train_on_input: False}",
         {"path": "rows.jsonl", "format": "prompt_completion", "columns": {"prompt": "question", "completion": "answer"}}),
        ("{_component_: torchtune.datasets.chat_dataset, source: a/b, conversation_column: dialog, conversation_style: "
        "sharegpt}",
         {"dataset": "a/b", "format": "sharegpt", "columns": {"conversations": "dialog"}}),
        ("{_component_: torchtune.datasets.chat_dataset, source: a/b, conversation_column: messages, conversation_style: "
        "openai}",
         {"dataset": "a/b", "format": "messages"}),
        ("{_component_: torchtune.datasets.text_completion_dataset, source: a/b, column: body}",
         {"dataset": "a/b", "format": "text", "columns": {"text": "body"}}),
    ],
)  # fmt: skip
def test_builders_of_data_sets(entry: str, wanted: dict[str, object], tmp_path: Path) -> None:
    document = loaded(imported(tmp_path, SMALL + f"dataset: {entry}\n", rows_DOT_jsonl=ROWS), tmp_path)
    source = document.data.train[0].model_dump(exclude_unset=True)
    if "path" in source:
        source["path"] = source["path"].name
    assert source == wanted
    assert document.data.train_on == "assistant"


def test_packing_and_a_list_of_data_sets(tmp_path: Path) -> None:
    text = SMALL + (
        "tokenizer: {_component_: x.y, max_seq_len: 2048}\ndataset:\n"
        "  - {_component_: torchtune.datasets.slimorca_dataset, packed: True}\n"
        "  - {_component_: torchtune.datasets.chat_dataset, source: a/b, conversation_column: c, conversation_style: "
        "sharegpt}\n"
    )
    document = loaded(imported(tmp_path, text), tmp_path)
    assert [source.dataset for source in document.data.train] == ["Open-Orca/SlimOrca-Dedup", "a/b"]
    assert document.training.packing and (document.data.max_length, document.data.over_length) == (2048, "truncate")


def test_references_are_resolved_and_the_environments_become_a_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SMALL.replace("/tmp/Llama-3.2-1B-Instruct", "'${oc.env:BASE_FOLDER,/models/base}'") + CLEANED
    result = imported(tmp_path, text)
    assert "${env:BASE_FOLDER,/models/base}" in str(result.recipe)
    monkeypatch.setenv("BASE_FOLDER", "/elsewhere")
    assert loaded(result, tmp_path).model.model_name_or_path == "/elsewhere"
    with pytest.raises(RecipeError, match=r"\$\{nowhere\} is not set in this file"):
        imported(tmp_path, SMALL.replace("/tmp/Llama-3.2-1B-Instruct", "'${nowhere}'") + CLEANED)
    with pytest.raises(RecipeError, match="refers to itself"):
        imported(tmp_path, SMALL + CLEANED + "a: ${b}\nb: ${a}\n")


@pytest.mark.parametrize("model", ["llama3_2_vision.lora_llama3_2_vision_11b", "clip.clip_text_encoder_large", "flamingo.x"])
def test_models_that_see_give_no_recipe(model: str, tmp_path: Path) -> None:
    result = imported(tmp_path, SMALL.replace("llama3_2.llama3_2_1b", model) + CLEANED)
    assert result.recipe is None and "text models" in result.unfit[0]
