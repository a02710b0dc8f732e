"""axolotl's examples: the values of each, written anew, and what a recipe must have of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.importing.facts import ROWS, Case, check, imported, loaded

EMPTY = (
    "wandb_project:\nwandb_entity:\nwandb_watch:\nlora_model_dir:\nresume_from_checkpoint:\ndeepspeed:\nfsdp:\n"
    "special_tokens:\n"
)
ALPACA = "datasets:\n  - path: tatsu-lab/alpaca\n    type: alpaca\n"
TOME = (
    "chat_template: llama3\ndatasets:\n  - path: mlabonne/FineTome-100k\n    type: chat_template\n    split: train[:20%]\n"
    "    field_messages: conversations\n    message_property_mappings: {role: from, content: value}\n"
)
PAIRS = (
    "  - path: fozziethebeat/alpaca_messages_2k_dpo_test\n    type: chat_template.default\n    field_messages: conversation\n"
    "    field_chosen: chosen\n    field_rejected: rejected\n    message_property_mappings: {role: role, content: content}\n"
)
SEVEN = ["gate_proj", "down_proj", "up_proj", "q_proj", "v_proj", "k_proj", "o_proj"]
LIST = "lora_target_modules: [gate_proj, down_proj, up_proj, q_proj, v_proj, k_proj, o_proj]\n"

CASES = [
    Case("llama-3/lora-1b", EMPTY + "base_model: NousResearch/Llama-3.2-1B\nload_in_8bit: false\nload_in_4bit: false\n"
         "datasets:\n  - path: teknium/GPT4-LLM-Cleaned\n    type: alpaca\nval_set_size: 0.1\noutput_dir: ./outputs/lora-out\n"
         "adapter: lora\nsequence_len: 2048\nsample_packing: true\neval_sample_packing: true\nlora_r: 16\nlora_alpha: 32\n"
         "lora_dropout: 0.05\n" + LIST + "gradient_accumulation_steps: 2\nmicro_batch_size: 2\nnum_epochs: 1\n"
         "optimizer: adamw_8bit\nlr_scheduler: cosine\nlearning_rate: 0.0002\ntrain_on_inputs: false\nbf16: auto\ntf32: false\n"
         "gradient_checkpointing: true\nlogging_steps: 1\nflash_attention: true\nwarmup_steps: 10\nevals_per_epoch: 4\n"
         "saves_per_epoch: 1\nweight_decay: 0.0\nstrict: false\nloss_watchdog_threshold: 5.0\n",
         {"method": "sft", "name": "lora-out", "lora.r": 16, "lora.lora_alpha": 32, "lora.lora_dropout": 0.05,
          "lora.target_modules": SEVEN, "batch": 4, "training.optim": "adamw_8bit", "training.learning_rate": 2e-4,
          "training.packing": True, "data.max_length": 2048, "data.over_length": "drop", "data.train_on": "assistant",
          "data.eval_fraction": 0.1, "training.warmup_steps": 10, "quantization": None, "model.dtype": "auto",
          "training.gradient_checkpointing": True, "training.seed": 42},
         refused={"datasets[0].type"}, dropped={"evals_per_epoch", "saves_per_epoch", "tf32", "flash_attention"}),
    Case("llama-3/qlora", EMPTY + "base_model: NousResearch/Meta-Llama-3-8B\nload_in_8bit: false\nload_in_4bit: true\n" + ALPACA
         + "val_set_size: 0\noutput_dir: ./outputs/qlora-out\nadapter: qlora\nsequence_len: 4096\nsample_packing: true\n"
         "lora_r: 32\nlora_alpha: 16\nlora_dropout: 0.05\nlora_target_modules:\nlora_target_linear: true\n"
         "gradient_accumulation_steps: 4\nmicro_batch_size: 2\nnum_epochs: 4\noptimizer: paged_adamw_32bit\n"
         "lr_scheduler: cosine\nlearning_rate: 0.0002\nbf16: auto\ngradient_checkpointing: true\nwarmup_steps: 10\n",
         {"quantization.load_in_4bit": True, "lora.r": 32, "lora.lora_alpha": 16, "lora.target_modules": "all-linear",
          "batch": 8, "training.num_train_epochs": 4, "training.optim": "adamw_torch", "data.eval_fraction": 0.0,
          "data.max_length": 4096, "training.packing": True, "training.warmup_steps": 10},
         refused={"datasets[0].type"}),
    Case("llama-3/qlora-1b-kto", EMPTY + "base_model: meta-llama/Llama-3.2-1B\nload_in_4bit: true\nrl: kto\nrl_beta: 0.5\n"
         "kto_desirable_weight: 0.2\ndatasets:\n  - path: argilla/ultrafeedback-binarized-preferences-cleaned-kto\n"
         "    type: llama3.ultra\n    split: train\nval_set_size: 0.0\noutput_dir: ./outputs/qlora-out\nadapter: qlora\n"
         "sequence_len: 2048\nsample_packing: false\nlora_r: 32\nlora_alpha: 64\nlora_dropout: 0.05\nlora_target_linear: true\n"
         "gradient_accumulation_steps: 1\nmicro_batch_size: 2\nnum_epochs: 1\noptimizer: adamw_8bit\nlr_scheduler: cosine\n"
         "learning_rate: 0.0002\nbf16: auto\nwarmup_steps: 20\ngradient_checkpointing: true\n"
         "gradient_checkpointing_kwargs: {use_reentrant: false}\nremove_unused_columns: false\n",
         {"method": "kto", "kto.beta": 0.5, "kto.desirable_weight": 0.2, "batch": 2, "lora.lora_alpha": 64,
          "training.warmup_steps": 20, "training.packing": False, "quantization.load_in_4bit": True}),
    Case("llama-3/instruct-dpo-lora-8b", EMPTY.replace("special_tokens:\n",
    "") + "base_model: meta-llama/Meta-Llama-3-8B-Instruct\n"
         "special_tokens: {pad_token: <|finetune_right_pad_id|>, eos_token: <|eot_id|>}\nload_in_8bit: true\n"
         "load_in_4bit: false\n"
         "chat_template: llama3\nrl: dpo\ndatasets:\n" + PAIRS + "    roles: {assistant: [assistant], user: [user]}\n"
         "val_set_size: 0.05\noutput_dir: ./outputs/lora-out\nsequence_len: 4096\nsample_packing: false\nadapter: lora\n"
         "lora_r: 32\nlora_alpha: 16\nlora_dropout: 0.05\nlora_target_linear: true\ngradient_accumulation_steps: 4\n"
         "micro_batch_size: 2\nnum_epochs: 4\noptimizer: adamw_bnb_8bit\nlr_scheduler: cosine\nlearning_rate: 0.0002\n"
         "bf16: auto\nwarmup_steps: 10\n",
         {"method": "dpo", "quantization.load_in_8bit": True, "quantization.load_in_4bit": False, "batch": 8,
          "training.optim": "adamw_8bit", "data.train.0.columns": {"messages": "conversation"}, "data.eval_fraction": 0.05,
          "dpo.loss_type": ["sigmoid"], "dpo.beta": 0.1},
         dropped={"special_tokens", "chat_template"}),
    Case("llama-3/fft-8b-liger-fsdp",
    "base_model: NousResearch/Meta-Llama-3.1-8B\nplugins: [axolotl.integrations.liger.LigerPlugin]\n"
         "liger_rope: true\nliger_rms_norm: true\nliger_glu_activation: true\nliger_fused_linear_cross_entropy: true\n" + TOME
         + "val_set_size: 0.02\noutput_dir: ./outputs/out\nsequence_len: 4096\nsample_packing: true\n"
         "gradient_accumulation_steps: 4\nmicro_batch_size: 2\nnum_epochs: 1\noptimizer: adamw_torch_fused\n"
         "lr_scheduler: cosine\n"
         "learning_rate: 2e-5\nbf16: auto\ngradient_checkpointing: true\nwarmup_steps: 100\nfsdp: [full_shard, auto_wrap]\n"
         "fsdp_config: {fsdp_limit_all_gathers: true, fsdp_offload_params: true}\n",
         {"lora": None, "training.learning_rate": 2e-5, "training.use_liger_kernel": True, "batch": 8, "name": "theirs",
          "data.train.0.dataset": "mlabonne/FineTome-100k", "data.train.0.split": "train[:20%]",
          "data.train.0.format": "sharegpt", "training.warmup_steps": 100, "data.eval_fraction": 0.02},
         refused={"fsdp", "fsdp_config"}),
    Case("llama-2/loftq", EMPTY + "base_model: NousResearch/Llama-2-7b-hf\nload_in_8bit: false\nload_in_4bit: false\n"
         "datasets:\n  - path: mhenrichsen/alpaca_2k_test\n    type: alpaca\nval_set_size: 0.05\noutput_dir: ./lora-out\n"
         "sequence_len: 4096\nsample_packing: true\nadapter: lora\nlora_r: 32\nlora_alpha: 16\nlora_dropout: 0.05\n"
         "lora_target_linear: true\npeft: {loftq_config: {loftq_bits: 4}}\ngradient_accumulation_steps: 4\n"
         "micro_batch_size: 2\n"
         "num_epochs: 4\noptimizer: adamw_bnb_8bit\nlr_scheduler: cosine\nlearning_rate: 0.0002\nbf16: auto\n"
         "warmup_steps: 10\n",
         {"lora.init_lora_weights": "loftq", "lora.loftq_config.loftq_bits": 4, "quantization": None, "batch": 8},
         refused={"datasets[0].type"}),
    Case("mistral/orpo/mistral-qlora-orpo", EMPTY + "base_model: mistralai/Mistral-7B-v0.1\nload_in_4bit: true\nrl: orpo\n"
         "orpo_alpha: 0.1\nchat_template: chatml\ndatasets:\n  - path: argilla/ultrafeedback-binarized-preferences-cleaned\n"
         "    type: chat_template.argilla\nval_set_size: 0.1\noutput_dir: ./outputs/mistral-qlora-orpo-out\nadapter: qlora\n"
         "sequence_len: 4096\nsample_packing: false\nlora_r: 32\nlora_alpha: 16\nlora_dropout: 0.05\nlora_target_linear: true\n"
         + LIST + "gradient_accumulation_steps: 4\nmicro_batch_size: 2\nnum_epochs: 1\noptimizer: adamw_bnb_8bit\n"
         "lr_scheduler: cosine\nlearning_rate: 0.0002\nbf16: auto\nwarmup_ratio: 0.1\n",
         {"method": "orpo", "orpo.beta": 0.1, "lora.target_modules": "all-linear", "training.warmup_steps": 0.1,
          "name": "mistral-qlora-orpo-out", "batch": 8},
         dropped={"lora_target_modules"}),
    Case("qwen2/reward-model",
    EMPTY + "base_model: Qwen/Qwen2.5-0.5B\nmodel_type: AutoModelForSequenceClassification\nnum_labels: 1\n"
         "reward_model: true\nchat_template: qwen_25\ndatasets:\n  - path: argilla/distilabel-intel-orca-dpo-pairs\n"
         "    type: bradley_terry.chat_template\nval_set_size: 0.0\noutput_dir: ./outputs/out\nsequence_len: 2048\n"
         "sample_packing: false\ngradient_accumulation_steps: 4\nmicro_batch_size: 2\nnum_epochs: 4\n"
         "optimizer: adamw_bnb_8bit\n"
         "lr_scheduler: cosine\nlearning_rate: 0.0002\nbf16: true\ntf32: true\nattn_implementation: flash_attention_2\n"
         "warmup_ratio: 0.1\n",
         {"method": "reward", "lora": None, "model.dtype": "bfloat16", "model.attn_implementation": "flash_attention_2",
          "data.train.0.columns": {"prompt": "input"}, "data.over_length": "drop", "batch": 8}),
    Case("qwen3/qlora-fsdp", EMPTY.replace("fsdp:\n", "") + "base_model: Qwen/Qwen3-8B\nload_in_4bit: true\n" + ALPACA
         + "val_set_size: 0.05\noutput_dir: ./outputs/out\nsequence_len: 2048\nsample_packing: true\nadapter: qlora\n"
         "lora_r: 32\n"
         "lora_alpha: 64\nlora_dropout: 0.05\nlora_target_linear: true\ngradient_accumulation_steps: 4\nmicro_batch_size: 1\n"
         "num_epochs: 1\noptimizer: adamw_torch_fused\nlr_scheduler: cosine\nlearning_rate: 0.0002\nbf16: auto\n"
         "warmup_steps: 10\nfsdp: [full_shard, auto_wrap]\n",
         {"batch": 4, "training.optim": "adamw_torch_fused", "lora.lora_alpha": 64, "quantization.load_in_4bit": True},
         refused={"fsdp", "datasets[0].type"}),
    Case("streaming/pretrain",
    "base_model: HuggingFaceTB/SmolLM2-135M\npretraining_dataset:\n  - path: HuggingFaceFW/fineweb-edu\n"
         "    name: sample-10BT\n    type: pretrain\n    text_column: text\n    split: train\nmax_steps: 1000\n"
         "output_dir: ./outputs/smollm2-135m-pretrain-streaming\nsequence_len: 1024\nsample_packing: true\n"
         "attn_implementation: flash_attention_2\ngradient_accumulation_steps: 8\nmicro_batch_size: 1\noptimizer: adamw_torch\n"
         "lr_scheduler: cosine\nlearning_rate: 5e-4\nwarmup_ratio: 0.1\nweight_decay: 0.01\nbf16: auto\nlogging_steps: 10\n"
         "save_strategy: steps\nsave_steps: 250\nsave_total_limit: 3\nspecial_tokens: {pad_token: <|endoftext|>}\n",
         {"method": "pretrain", "data.train.0.name": "sample-10BT", "data.train.0.format": "text", "training.max_steps": 1000,
          "data.over_length": "split", "training.packing": True, "training.learning_rate": 5e-4, "batch": 8, "lora": None,
          "training.weight_decay": 0.01, "training.save_total_limit": 3, "training.save_steps": 250}),
    Case("phi/phi-ft", EMPTY.replace("lora_model_dir:\n", "").replace("special_tokens:\n",
    "") + "base_model: microsoft/phi-1_5\n"
         "trust_remote_code: true\ndatasets:\n  - path: garage-bAInd/Open-Platypus\n    type: alpaca\nval_set_size: 0.05\n"
         "output_dir: ./phi-sft-out\nsequence_len: 2048\nsample_packing: true\nadapter:\nlora_r:\n"
         "gradient_accumulation_steps: 1\nmicro_batch_size: 1\nnum_epochs: 4\noptimizer: adamw_torch\nadam_beta2: 0.95\n"
         "adam_epsilon: 0.00001\nmax_grad_norm: 1.0\nlr_scheduler: cosine\nlearning_rate: 0.000003\ngroup_by_length: true\n"
         "bf16: auto\nwarmup_steps: 100\nweight_decay: 0.1\nresize_token_embeddings_to_32x: true\n"
         "special_tokens: {bos_token: <|endoftext|>, pad_token: <|endoftext|>}\n",
         {"lora": None, "training.adam_beta2": 0.95, "training.learning_rate": 3e-6, "training.weight_decay": 0.1, "batch": 1,
          "model.trust_remote_code": False, "training.optim": "adamw_torch"},
         refused={"adam_epsilon", "datasets[0].type"}, dropped={"trust_remote_code", "group_by_length"}),
    Case("gpt-oss/gpt-oss-20b-sft-lora-singlegpu", EMPTY + "base_model: openai/gpt-oss-20b\nuse_kernels: true\n"
         "model_quantization_config: Mxfp4Config\nmodel_quantization_config_kwargs: {dequantize: true}\ndatasets:\n"
         "  - path: HuggingFaceH4/Multilingual-Thinking\n    type: chat_template\n    field_thinking: thinking\n"
         "    template_thinking_key: thinking\nval_set_size: 0\noutput_dir: ./outputs/gpt-oss-out/\nsequence_len: 4096\n"
         "sample_packing: true\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_dropout: 0.0\nlora_target_linear: true\n"
         "gradient_accumulation_steps: 8\nmicro_batch_size: 1\nnum_epochs: 1\noptimizer: adamw_torch_8bit\n"
         "lr_scheduler: constant_with_warmup\nlearning_rate: 2e-4\nbf16: true\nattn_implementation: "
         "kernels-community/vllm-flash-attn3\ngradient_checkpointing: true\nactivation_offloading: true\nwarmup_ratio: 0.1\n"
         "eot_tokens: [<|end|>]\n",
         {"training.lr_scheduler_type": "constant_with_warmup", "training.optim": "adamw_8bit", "lora.r": 8, "batch": 8,
          "training.activation_offloading": True, "model.attn_implementation": "auto", "data.reasoning": "keep"},
         refused={"optimizer", "attn_implementation", "model_quantization_config", "model_quantization_config_kwargs"}),
    Case("gemma3/gemma-3-1b-qlora", EMPTY + "base_model: google/gemma-3-1b-it\nload_in_8bit: false\nload_in_4bit: true\n"
         "ddp_find_unused_parameters: true\nchat_template: gemma3\neot_tokens: [<end_of_turn>]\ndatasets:\n"
         "  - path: cgato/SlimOrcaDedupCleaned\n    type: chat_template\n    field_messages: conversations\n"
         "    message_property_mappings: {role: from, content: value}\nval_set_size: 0.0\noutput_dir: ./outputs/out\n"
         "unfrozen_parameters: ['^model.language_model.*']\nadapter: qlora\nlora_r: 32\nlora_alpha: 16\nlora_dropout: 0\n"
         "lora_target_linear: true\nsequence_len: 2048\nsample_packing: true\ngradient_accumulation_steps: 4\n"
         "micro_batch_size: 1\nnum_epochs: 4\noptimizer: adamw_bnb_8bit\nlr_scheduler: cosine\nlearning_rate: 0.0002\n"
         "bf16: auto\nwarmup_ratio: 0.1\n",
         {"lora.lora_dropout": 0, "training.optim": "adamw_8bit", "batch": 4, "training.num_train_epochs": 4},
         dropped={"unfrozen_parameters", "eot_tokens"}),
    Case("qwen3/32b-qlora",
    EMPTY + "base_model: Qwen/Qwen3-32B\nplugins: [axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin]\n"
         + TOME.replace("llama3", "qwen3") + "val_set_size: 0.0\noutput_dir: ./outputs/out\nsequence_len: 2048\n"
         "sample_packing: true\nload_in_4bit: true\nadapter: qlora\nlora_r: 16\nlora_alpha: 32\n"
         "lora_target_modules: [q_proj, k_proj, v_proj, o_proj, down_proj, up_proj]\nlora_mlp_kernel: true\n"
         "lora_qkv_kernel: true\n"
         "gradient_accumulation_steps: 2\nmicro_batch_size: 1\nnum_epochs: 1\noptimizer: adamw_torch_4bit\n"
         "lr_scheduler: cosine\n"
         "learning_rate: 0.0002\nbf16: auto\ngradient_checkpointing: offload\nwarmup_ratio: 0.1\n",
         {"lora.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "up_proj"], "batch": 2,
          "training.gradient_checkpointing": True, "lora.lora_dropout": 0.0},
         refused={"optimizer"}, dropped={"lora_mlp_kernel", "plugins"}),
    Case("mistral/mistral-dpo-qlora", EMPTY.replace("special_tokens:\n",
    "") + "base_model: mistralai/Mistral-7B-Instruct-v0.2\n"
         "load_in_4bit: true\nchat_template: chatml\nrl: dpo\ndatasets:\n" + PAIRS + "val_set_size: 0.05\n"
         "output_dir: ./outputs/dpo-qlora\nsequence_len: 2048\nsample_packing: false\nadapter: qlora\nlora_r: 8\n"
         "lora_alpha: 16\n"
         "lora_dropout: 0.2\nlora_target_linear: true\nlora_modules_to_save: [embed_tokens, lm_head]\n"
         "gradient_accumulation_steps: 4\nmicro_batch_size: 16\nnum_epochs: 6\noptimizer: adamw_bnb_8bit\n"
         "lr_scheduler: cosine\n"
         "learning_rate: 0.0001\nbf16: auto\nwarmup_steps: 10\n"
         "special_tokens: {bos_token: <|im_start|>, eos_token: <|im_end|>}\n",
         {"lora.modules_to_save": ["embed_tokens", "lm_head"], "lora.lora_dropout": 0.2, "batch": 64,
          "training.num_train_epochs": 6, "training.learning_rate": 1e-4}),
]  # fmt: skip
SMALL = "base_model: a/b\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_linear: true\nlearning_rate: 1e-4\n"
CHATS = "datasets:\n  - path: rows.jsonl\n    type: chat_template\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_example_keeps_its_training(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, "axolotl")


def test_per_epoch_counts_become_steps_where_the_rows_are_here(tmp_path: Path) -> None:
    text = SMALL + CHATS + "val_set_size: 0.2\nmicro_batch_size: 2\ngradient_accumulation_steps: 2\nnum_epochs: 2\n"
    result = imported(tmp_path, text + "evals_per_epoch: 4\nsaves_per_epoch: 1\n", rows_DOT_jsonl=ROWS)
    training = loaded(result, tmp_path).training
    assert (training.eval_steps, training.save_steps) == (5, 20)  # 80 rows, 4 a step: 20 steps an epoch
    shares = loaded(imported(tmp_path, text + "eval_steps: 0.25\nsave_steps: 0.5\n", rows_DOT_jsonl=ROWS), tmp_path).training
    assert (shares.eval_steps, shares.save_steps) == (10, 20)  # of 40 steps


def test_a_number_of_rows_that_are_held_out_becomes_a_share(tmp_path: Path) -> None:
    result = imported(tmp_path, SMALL + CHATS + "val_set_size: 25\n", rows_DOT_jsonl=ROWS)
    assert loaded(result, tmp_path).data.eval_fraction == 0.25
    far = imported(tmp_path, SMALL + "val_set_size: 25\n" + ALPACA)
    assert "val_set_size" in {one.theirs for one in far.translations if one.fate == "refused"}


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ("{path: a/b, type: chat_template}", {"dataset": "a/b", "format": "messages"}),
        ("{path: a/b, type: chat_template, field_messages: turns}",
         {"dataset": "a/b", "format": "messages", "columns": {"messages": "turns"}}),
        ("{path: json, data_files: rows.jsonl, type: alpaca}", {"path": "rows.jsonl", "format": "alpaca"}),
        ("{path: rows.jsonl, ds_type: json, type: chat_template}", {"path": "rows.jsonl", "format": "messages"}),
        ("{path: a/b, type: 'alpaca_chat.load_qa'}",
         {"dataset": "a/b", "format": "prompt_completion", "columns": {"prompt": "question", "completion": "answer"}}),
        ("{path: a/b, type: {field_instruction: q, field_output: a}}",
         {"dataset": "a/b", "format": "prompt_completion", "columns": {"prompt": "q", "completion": "a"}}),
        ("{path: a/b, type: completion, field: body}", {"dataset": "a/b", "format": "text", "columns": {"text": "body"}}),
    ],
)  # fmt: skip
def test_types_of_data_sets(entry: str, wanted: dict[str, object], tmp_path: Path) -> None:
    result = imported(tmp_path, SMALL + f"datasets:\n  - {entry}\n", rows_DOT_jsonl=ROWS)
    source = loaded(result, tmp_path).data.train[0].model_dump(exclude_unset=True)
    if "path" in source:
        source["path"] = source["path"].name
    assert source == wanted


def test_the_total_batch_is_divided(tmp_path: Path) -> None:
    text = SMALL + ALPACA + "batch_size: 32\nmicro_batch_size: 4\n"
    spec = loaded(imported(tmp_path, text), tmp_path).training
    assert (spec.per_device_train_batch_size, spec.gradient_accumulation_steps) == (4, 8)


def test_the_warm_up_that_axolotl_takes_unasked_is_written_out(tmp_path: Path) -> None:
    short = loaded(imported(tmp_path, SMALL + CHATS, rows_DOT_jsonl=ROWS), tmp_path)
    assert short.training.warmup_steps == 0.03
    long = loaded(imported(tmp_path, SMALL + CHATS + "num_epochs: 50\n", rows_DOT_jsonl=ROWS), tmp_path)
    assert long.training.warmup_steps == 100  # 3 % of 5,000 steps are more


def test_files_that_are_left_out_are_told(tmp_path: Path) -> None:
    entry = "datasets:\n  - {path: json, data_files: [rows.jsonl, more.jsonl], type: chat_template}\n"
    result = imported(tmp_path, SMALL + entry, rows_DOT_jsonl=ROWS)
    assert loaded(result, tmp_path).data.train[0].path == tmp_path / "rows.jsonl"
    [told] = [one for one in result.translations if one.theirs == "data_files of json"]
    assert told.fate == "refused" and "several files" in told.why
    hub = imported(tmp_path, SMALL + "datasets:\n  - {path: a/b, data_files: part.jsonl, type: chat_template}\n")
    assert "data_files of a/b" in {one.theirs for one in hub.translations if one.fate == "refused"}


def test_a_least_rate_of_the_cosine(tmp_path: Path) -> None:
    spec = loaded(imported(tmp_path, SMALL + ALPACA + "lr_scheduler: cosine\ncosine_min_lr_ratio: 0.1\n"), tmp_path).training
    assert (spec.lr_scheduler_type, spec.lr_scheduler_kwargs) == ("cosine_with_min_lr", {"min_lr_rate": 0.1})


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("rl: simpo\n", "rl"),
        ("processor_type: AutoProcessor\n", "processor_type"),
        ("process_reward_model: true\n", "process_reward_model"),
        ("rl: grpo\ntrl: {num_generations: 4, reward_funcs: [nowhere.score]}\n", "trl.reward_funcs"),
    ],
)
def test_what_has_no_faithful_recipe_gives_none(more: str, key: str, tmp_path: Path) -> None:
    result = imported(tmp_path, SMALL + ALPACA + more)
    assert result.recipe is None and key in {one.theirs for one in result.translations if one.fatal}


def test_reward_functions_are_found_in_a_file(tmp_path: Path) -> None:
    text = (
        SMALL + "rl: grpo\ndatasets: [{path: rows.jsonl, type: prompts.make}]\nmicro_batch_size: 4\n"
        "trl: {num_generations: 4, reward_funcs: [judge.score], reward_weights: [0.5], max_completion_length: 64, beta: 0.01}\n"
    )
    result = imported(tmp_path, text, rows_DOT_jsonl=ROWS, judge_DOT_py="def score(completions, **rest):\n    return [0.0]\n")
    document = loaded(result, tmp_path)
    assert document.grpo is not None and (document.grpo.num_generations, document.grpo.beta) == (4, 0.01)
    [reward] = document.grpo.reward_functions
    assert (reward.function, reward.weight) == (f"{tmp_path / 'judge.py'}:score", 0.5)


def test_a_misspelt_key_is_told_with_the_key_that_was_meant(tmp_path: Path) -> None:
    result = imported(tmp_path, SMALL + ALPACA + "sequence_length: 4096\nwarmup_step: 5\n")
    whys = {one.theirs: one.why for one in result.translations if one.fate == "refused"}
    assert "warmup_steps" in whys["warmup_step"] and "sequence_length" in whys


def test_lora_settings_without_an_adapter_are_dead(tmp_path: Path) -> None:
    result = imported(tmp_path, "base_model: a/b\nadapter:\nlora_r: 8\nlearning_rate: 1e-5\n" + ALPACA)
    assert loaded(result, tmp_path).lora is None
    assert "lora_r" in {one.theirs for one in result.translations if one.fate == "dropped"}
