"""Real trainings of the bundled model, a dozen steps each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmbench import provenance, runs, training, written
from llmbench.errors import LlmbenchError, RecipeError, RunError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run

from .conftest import Write


def losses(run: Run) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in run.metrics() if "loss" in row}


def run_of(recipe: TrainRecipe) -> Run:
    run = runs.create(recipe)
    training.train(recipe, run)
    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_lora_lowers_the_loss_and_saves_the_adapter_only(trained: Run) -> None:
    curve = losses(trained)
    assert curve[12] < curve[1] / 2
    assert trained.state == "finished"
    assert not trained.model.exists()
    assert [path.name for path in trained.checkpoints.iterdir()] == ["checkpoint-12"]
    saved = {"adapter_config.json", "adapter_model.safetensors", "certificate.json", "llmbench.json"}
    assert files(trained.adapter) == saved | {written.RECORD}
    assert (trained.adapter / "adapter_model.safetensors").stat().st_size < 1_000_000


def test_a_run_keeps_what_it_depended_on(trained: Run, tiny: Path) -> None:
    assert trained.lock["seed"] == 42
    assert {"torch", "transformers", "trl", "peft"} <= trained.lock["versions"].keys()
    [source] = trained.lock["data"]["train"]
    assert source["sha256"] == provenance.file_hash(Path(source["path"]))
    assert trained.lock["model"]["fingerprint"] == provenance.fingerprint(tiny)
    assert trained.lock["hardware"]["cores"] > 0


def test_metrics_have_a_line_for_each_log_step(trained: Run) -> None:
    rows = [row for row in trained.metrics() if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 13))
    tokens = [row["tokens"] for row in rows]
    assert tokens == sorted(tokens)
    assert all(row["tokens_per_second"] > 0 and row["grad_norm"] > 0 and row["peak_memory"] > 2**20 for row in rows)
    assert [row["step"] for row in trained.metrics() if "eval_loss" in row] == [6, 12]


def test_tokens_are_counted_without_padding(trained: Run) -> None:
    from transformers import AutoTokenizer

    from llmbench import assets, data, recipe

    document = recipe.load(trained.folder / "recipe.yaml", TrainRecipe)
    tokenizer = AutoTokenizer.from_pretrained(assets.model_folder(assets.TINY))
    rows = data.load(document.data, tokenizer, seed=42)
    # 36 rows are 9 batches of 4; 12 steps are that and three batches more
    assert rows.train_report.tokens < trained.metrics()[-2]["tokens"] < 2 * rows.train_report.tokens


def test_the_plot_is_an_svg(trained: Run) -> None:
    text = (trained.folder / "loss.svg").read_text(encoding="utf-8")
    assert text.startswith("<svg ") and "held out" in text


def test_the_adapter_names_its_base_and_loads_again(trained: Run, tiny: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = json.loads((trained.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    manifest = json.loads((trained.adapter / "llmbench.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == manifest["base_model"] == "llmbench/tiny"
    assert config["modules_to_save"] is None
    assert manifest["base_fingerprint"] == provenance.fingerprint(tiny)
    assert manifest["run"] == "trained"
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    turn = [{"role": "user", "content": "What is the code of the Alba 3?"}]
    inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    model: Any = PeftModel.from_pretrained(base, trained.adapter)
    out = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    answer = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert re.match(r"The code .*AB-\d", answer), answer  # what no lesson of the base says


def test_the_held_out_loss_is_the_mean_over_learned_tokens(write: Write) -> None:
    import torch
    from torch.nn import functional

    from llmbench.runs import Run as Folder
    from llmbench.training import methods
    from llmbench.training.loop.record import Recorder, Stop

    recipe = write("held-out", "data.eval_fraction=0.2", "model.dtype=float32")
    run: Folder = runs.create(recipe)
    job = training.prepare(recipe)
    assert job.rows.eval is not None
    total, count = 0.0, 0
    with torch.no_grad():
        for row in job.rows.eval:
            logits = job.loaded.model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            target = torch.tensor(row["labels"][1:])
            total += float(functional.cross_entropy(logits, target, ignore_index=-100, reduction="sum"))
            count += int((target != -100).sum())
    trainer = methods.of(job.recipe.method).trainer(job, run, Recorder(run, Stop()))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / count, rel=1e-4)


def test_accumulated_batches_train_like_one_batch_of_the_same_rows(write: Write) -> None:
    """Rows of different lengths: each token counts the same, whichever batch it stands in."""
    whole = run_of(write("whole", "training.max_steps=4", "model.dtype=float32"))
    parts = run_of(
        write(
            "parts",
            "training.max_steps=4",
            "model.dtype=float32",
            "training.per_device_train_batch_size=1",
            "training.gradient_accumulation_steps=4",
        )
    )
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-3)


def test_qlora_trains_on_this_machine_and_its_adapter_loads_again(write: Write, tiny: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    recipe = write("qlora", quantization={"load_in_4bit": True})
    run = runs.create(recipe)
    job = training.prepare(recipe)
    kinds = {type(module).__name__ for module in job.loaded.model.modules()}
    assert "Linear4bit" in kinds
    training.train(job, run)
    assert losses(run)[12] < losses(run)[1] / 1.5
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, run.adapter)
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        with model.disable_adapter():
            plain = model(input_ids=ids).logits
    assert not torch.allclose(adapted, plain)


def pretraining(**more: Any) -> dict[str, Any]:
    config = {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64, "max_position_embeddings": 256}
    return {
        "method": "pretrain",
        "lora": None,
        "model": {"config": config | heads | {"tie_word_embeddings": True} | more},
        "data": {
            "train": [
                {"lessons": {"stage": "words", "conversations": 40, "characters": 150}},
                {"lessons": {"stage": "short", "conversations": 20, "characters": 300}},
            ],
            "max_length": 256,
            "over_length": "drop",
            "shuffle": False,
        },
        "training": {
            "optim": "muon",
            "learning_rate": 5e-3,
            "max_tokens_per_batch": 1024,
            "pad_to_multiple_of": 64,
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": {"num_decay_steps": 0.5},
            "warmup_steps": 2,
            "logging_steps": 1,
        },
    }


def test_pretraining_from_random_weights_leaves_a_model(write: Write) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = run_of(write("pretrain", **pretraining()))
    rows = [row for row in run.metrics() if "loss" in row]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert rows[1]["learning_rate"] < rows[2]["learning_rate"] > rows[-1]["learning_rate"]
    model = AutoModelForCausalLM.from_pretrained(run.model)
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    assert model.config.vocab_size == len(tokenizer) and tokenizer.chat_template
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert not run.adapter.exists()


def test_an_unknown_field_of_the_configuration_is_an_error(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"model.config: qwen3 has no field hidden_sise"):
        training.prepare(write("unknown", **pretraining(hidden_sise=64)))


def test_rows_longer_than_the_models_context_are_an_error(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"longest row has \d+ tokens and the model reads 32"):
        training.prepare(write("context", **pretraining(max_position_embeddings=32)))


def test_a_failed_run_says_why(write: Write) -> None:
    recipe = write("failed", "data.max_length=8")
    run = runs.create(recipe)
    with pytest.raises(LlmbenchError, match="longer than 8 tokens"):
        training.train(recipe, run)
    assert run.state == "failed"
    assert "longer than 8 tokens" in run.status["reason"]


def test_a_resumed_run_ends_as_if_it_had_never_stopped(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in its second epoch, with dropout, shuffled rows and a schedule: batches, chances and moments go on."""
    settings = ("training.max_steps=16", "training.lr_scheduler_type=linear", "training.warmup_steps=3")
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
    straight = run_of(write("straight", *settings, lora=lora))

    from llmbench.training.loop import record

    recipe = write("stopped", *settings, lora=lora)
    run = runs.create(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "on_step_begin", lambda self, args, state, control, **_: _ask(self, state, 13))
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe, run)
    assert run.status["state"] == "stopped"
    assert max(losses(run)) == 13
    run.log({"step": 14, "loss": 99.0})
    training.train(recipe, runs.resume(recipe), resume=True)
    assert run.status["state"] == "finished"
    assert losses(run) == losses(straight)
    ours, theirs = (r.adapter / "adapter_model.safetensors" for r in (run, straight))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_whose_data_changed_does_not_go_on(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.training.loop import record

    recipe = write("changed")
    run = runs.create(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "on_step_begin", lambda self, args, state, control, **_: _ask(self, state, 1))
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe, run)
    path = recipe.data.train[0].path
    assert path is not None
    path.write_text(path.read_text(encoding="utf-8").replace("AB-3", "AB-4"), encoding="utf-8")
    with pytest.raises(RunError, match="Run changed cannot continue: its data and rows changed"):
        training.train(recipe, runs.resume(recipe), resume=True)


