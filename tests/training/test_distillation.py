"""Distillation: the student comes nearer to the teacher, whose words must be its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.errors import LlmbenchError, RecipeError, RunError

from .judgements import rows, stopped, trained, written

SMALL: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
STUDENT = {"config": SMALL, "tokenizer": "llmbench/tiny", "dtype": "float32"}


def test_a_small_student_comes_nearer_to_its_teacher(tmp_path: Path) -> None:
    """The loss is the KL from the teacher's distribution, in nats a token: of random weights first, then of learned ones."""
    document = written(tmp_path, "distillation", "training.max_steps=25", "data.eval_fraction=0.2", lora=None, model=STUDENT)
    run = trained(document)
    curve = [row["loss"] for row in rows(run)]
    assert curve[-1] < 0.6 * curve[0]
    assert run.status["eval_loss"] < curve[0]
    assert (run.model / "model.safetensors").exists()


def test_the_loss_is_the_divergence_over_learned_tokens(tmp_path: Path) -> None:
    import torch
    from torch.nn import functional

    from llmbench.training.loop.record import Recorder, Stop
    from llmbench.training.methods import distillation

    document = written(tmp_path, "distillation", lora=None, model=STUDENT)
    job = training.prepare(document)
    run = runs.create(document)
    trainer = distillation.trainer(job, run, Recorder(run, Stop()))
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        shape = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        student, teacher = (m(**shape).logits[:, :-1].log_softmax(-1) for m in (job.loaded.model, job.teacher))
        learned = batch["labels"][:, 1:] != -100
        forward = functional.kl_div(student, teacher, log_target=True, reduction="none").sum(-1)[learned].mean()
        loss = trainer.compute_loss(trainer.model, batch)
    assert float(loss) == pytest.approx(float(forward), rel=1e-4)
    assert batch["prompts"].shape[0] == 4 and "labels" in batch
    texts = job.loaded.tokenizer.batch_decode(batch["prompts"])
    assert all(text.endswith("<|im_start|>assistant\n") for text in texts)


def test_the_student_s_own_answers_are_drawn_where_lmbda_says(tmp_path: Path) -> None:
    section = {"teacher": {"model_name_or_path": "llmbench/tiny"}, "lmbda": 1.0, "beta": 1.0, "max_new_tokens": 6}
    run = trained(written(tmp_path, "distillation", "training.max_steps=2", distillation=section))
    assert run.state == "finished"


def test_another_vocabulary_is_one_line(tmp_path: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path / "stranger"
    words: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_words(Tokenizer, models, pre_tokenizers)
    )
    words.save_pretrained(folder)
    torch.manual_seed(0)
    Qwen3ForCausalLM(  # type: ignore[no-untyped-call]
        Qwen3Config(vocab_size=3, **{k: v for k, v in SMALL.items() if k != "model_type"})
    ).save_pretrained(folder)
    section = {"teacher": {"model_name_or_path": str(folder)}}
    with pytest.raises(
        RecipeError, match=r"stranger has a different vocabulary from llmbench/tiny \(3 tokens against 1,024\)"
    ) as caught:
        training.prepare(written(tmp_path, "distillation", distillation=section))
    assert "\n" not in str(caught.value)
    with pytest.raises(LlmbenchError, match="there is no folder"):
        training.prepare(written(tmp_path, "distillation", "distillation.teacher.model_name_or_path=./gone"))


def _words(tokenizer: Any, models: Any, pre_tokenizers: Any) -> Any:
    made = tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def test_a_teacher_that_changed_is_seen_on_resume(tmp_path: Path, tiny: Path) -> None:
    import shutil

    folder = tmp_path / "teacher"
    shutil.copytree(tiny, folder)
    document = written(tmp_path, "distillation", distillation={"teacher": {"model_name_or_path": str(folder)}})
    run = stopped(document, 2)
    assert set(json.loads((run.folder / "lock.json").read_text(encoding="utf-8"))["method"]) == {"teacher"}
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    with pytest.raises(RunError, match="its method changed since it began"):
        training.train(document, run, resume=True)
