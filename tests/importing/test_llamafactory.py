"""LLaMA-Factory's examples: the values of each, written anew, and what a recipe must have of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.importing.facts import Case, check, imported, loaded

from llmbench.errors import RecipeError

OUT = "do_train: true\npreprocessing_num_workers: 16\noverwrite_output_dir: true\nplot_loss: true\nddp_timeout: 180000000\n"
QWEN = "model_name_or_path: Qwen/Qwen3-4B-Instruct-2507\ntrust_remote_code: true\ntemplate: qwen3_nothink\n" + OUT
LLAMA = "model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct\ntrust_remote_code: true\ntemplate: llama3\n" + OUT
STEPS = (
    "per_device_train_batch_size: 1\ngradient_accumulation_steps: 8\nnum_train_epochs: 3.0\nlr_scheduler_type: cosine\n"
    "warmup_ratio: 0.1\nbf16: true\nlogging_steps: 10\nsave_steps: 500\ncutoff_len: 2048\nmax_samples: 1000\n"
)
LORA = "finetuning_type: lora\nlora_rank: 8\nlora_target: all\n"
BOTH = "dataset: identity,alpaca_en_demo\n"
USUAL = {
    "batch": 8, "training.num_train_epochs": 3.0, "training.lr_scheduler_type": "cosine", "training.warmup_steps": 0.1,
    "training.seed": 42, "model.dtype": "bfloat16", "data.max_length": 2048, "training.gradient_checkpointing": True,
    "training.weight_decay": 0.0, "training.max_grad_norm": 1.0, "model.trust_remote_code": False,
}  # fmt: skip
LORA_8 = {"lora.r": 8, "lora.lora_alpha": 16, "lora.lora_dropout": 0.0, "lora.target_modules": "all-linear"}
SFT = USUAL | {"method": "sft", "data.over_length": "truncate", "data.train_on": "assistant", "training.packing": False}

CASES = [
    Case("train_lora/qwen3_lora_sft", QWEN + STEPS + LORA + "stage: sft\ndataset: identity\nlearning_rate: 1.0e-4\n",
         SFT | LORA_8 | {"training.learning_rate": 1e-4, "quantization": None, "data.train.0.limit": 1000},
         dropped={"trust_remote_code", "template", "ddp_timeout"}),
    Case("train_lora/qwen3_lora_dpo", QWEN + STEPS + LORA + "stage: dpo\ndataset: dpo_en_demo\nlearning_rate: 5.0e-6\n"
         "pref_beta: 0.1\npref_loss: sigmoid\n",
         USUAL | LORA_8 | {"method": "dpo", "dpo.beta": 0.1, "dpo.loss_type": ["sigmoid"], "training.learning_rate": 5e-6}),
    Case("train_lora/qwen3_lora_dpo with orpo", QWEN + STEPS + LORA + "stage: dpo\ndataset: dpo_en_demo\n"
         "learning_rate: 5.0e-6\npref_beta: 0.1\npref_loss: orpo\n",
         USUAL | LORA_8 | {"method": "orpo", "orpo.beta": 0.1, "training.learning_rate": 5e-6}),
    Case("train_lora/qwen3_lora_kto", QWEN + STEPS + LORA
         + "stage: kto\ndataset: kto_en_demo\nlearning_rate: 5.0e-6\npref_beta: 0.1\n",
         USUAL | LORA_8 | {"method": "kto", "kto.beta": 0.1, "kto.desirable_weight": 1.0, "training.learning_rate": 5e-6,
                           "training.per_device_train_batch_size": 2, "data.train.0.columns": {}}),
    Case("train_lora/qwen3_lora_reward", QWEN + STEPS + LORA + "stage: rm\ndataset: dpo_en_demo\nlearning_rate: 1.0e-4\n",
         USUAL | LORA_8 | {"method": "reward", "data.over_length": "drop", "training.learning_rate": 1e-4}),
    Case("train_lora/qwen3_lora_pretrain", QWEN.replace("template: qwen3_nothink\n", "") + STEPS + LORA
         + "stage: pt\ndataset: c4_demo\nlearning_rate: 1.0e-4\n",
         USUAL | LORA_8 | {"method": "pretrain", "data.over_length": "split", "training.packing": True,
                           "data.train.0.format": "text", "training.learning_rate": 1e-4}),
    Case("train_lora/qwen3_lora_sft_ds3", QWEN + STEPS.replace("steps: 8", "steps: 2") + LORA + BOTH
         + "stage: sft\nlearning_rate: 1.0e-4\ndeepspeed: examples/deepspeed/ds_z3_config.json\n",
         SFT | LORA_8 | {"batch": 2}, refused={"deepspeed"}),
    Case("train_full/qwen3_full_sft", "model_name_or_path: Qwen/Qwen3-8B\ntrust_remote_code: true\nenable_liger_kernel: true\n"
         "stage: sft\nfinetuning_type: full\ndataset: identity\ntemplate: qwen\ncutoff_len: 131072\n"
         "per_device_train_batch_size: 1\ngradient_accumulation_steps: 2\nlearning_rate: 2.0e-5\nnum_train_epochs: 5.0\n"
         "lr_scheduler_type: cosine\nwarmup_ratio: 0.05\nweight_decay: 0.03\nmax_grad_norm: 1.0e-3\nbf16: true\n"
         "gradient_checkpointing: true\nreport_to: wandb\nrope_scaling: yarn\nflash_attn: fa2\n",
         {"lora": None, "batch": 2, "training.learning_rate": 2e-5, "training.weight_decay": 0.03, "data.max_length": 131072,
          "training.max_grad_norm": 1e-3, "training.warmup_steps": 0.05, "training.use_liger_kernel": True,
          "training.num_train_epochs": 5.0, "model.attn_implementation": "flash_attention_2", "data.train.0.limit": None,
          "tracking.to": ["wandb"]},
         refused={"rope_scaling"}),
    Case("train_qlora/qwen3_lora_sft_otfq", QWEN + STEPS + LORA + BOTH + "stage: sft\nlearning_rate: 1.0e-4\n"
         "quantization_bit: 4\nquantization_method: bnb\n",
         SFT | LORA_8 | {"quantization.load_in_4bit": True, "quantization.bnb_4bit_quant_type": "nf4",
                         "quantization.bnb_4bit_use_double_quant": True, "training.learning_rate": 1e-4}),
    Case("train_qlora/qwen3_lora_sft_bnb_npu", QWEN + STEPS + LORA + BOTH + "stage: sft\nlearning_rate: 1.0e-4\n"
         "quantization_bit: 4\nquantization_method: bnb\ndouble_quantization: false\n",
         SFT | {"quantization.bnb_4bit_use_double_quant": False}),
    Case("train_qlora/llama3_lora_sft_gptq", LLAMA.replace("meta-llama/Meta-Llama-3-8B-Instruct",
         "TechxGenus/Meta-Llama-3-8B-Instruct-GPTQ") + STEPS + LORA + BOTH + "stage: sft\nlearning_rate: 1.0e-4\n",
         SFT | LORA_8 | {"quantization": None, "model.model_name_or_path": "TechxGenus/Meta-Llama-3-8B-Instruct-GPTQ"}),
    Case("extras/pissa/llama3_lora_sft", LLAMA + STEPS + LORA + BOTH + "stage: sft\nlearning_rate: 1.0e-4\npissa_init: true\n"
         "pissa_iter: 16\npissa_convert: true\n",
         SFT | LORA_8 | {"lora.init_lora_weights": "pissa_niter_16"}, dropped={"pissa_convert"}),
    Case("extras/loraplus/llama3_lora_sft", LLAMA + STEPS + BOTH + "stage: sft\nfinetuning_type: lora\nlora_target: all\n"
         "loraplus_lr_ratio: 16.0\nlearning_rate: 1.0e-4\nval_size: 0.1\neval_strategy: steps\neval_steps: 500\n"
         "per_device_eval_batch_size: 1\n",
         SFT | LORA_8 | {"lora.loraplus_lr_ratio": 16.0, "data.eval_fraction": 0.1, "training.eval_steps": 500,
                         "training.per_device_eval_batch_size": 1}),
    Case("extras/oft/llama3_oft_sft", LLAMA + STEPS + BOTH + "stage: sft\nfinetuning_type: oft\noft_block_size: 32\n"
         "oft_target: all\nlearning_rate: 1.0e-4\n",
         SFT | {"lora": None, "adapter.type": "oft", "adapter.oft_block_size": 32, "adapter.target_modules": "all-linear"}),
    Case("extras/muon/qwen2_full_sft", "model_name_or_path: Qwen/Qwen2-1.5B-Instruct\ntemplate: qwen\nstage: sft\n"
         "finetuning_type: full\nuse_muon: true\nlearning_rate: 1.0e-5\n" + OUT + STEPS + BOTH,
         SFT | {"lora": None, "training.optim": "muon", "training.learning_rate": 1e-5}),
]  # fmt: skip

INFO = {
    "identity": {"file_name": "rows.json"},
    "alpaca_en_demo": {"file_name": "rows.json"},
    "dpo_en_demo": {
        "file_name": "pairs.json", "ranking": True, "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "kto_en_demo": {
        "file_name": "marked.json", "formatting": "sharegpt", "columns": {"messages": "messages", "kto_tag": "label"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "c4_demo": {"file_name": "text.jsonl", "columns": {"prompt": "text"}},
    "orca": {"hf_hub_url": "Open-Orca/OpenOrca", "columns": {"prompt": "question", "response": "response",
    "system": "system_prompt"}},
    "ultrachat": {
        "hf_hub_url": "HuggingFaceH4/ultrachat_200k", "split": "train_sft", "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "mix": {"hf_hub_url": "llamafactory/DPO-En-Zh-20k", "subset": "en", "ranking": True, "formatting": "sharegpt"},
    "pictures": {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"}},
    "shop": {"ms_hub_url": "deepctrl/deepctrl-sft-data"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout's data: dataset_info.json and the files that it names."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "dataset_info.json").write_text(json.dumps(INFO))
    for name in ("rows.json", "pairs.json", "marked.json", "text.jsonl"):
        (data / name).write_text("[]")
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_example_keeps_its_training(case: Case, folder: Path) -> None:
    check(case, folder, "llamafactory")


@pytest.mark.parametrize(
    ("stage", "name", "wanted"),
    [
        ("sft", "identity", {"path": "data/rows.json", "format": "alpaca"}),
        ("sft", "orca", {"dataset": "Open-Orca/OpenOrca", "format": "prompt_completion",
                         "columns": {"prompt": "question", "completion": "response", "system": "system_prompt"}}),
        ("sft", "ultrachat", {"dataset": "HuggingFaceH4/ultrachat_200k", "split": "train_sft", "format": "messages"}),
        ("dpo", "mix", {"dataset": "llamafactory/DPO-En-Zh-20k", "name": "en"}),
        ("dpo", "dpo_en_demo", {"path": "data/pairs.json"}),
        ("kto", "kto_en_demo", {"path": "data/marked.json"}),
        ("pt", "c4_demo", {"path": "data/text.jsonl", "format": "text"}),
    ],
)  # fmt: skip
def test_names_of_data_sets_are_looked_up(stage: str, name: str, wanted: dict[str, object], folder: Path) -> None:
    result = imported(folder, f"model_name_or_path: a/b\nstage: {stage}\nfinetuning_type: lora\ndataset: {name}\n")
    source = loaded(result, folder).data.train[0].model_dump(exclude_unset=True)
    if "path" in source:
        source["path"] = source["path"].relative_to(folder).as_posix()
    assert source == wanted


def test_without_dataset_info_the_next_step_is_named(tmp_path: Path) -> None:
    result = imported(tmp_path, "model_name_or_path: a/b\nstage: sft\ndataset: mine\n")
    [line] = [one for one in result.translations if one.theirs == "dataset: mine"]
    assert "--dataset-info" in line.why
    assert result.missing and "mine.json" in result.missing[0]


def test_a_data_set_of_another_hub_and_one_that_is_not_listed_are_told(folder: Path) -> None:
    result = imported(folder, "model_name_or_path: a/b\nstage: sft\ndataset: shop, nowhere\n")
    whys = {one.theirs: one.why for one in result.translations}
    assert "ms_hub_url" in whys["dataset: shop"] and "has no nowhere" in whys["dataset: nowhere"]
    assert len(result.missing) == 2


def test_dataset_info_elsewhere_is_named(folder: Path, tmp_path: Path) -> None:
    from llmbench.importing import convert

    (folder / "data").rename(folder / "elsewhere")
    (folder / "theirs.yaml").write_text("model_name_or_path: a/b\nstage: sft\ndataset: identity\n")
    result = convert(folder / "theirs.yaml", into=folder / "mine.yaml", dataset_info_file=folder / "elsewhere")
    assert result.missing == () and "elsewhere/rows.json" in str(result.recipe)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("stage: ppo\ndataset: identity", "stage"),
        ("stage: dpo\npref_loss: simpo\ndataset: dpo_en_demo", "pref_loss"),
        ("stage: sft\ndataset: pictures", "dataset"),
        ("stage: sft\nquantization_bit: 3\nquantization_method: hqq\ndataset: identity", "quantization_bit"),
        ("stage: sft\nadapter_name_or_path: a,b\ndataset: identity", "adapter_name_or_path"),
        (
            "stage: sft\nfinetuning_type: freeze\nfreeze_trainable_layers: 8\nuse_llama_pro: true\ndataset: identity",
            "use_llama_pro",
        ),
        ("stage: sft\nexport_dir: merged\ndataset: identity", "export_dir"),
        ("stage: sft\ntrain_from_scratch: true\ndataset: identity", "train_from_scratch"),
    ],
)
def test_what_has_no_faithful_recipe_gives_none(line: str, key: str, folder: Path) -> None:
    result = imported(
        folder,
        f"model_name_or_path: a/b\nfinetuning_type: lora\n{line}\n".replace(
            "finetuning_type: lora\nstage: sft\nfinetuning_type: freeze", "stage: sft\nfinetuning_type: freeze"
        ),
    )
    assert result.recipe is None
    assert key in {one.theirs for one in result.translations if one.fatal}
    assert result.unfit and all(line.startswith(str(folder / "theirs.yaml")) for line in result.unfit)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("adapter_name_or_path: 0", "adapter_name_or_path should be a list of words, not 0"),
        ("mix_strategy: interleave_over\ninterleave_probs: some", "interleave_probs should be a list of numbers, not some"),
    ],
)
def test_values_that_the_trainer_refuses_are_a_line(line: str, says: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        imported(folder, f"model_name_or_path: a/b\nstage: sft\ndataset: identity\n{line}\n")


@pytest.mark.parametrize(("stage", "name", "compiles"), [("sft", "identity", True), ("dpo", "dpo_en_demo", None)])
def test_compiling_is_kept_where_it_works_and_costs_no_recipe_elsewhere(
    stage: str, name: str, compiles: bool | None, folder: Path
) -> None:
    result = imported(folder, f"model_name_or_path: a/b\nstage: {stage}\ndataset: {name}\ntorch_compile: true\n")
    assert loaded(result, folder).training.torch_compile is compiles
    [fate] = [one.fate for one in result.translations if one.theirs == "torch_compile"]
    assert fate == ("kept" if compiles else "dropped")


@pytest.mark.parametrize("key", ["per_device_train_batch_size", "gradient_accumulation_steps"])
def test_a_batch_of_no_rows_gives_no_recipe(key: str, folder: Path) -> None:
    text = f"model_name_or_path: a/b\nstage: sft\ndataset: identity\n{key}: 0\nsave_steps: 0.5\n"
    result = imported(folder, text)
    assert result.recipe is None and key in result.unfit[0]


def test_the_last_layers_are_counted_from_the_models_own_config(folder: Path) -> None:
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text('{"num_hidden_layers": 32, "model_type": "llama"}')
    text = "model_name_or_path: base\nstage: sft\nfinetuning_type: freeze\nfreeze_trainable_layers: 8\ndataset: identity\n"
    document = loaded(imported(folder, text), folder)
    assert document.freeze is not None and (document.freeze.layers, document.freeze.embeddings) == (24, True)
    assert document.lora is None


def test_defaults_that_differ_are_written_out_and_marked(folder: Path) -> None:
    result = imported(folder, "model_name_or_path: a/b\nstage: sft\ndataset: identity\n")
    document = loaded(result, folder)
    assert document.training.learning_rate == 5e-5 and document.training.lr_scheduler_type == "linear"
    assert document.training.warmup_steps == 0 and document.training.num_train_epochs == 3
    assert document.lora is not None and (document.lora.r, document.lora.lora_alpha) == (8, 16)
    assert (document.data.max_length, document.data.over_length) == (2048, "truncate")
    assert "learning_rate: 5.0e-5  # LLaMA-Factory's default" in str(result.recipe)
    assert {"learning_rate", "lr_scheduler_type", "warmup_steps"} <= {
        one.theirs for one in result.translations if one.fate == "default"
    }


def test_packing_without_neat_packing_is_told_since_rows_would_see_each_other(folder: Path) -> None:
    text = "model_name_or_path: a/b\nstage: sft\ndataset: identity\npacking: true\n"
    result = imported(folder, text)
    assert loaded(result, folder).training.packing
    assert "packing" in {one.theirs for one in result.translations if one.fate == "refused"}
    neat = imported(folder, text + "neat_packing: true\n")
    assert not [one for one in neat.translations if one.fate == "refused"]


def test_shares_of_sources_and_learned_turns(folder: Path) -> None:
    text = (
        "model_name_or_path: a/b\nstage: sft\ndataset: identity,alpaca_en_demo\nmix_strategy: interleave_under\n"
        "interleave_probs: 0.3,0.7\nmask_history: true\nenable_thinking: false\ndisable_shuffling: true\n"
    )
    document = loaded(imported(folder, text), folder)
    assert [source.weight for source in document.data.train] == [0.3, 0.7]
    assert document.data.train_on == "last" and document.data.shuffle is False
    assert document.data.chat_template_kwargs == {"enable_thinking": False}