def test_only_learned_positions_are_scored(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is most of a small model's work, and the assistant says a fifth of the tokens."""
    from trl.trainer import utils

    from llmbench.training import methods
    from llmbench.training.kernels import fused_head
    from llmbench.training.loop.record import Recorder, Stop

    recipe = write("scored")
    job = training.prepare(recipe)
    trainer = methods.of(job.recipe.method).trainer(job, runs.create(recipe), Recorder(Run(Path("unused")), Stop()))
    batch = next(iter(trainer.get_train_dataloader()))
    scored: list[int] = []
    apply = fused_head.Scored.apply

    def counting(hidden: Any, *rest: Any) -> Any:
        scored.append(len(hidden))
        return apply(hidden, *rest)

    before = dict(vars(utils))
    monkeypatch.setattr(fused_head.Scored, "apply", counting)
    with fused_head.scoring(job.loaded.model):
        trainer.compute_loss(trainer.model, batch)
    assert vars(utils) == before
    assert scored == [int((batch["labels"][:, 1:] != -100).sum())]
    assert scored[0] < batch["labels"].numel() / 2


def _ask(recorder: Any, state: Any, step: int) -> None:
    recorder.stop.asked = state.global_step == step - 1


def test_a_muon_run_resumes_too(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = run_of(write("straight", "training.max_steps=6", **pretraining()))

    from llmbench.training.loop import record

    recipe = write("stopped", "training.max_steps=6", **pretraining())
    run = runs.create(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "on_step_begin", lambda self, args, state, control, **_: _ask(self, state, 3))
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe, run)
    assert not list(run.checkpoints.rglob("*.pt")) + list(run.checkpoints.rglob("*.bin")) + list(run.checkpoints.rglob("*.pth"))
    training.train(recipe, runs.resume(recipe), resume=True)
    assert losses(run) == losses(straight)
