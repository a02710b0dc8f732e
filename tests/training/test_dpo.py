"""Direct preference optimisation in numbers: what it is measured against, and what each loss is before anything is learned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmbench import runs, training
from llmbench import written as marks

from .judgements import written

if TYPE_CHECKING:
    import torch

    from llmbench.training.job import Job

EPSILON, BETA = 0.1, 0.1
LN2 = math.log(2)
AT_THE_START = {
    "sigmoid": LN2,
    "hinge": 1.0,
    "ipo": (1 / (2 * BETA)) ** 2,
    "exo_pair": 0.5 * (math.log(0.5) - math.log(1 - EPSILON)) + 0.5 * (math.log(0.5) - math.log(EPSILON)),
    "nca_pair": 2 * LN2,
    "robust": LN2,
    "bco_pair": 2 * LN2,
    "sppo_hard": 2 * (0.5 / BETA) ** 2,
    "aot": LN2,
    "aot_unpaired": LN2,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": 0.5 * LN2 + 0.5,
    "sigmoid_norm": LN2,
}
"""Each loss where the model is its reference, from its formula: every log-ratio is 0."""


def continued(job: Job, config: Any, tmp_path: Path) -> Job:
    """The same job, going on from an adapter that was trained before: its weights are not those that PEFT starts with."""
    import torch
    from peft import PeftModel, get_peft_model

    torch.manual_seed(3)
    model = get_peft_model(job.loaded.model.unload(), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(tmp_path / "sft", save_embedding_layers=False)
    again = PeftModel.from_pretrained(model.unload(), tmp_path / "sft", is_trainable=True)
    again.config.use_cache = False
    return replace(job, loaded=replace(job.loaded, model=again))


def made(job: Job, name: str = "made") -> Any:
    """The trainer of a job, not started."""
    from llmbench.training.loop.record import Recorder, Stop
    from llmbench.training.methods import dpo, kto

    run = runs.create(job.recipe.model_copy(update={"name": name}))
    module = {"dpo": dpo, "kto": kto}[job.recipe.method]
    trainer = module.trainer(job, run, Recorder(run, Stop()))
    trainer.model.train()
    return trainer


def first_batch(trainer: Any) -> Any:
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def loss_of(trainer: Any, batch: Any) -> float:
    import torch

    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, batch))


def log_probs(trainer: Any, batch: Any, adapter: str | None = None) -> torch.Tensor:
    """What the model, one of its adapters, or its base (`""`) gives each answer."""
    from contextlib import nullcontext

    import torch
    from trl.trainer.utils import use_adapter

    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    chosen: Any = nullcontext() if adapter is None else use_adapter(trainer.model, adapter_name=adapter or None)
    with torch.no_grad(), chosen:
        out = trainer.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
        )
    return torch.as_tensor(out.log_probs.sum(-1))


def test_every_loss_starts_where_its_formula_says(tmp_path: Path) -> None:
    trainer = made(training.prepare(written(tmp_path, "dpo", "dpo.loss_type=robust", f"dpo.label_smoothing={EPSILON}")))
    assert trainer.loss_types == ["robust"] and trainer.label_smoothing == EPSILON
    batch = first_batch(trainer)
    for loss, expected in AT_THE_START.items():
        trainer.loss_types = [loss]
        assert loss_of(trainer, batch) == pytest.approx(expected, rel=1e-5), loss
    trainer.loss_types = ["sft"]
    tokens = int(batch["completion_mask"][: len(batch["input_ids"]) // 2].sum())
    chosen = log_probs(trainer, batch)[: len(batch["input_ids"]) // 2]
    assert loss_of(trainer, batch) == pytest.approx(-float(chosen.sum()) / tokens, rel=1e-4)


def test_losses_are_added_up_by_their_weights(tmp_path: Path) -> None:
    trainer = made(training.prepare(written(tmp_path, "dpo", "dpo.loss_type=[sigmoid, hinge]", "dpo.loss_weights=[0.5, 2]")))
    assert loss_of(trainer, first_batch(trainer)) == pytest.approx(0.5 * LN2 + 2, rel=1e-5)


def test_all_parameters_are_measured_against_the_model_that_is_started_from(tmp_path: Path) -> None:
    job = training.prepare(written(tmp_path, "dpo", lora=None))
    trainer = made(job)
    assert trainer.ref_model is not None and not any(p.requires_grad for p in trainer.ref_model.parameters())
    assert loss_of(trainer, first_batch(trainer)) == pytest.approx(LN2, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")  # huggingface/peft#2777, about merging
@pytest.mark.parametrize("kind", ["lora", "embedding", "ia3"])
def test_a_continued_adapter_is_measured_against_itself_and_not_against_the_base(kind: str, tmp_path: Path) -> None:
    import torch
    from peft import IA3Config, LoraConfig

    config: Any = {
        "lora": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        "embedding": LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM"),
        "ia3": IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj"], feedforward_modules=[]),
    }[kind]
    job = continued(training.prepare(written(tmp_path, "dpo")), config, tmp_path)
    trainer = made(job)
    batch = first_batch(trainer)
    policy, held, base = log_probs(trainer, batch), log_probs(trainer, batch, "ref"), log_probs(trainer, batch, "")
    assert torch.equal(policy, held)
    assert not torch.allclose(policy, base, atol=0.1)
    assert loss_of(trainer, batch) == pytest.approx(LN2, rel=1e-6)
    names = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert names and all("default" in name.split(".") for name in names)


def test_the_reference_stays_as_it_was_and_is_not_saved(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig

    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    document = written(tmp_path, "dpo", "training.max_steps=3", "training.warmup_steps=0")
    job = continued(training.prepare(document), config, tmp_path)
    begun = {n: p.detach().clone() for n, p in job.loaded.model.named_parameters() if "lora_" in n}
    run = runs.create(document)
    training.train(job, run)
    after = dict(job.loaded.model.named_parameters())
    assert all(torch.equal(after[name.replace(".default.", ".ref.")], value) for name, value in begun.items())
    assert any(not torch.equal(after[name], value) for name, value in begun.items())
    assert {path.name for path in run.adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "certificate.json",
        "llmbench.json",
        marks.RECORD,
    }
    assert run.metrics()[0]["loss"] == pytest.approx(LN2, rel=1e-6)


def test_kto_starts_at_half_and_is_measured_against_the_continued_adapter(tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = made(continued(training.prepare(written(tmp_path, "kto")), config, tmp_path))
    assert loss_of(trainer, first_batch(trainer)) == pytest.approx(0.5, rel=1e-6)
