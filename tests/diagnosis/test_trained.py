"""Real trainings of the bundled model, with nothing wrong and with one thing wrong each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmbench import diagnosis
from llmbench.diagnosis import Finding
from llmbench.runs import Run

from .conftest import Train

if TYPE_CHECKING:
    from collections.abc import Callable

HELD = ("data.eval_fraction=0.1", "training.eval_steps=10")


def alarms(run: Run) -> dict[str, Finding]:
    return {one.name: one for one in diagnosis.diagnose(run).alarms}


@pytest.mark.parametrize("seed", range(20))
def test_a_training_with_nothing_wrong_draws_no_alarm(train: Train, seed: int) -> None:
    run = train(f"healthy-{seed}", f"training.seed={seed}", *HELD)
    looked = diagnosis.diagnose(run)
    assert looked.alarms == () and looked.unseen == ()
    assert run.metrics()[0]["loss"] > 2 * run.status["loss"]


def test_a_rate_that_is_too_high_is_named(train: Train) -> None:
    found = alarms(train("high", "training.learning_rate=0.3", *HELD))
    assert set(found) == {"learning rate too high"}
    one = found["learning rate too high"]
    assert one.severity == "error" and one.change == ("training.learning_rate=0.03",)
    start, top = (float(x) for x in re.findall(r"began at ([\d.]+) and shot up to ([\d.]+)", one.evidence)[0])
    assert top > 1.3 * start and 2 <= one.steps[0] <= 5


def test_a_rate_that_is_too_low_is_named(train: Train) -> None:
    found = alarms(train("low", "training.learning_rate=1e-5", *HELD))
    assert set(found) == {"learning rate too low"}
    assert float(found["learning rate too low"].change[0].partition("=")[2]) >= 1e-4


def test_a_spike_is_named_with_its_rows(train: Train, home: Path) -> None:
    """Rows in file order, of which those of step 50 hold answers of signs that no other row has."""
    odd = (197, 198, 199, 200)
    run = train(
        "spike", "data.shuffle=false", "training.max_steps=55", "training.learning_rate=6e-3", count=240, odd=odd
    )  # fmt: skip
    one = alarms(run)["loss spike"]
    assert one.steps == (50,)
    assert one.rows == tuple(f"{home / 'spike.jsonl'}:{number}" for number in odd)


def test_overfitting_is_named_with_the_step_at_which_it_begins(train: Train) -> None:
    run = train(
        "over", "data.eval_fraction=0.5", "training.eval_steps=10", "training.max_steps=80",
        "training.lr_scheduler_type=constant", "training.learning_rate=1e-2", count=32,
    )  # fmt: skip
    one = alarms(run)["overfitting"]
    points = {row["step"]: row["eval_loss"] for row in run.metrics() if "eval_loss" in row}
    assert one.steps == (min(points, key=lambda step: points[step]),)
    assert one.figures["last"] == pytest.approx(points[80])


def test_lora_whose_b_stays_at_zero_is_named(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of B are taken away in two modules, as where no row reaches them."""
    _muted(monkeypatch, lambda name: "layers.1" in name and "lora_B" in name and ("q_proj" in name or "v_proj" in name))
    one = alarms(train("still"))["LoRA stays at zero"]
    assert one.figures["count"] == 2 and one.figures["of"] == 28
    assert set(one.figures["names"]) == {"layers.1.self_attn.q_proj", "layers.1.self_attn.v_proj"}


def test_a_layer_without_a_gradient_and_one_whose_gradient_vanishes_are_named(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    _muted(monkeypatch, lambda name: "layers.2." in name)
    _muted(monkeypatch, lambda name: "layers.3." in name, by=1e-6)
    found = alarms(train("mute"))
    assert found["layer without gradient"].figures["layers"] == ["2"]
    assert set(found["vanishing gradients"].figures["layers"]) == {"3"}


def _muted(monkeypatch: pytest.MonkeyPatch, fits: Callable[[str], bool], by: float = 0.0) -> None:
    """Multiplies the gradients of the parameters whose names fit, in the training that comes next."""
    from llmbench.training.loop.watch import Watched

    before = Watched.training_step

    def step(self: Any, model: Any, *args: Any) -> Any:
        if not int(self.state.global_step):
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad and fits(name):
                    parameter.register_hook(lambda grad: grad * by)
        return before(self, model, *args)

    monkeypatch.setattr(Watched, "training_step", step)


def test_what_is_recorded_changes_no_loss_and_no_weight(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same training with and without the records: a spike, whose batches are drawn anew, among them."""
    from llmbench.runs.diff import result_hash
    from llmbench.training.loop import signals
    from llmbench.training.methods.trainer import Trainer

    odd = (181, 182, 183, 184)
    settings = ("data.shuffle=false", "training.max_steps=50", "training.learning_rate=6e-3", *HELD)
    kept = train("kept", *settings, odd=odd)
    for name in ("batch", "look"):
        monkeypatch.setattr(signals.Signals, name, lambda *_: None)
    monkeypatch.setattr(signals.Signals, "take", lambda *_: {})
    monkeypatch.setattr(signals.RowLosses, "take", lambda *_: None)
    bare = train("bare", *settings, odd=odd)
    assert any("spikes" in row for row in kept.metrics()) and not any("layers" in row for row in bare.metrics())
    figures = [
        [{key: row.get(key) for key in ("loss", "grad_norm", "eval_loss")} for row in run.metrics()] for run in (kept, bare)
    ]
    assert figures[0] == figures[1]
    assert result_hash(kept) == result_hash(bare)
    assert Trainer.signals is None
    assert diagnosis.diagnose(bare).unseen  # and one that recorded nothing more is judged by what it has


def test_held_out_losses_row_by_row_make_up_the_held_out_loss(train: Train) -> None:
    """Padded, end to end, and behind vectors that are no tokens."""
    for name, *ways in (
        ("padded", "training.performance=plain"),
        ("joined", "training.padding_free=true"),
        ("prompt", "lora=null", "adapter={type: prompt_tuning, num_virtual_tokens: 4}"),
    ):
        run = train(name, *ways, *HELD, "training.max_steps=10")
        [line] = [one for one in run.held_out() if one["step"] == 10]
        total = sum(loss * tokens for loss, tokens in zip(line["losses"], line["tokens"], strict=True))
        assert total / sum(line["tokens"]) == pytest.approx(run.status["eval_loss"], rel=1e-4)
        assert len(line["losses"]) == 20
