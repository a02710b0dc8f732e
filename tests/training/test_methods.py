"""What every method beside supervised fine-tuning must do: train, measure, stop, go on to the same weights, save."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.errors import DataError, EngineError, LlmbenchError, RecipeError

from .judgements import SECTIONS, rows, stopped, trained, write_rows, written

OWN = {
    "dpo": {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"},
    "orpo": {"rewards/margins", "rewards/accuracies", "log_odds_ratio", "nll_loss"},
    "kto": {"kl", "logps/chosen", "rewards/rejected"},
    "reward": {"accuracy", "margin", "mean_reward"},
    "grpo": {"reward", "reward_std", "kl", "completions/mean_length", "rewards/length/mean", "rewards/exact_match/mean"},
    "distillation": {"loss"},
}


@pytest.mark.parametrize("method", SECTIONS)
def test_a_stopped_run_goes_on_to_the_weights_of_one_that_was_not(method: str, tmp_path: Path) -> None:
    straight = trained(written(tmp_path, method, "data.eval_fraction=0.2", "training.per_device_eval_batch_size=4"))
    assert straight.state == "finished" and len(list(straight.checkpoints.iterdir())) == 1
    logged = rows(straight)
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5, 6]
    assert {name for row in logged for name in row} >= OWN[method]
    tokens = [row["tokens"] for row in logged]
    assert tokens == sorted(set(tokens)) and all(row["tokens_per_second"] > 0 for row in logged)
    assert straight.status["eval_loss"] is not None

    again = written(tmp_path, method, "data.eval_fraction=0.2", "training.per_device_eval_batch_size=4", name=f"{method}-again")
    run = stopped(again, 3)
    [checkpoint] = list(run.checkpoints.iterdir())
    kept = {path.name for path in checkpoint.iterdir()}
    assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in kept) and "ref" not in kept
    runs.resume(again)
    training.train(again, run, resume=True)
    assert [row["loss"] for row in rows(run)] == [row["loss"] for row in logged]
    weights = "adapter_model.safetensors"
    assert (run.adapter / weights).read_bytes() == (straight.adapter / weights).read_bytes()
    certified = {"certificate.json"} if method != "reward" else set()  # judges are not served
    assert {path.name for path in run.adapter.iterdir()} == certified | {
        ".llmbench.json", "adapter_config.json", weights, "llmbench.json",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["kto", "reward"])
def test_all_parameters_train_from_the_method_s_own_rate(method: str, tmp_path: Path) -> None:
    document = written(tmp_path, method, lora=None, training={"max_steps": 2, "per_device_train_batch_size": 4})
    assert document.training.learning_rate == pytest.approx(1e-5, rel=0.6)
    run = trained(document)
    assert (run.model / "model.safetensors").exists() and not run.adapter.exists()


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_a_four_bit_base_trains(method: str, tmp_path: Path) -> None:
    document = written(tmp_path, method, "training.max_steps=2", quantization={"load_in_4bit": True})
    job = training.prepare(document)
    assert "Linear4bit" in {type(module).__name__ for module in job.loaded.model.modules()}
    run = runs.create(document)
    training.train(job, run)
    assert run.state == "finished"
    assert {p.dtype.itemsize for p in job.loaded.model.parameters() if p.requires_grad} == {4}


def test_a_preference_is_learned(tmp_path: Path) -> None:
    for method in ("dpo", "orpo"):
        logged = rows(trained(written(tmp_path, method, "training.max_steps=8", name=f"learn-{method}")))
        assert logged[-1]["rewards/margins"] > logged[0]["rewards/margins"] + 0.05
        assert logged[-1]["loss"] < logged[0]["loss"]


def test_the_plot_shows_what_the_method_measures(tmp_path: Path) -> None:
    run = trained(written(tmp_path, "dpo", "training.max_steps=2"))
    assert "rewards/margins" in (run.folder / "loss.svg").read_text(encoding="utf-8")


def test_kto_weighs_the_neighbour_s_answer_within_each_batch(tmp_path: Path) -> None:
    from llmbench.training.loop.record import Recorder, Stop

    document = written(tmp_path, "kto")
    run = runs.create(document)
    job = training.prepare(document)
    from llmbench.training.methods import kto

    made: Any = kto.trainer(job, run, Recorder(run, Stop()))
    answers = made.train_dataset["completion_ids"][:]
    for start in range(0, len(answers), 4):
        batch = answers[start : start + 4]
        assert made.train_dataset["KL_completion_ids"][start : start + 4] == [batch[-1], *batch[:-1]]


def test_a_reward_model_says_that_it_does_not_chat_and_judges_when_loaded_again(tmp_path: Path, tiny: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from llmbench.engine import peft_config

    document = written(tmp_path, "reward", "training.max_steps=15")
    job = training.prepare(document)
    assert any("does not generate text and cannot be served" in line for line in training.method_lines(job))
    run = runs.create(document)
    training.train(job, run)
    with pytest.raises(EngineError, match="is a reward model, which scores answers and generates none"):
        peft_config.check_kind(run.adapter, json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8")))
    base = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, dtype=torch.float32, pad_token_id=0)
    judge = PeftModel.from_pretrained(base, run.adapter)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)

    def score(answer: str) -> float:
        turns = [{"role": "user", "content": "What is the code of the Alba 3?"}, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(turns, return_dict=True, return_tensors="pt")["input_ids"][:, :-1]
        return float(judge(input_ids=ids).logits)

    assert score("The code is AB-33.") > score("It is not stated.")


def test_a_loss_that_is_no_number_stops_at_once(tmp_path: Path) -> None:
    document = written(tmp_path, "dpo", "training.learning_rate=1e30", "training.warmup_steps=0", "training.max_grad_norm=1e9")
    run = runs.create(document)
    with pytest.raises(LlmbenchError, match=r"nan|inf|not finite|diverged"):
        training.train(document, run)
    assert run.state == "failed" and not run.adapter.exists()


def test_a_recipe_brings_the_section_and_the_rate_of_its_method(tmp_path: Path) -> None:
    document = written(tmp_path, "dpo", training={"max_steps": 1})
    assert document.dpo is not None and document.dpo.loss_type == ["sigmoid"] and document.orpo is None
    assert document.training.learning_rate == 5e-5
    again = runs.create(document).recipe
    assert again["training"]["learning_rate"] == 5e-5 and again["dpo"]["beta"] == 0.1


@pytest.mark.parametrize(
    ("method", "overrides", "says"),
    [
        ("dpo", ["kto.beta=0.2"], "the section kto belongs to method: kto, and this is method: dpo"),
        ("dpo", ["dpo.label_smoothing=0.1"], "label_smoothing does nothing for sigmoid; use loss_type: robust"),
        ("dpo", ["dpo.loss_type=exo_pair"], "exo_pair needs a label_smoothing above 0"),
        ("dpo", ["dpo.loss_type=[sigmoid, sft]", "dpo.loss_weights=[1]"], "loss_weights has 1 values for 2 loss_type"),
        ("dpo", ["dpo.loss_type=nca_pair", "dpo.f_divergence_type=forward_kl"], "f_divergence_type: forward_kl works with"),
        ("dpo", ["dpo.loss_type=simpo"], r"dpo.loss_type\[0\] should be 'sigmoid', "),
        ("dpo", ["dpo.bta=1"], "dpo.bta is not a field. Did you mean beta?"),
        ("dpo", ["training.max_tokens_per_batch=512"], "method: dpo counts rows; use training.per_device_train_batch_size"),
        ("dpo", ["training.torch_compile=true"], "set it to false"),
        ("dpo", ["lora.target_modules=[q_proj, lm_head]"], "use all-linear, which leaves it out"),
        (
            "dpo",
            ["data.train.0.lessons={stage: short, conversations: 4, characters: 100}", "data.train.0.path=null"],
            "method: sft",
        ),
        ("kto", ["training.per_device_train_batch_size=1"], "use 2 or more, or kto.loss_type: apo_zero_unpaired"),
        ("reward", ["data.over_length=truncate"], "an answer is judged at its last token; use drop"),
        ("grpo", ["data.over_length=truncate"], "a prompt ends with the question; use drop"),
        ("grpo", ["training.per_device_train_batch_size=6"], "use training.per_device_train_batch_size=8"),
        (
            "grpo",
            ["data.eval_fraction=0.2", "training.per_device_eval_batch_size=6"],
            "use 8, or set grpo.num_generations_eval",
        ),
        ("grpo", ["grpo.use_vllm=true", "model.device=cpu"], "shares a GPU, and model.device is cpu; set use_vllm: false"),
        ("grpo", ["grpo=null"], "method: grpo needs a section grpo with reward_functions"),
        ("distillation", ["distillation=null"], "needs a section distillation with teacher.model_name_or_path"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_does(
    method: str, overrides: list[str], says: str, tmp_path: Path
) -> None:
    import re

    with pytest.raises(RecipeError) as caught:
        written(tmp_path, method, *overrides)
    assert re.search(says.replace("?", r"\?") if "\\" not in says else says, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_for_another_method_names_itself_and_the_method_it_fits(tmp_path: Path) -> None:
    marked = write_rows(tmp_path / "marked.jsonl", "kto")
    with pytest.raises(DataError, match=r"marked.jsonl:1: these are labelled answers .* fit method: kto; method: dpo"):
        training.prepare(written(tmp_path, "dpo", f"data.train.0.path={marked}"))
