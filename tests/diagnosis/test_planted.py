"""Faults that are planted in records, for what no short training of the bundled model shows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmbench.diagnosis import KINDS, Finding
from llmbench.diagnosis.looking import judge
from llmbench.diagnosis.recorded import Traces, read
from llmbench.runs import Run

STEPS = 200


def recorded(
    shape: Any = lambda x: 1.0 + math.exp(-8 * x),
    *,
    every: int = 10,
    epochs: float = 1.0,
    evaluations: list[float] | None = None,
    method: str = "sft",
    **fields: Any,
) -> Traces:
    """A run of 200 steps; `shape` gives the loss at each share of the run, which scatters by 3 %."""
    random = Random(7)
    losses = [shape(i / STEPS) * (1 + 0.03 * random.gauss(0, 1)) for i in range(STEPS)]
    norms = [math.exp(0.3 * random.gauss(0, 1)) for _ in range(STEPS)]
    lines: list[dict[str, Any]] = []
    for last in range(every, STEPS + 1, every):
        part = slice(last - every, last)
        lines.append(
            {
                "step": last, "epoch": epochs * last / STEPS, "loss": sum(losses[part]) / every, "learning_rate": 1e-3,
                "grad_norm": norms[last - 1], "losses": losses[part], "norms": norms[part], "learned": 0.3,
                "layers": {"0": 0.5, "1": 0.4, "2": 0.3, "3": 0.4}, "lora_b": {"0": 1.0, "1": 1.0, "2": 1.0, "3": 1.0},
            }
        )  # fmt: skip
    for i, value in enumerate(evaluations or []):
        lines.append({"step": STEPS * (i + 1) // len(evaluations or []), "eval_loss": value})
    recipe = {
        "method": method,
        "data": {"shuffle": True, "train": [{}], "eval_fraction": 0.05, "max_length": 512, "train_on": "assistant"},
        "lora": {"r": 16},
        "training": {
            "learning_rate": 1e-3, "warmup_steps": 0.0, "logging_steps": every, "max_grad_norm": 1.0, "optim": "adamw_torch",
        },
    }  # fmt: skip
    status = {"state": "finished", "step": STEPS}
    return replace(Traces("planted", status, recipe, lines, [], {}), **fields)


def changed(of: Traces, **values: Any) -> Traces:
    """With these fields in every line of the training."""
    return replace(of, metrics=[row | values if "loss" in row else row for row in of.metrics])


def named(of: Traces) -> dict[str, Finding]:
    return {one.name: one for one in judge(of).alarms}


def test_records_with_nothing_wrong_draw_no_alarm() -> None:
    assert judge(recorded()).findings == ()


def test_a_loss_that_rises_again_diverged() -> None:
    one = named(recorded(lambda x: 1 + math.exp(-8 * x) if x < 0.6 else 1 + 2 * (x - 0.6)))["divergence"]
    assert one.severity == "error" and 80 < one.steps[0] < 130


def test_a_step_that_was_not_finite_is_named_with_its_rows() -> None:
    diverged = {"step": 41, "losses": ["nan"], "grad_norm": "nan", "rows": ["a.jsonl:3", "a.jsonl:9"]}
    one = named(recorded(status={"state": "failed", "step": 40, "diverged": diverged}))["divergence"]
    assert one.rows == ("a.jsonl:3", "a.jsonl:9") and one.steps == (41,) and one.change == ("training.learning_rate=0.00033",)


def test_a_straight_line_is_a_rate_too_low() -> None:
    assert set(named(recorded(lambda x: 2 - 0.5 * x))) == {"learning rate too low"}


def test_a_loss_that_stays_where_it_was_is_no_progress() -> None:
    assert set(named(recorded(lambda x: 2.0))) == {"no progress"}


def test_a_plateau_is_a_note() -> None:
    [one] = judge(recorded(lambda x: 1 + math.exp(-60 * x))).findings
    assert one.name == "plateau" and one.severity == "note" and one.steps[0] <= 60


def test_a_rate_of_zero_in_every_step() -> None:
    assert set(named(changed(recorded(lambda x: 2.0), learning_rate=0.0))) == {"learning rate zero"}


def test_a_warm_up_longer_than_the_run() -> None:
    of = recorded()
    of.training["warmup_steps"] = 1_000
    assert "warm-up too long" in named(changed(of, learning_rate=2e-4))


def test_rows_in_file_order_whose_loss_jumps() -> None:
    of = recorded(lambda x: (1 + math.exp(-8 * x)) * (1.6 if x > 0.5 else 1))
    of.recipe["data"]["shuffle"] = False
    [one] = named(of).values()
    assert one.name == "data order" and one.steps[0] == pytest.approx(100, abs=4) and one.change == ("data.shuffle=true",)


def test_rows_in_file_order_whose_loss_repeats_each_epoch() -> None:
    of = recorded(lambda x: (1 + math.exp(-8 * x)) * (1 + 0.3 * math.sin(2 * math.pi * 4 * x)), epochs=4.0)
    assert "data order" not in named(of)
    of.recipe["data"]["shuffle"] = False
    assert named(of)["data order"].figures["correlation"] > 0.6


def test_overfitting_without_losses_by_row() -> None:
    """As runs of earlier versions are."""
    one = named(recorded(epochs=3.0, evaluations=[1.4, 1.2, 1.25, 1.32, 1.4]))["overfitting"]
    assert one.steps == (80,) and one.figures["rise"] == pytest.approx(1.4 / 1.2 - 1)
    assert "overfitting" not in named(recorded(epochs=3.0, evaluations=[1.4, 1.2, 1.21, 1.2, 1.21]))


def test_memorisation() -> None:
    of = recorded(lambda x: 0.2 + math.exp(-8 * x), epochs=5.0, evaluations=[1.4, 1.2, 1.19, 1.19, 1.2])
    assert set(named(of)) == {"memorisation"}


def test_held_out_rows_that_show_nothing() -> None:
    random = Random(3)
    held = [{"step": step, "losses": [random.uniform(0.5, 2.0) for _ in range(6)], "tokens": [9] * 6} for step in (100, 200)]
    one = named(recorded(evaluations=[1.2, 1.19], held_out=held))["evaluation noise"]
    assert one.figures["low"] < 0 < one.figures["high"] and one.figures["rows"] == 6


def test_a_layer_whose_gradient_explodes_and_a_norm_that_grows() -> None:
    of = recorded()
    one = named(changed(of, layers={"0": 0.1, "1": 0.1, "2": 900.0, "3": 0.1}))["exploding gradients"]
    assert set(one.figures["layers"]) == {"2"}
    grown = [row | {"norms": [10 ** (row["step"] / 50)] * 10} for row in of.metrics]
    assert named(replace(of, metrics=grown))["exploding gradients"].figures["late"] > 1_000


def test_clipping_in_every_step_and_single_wild_gradients() -> None:
    of = recorded()
    assert set(named(changed(of, norms=[90.0] * 10))) == {"clipped throughout"}
    wild = [row | ({"norms": [1.0] * 9 + [400.0]} if row["step"] == 150 else {}) for row in of.metrics]
    assert named(replace(of, metrics=wild))["gradient spike"].steps == (150,)


def test_gradients_of_zero() -> None:
    assert set(named(changed(recorded(lambda x: 2.0), norms=[0.0] * 10))) == {"zero gradients"}


def test_labels_mostly_masked() -> None:
    assert named(changed(recorded(), learned=0.004))["labels mostly masked"].severity == "warning"
    report = {
        "train": {"rows": 100, "untrained_rows": 40, "untrained_places": ["a.jsonl:5"], "tokens": 9_000, "trained_tokens": 900}
    }
    one = named(recorded(report=report))["labels mostly masked"]
    assert one.rows == ("a.jsonl:5",) and "40 of 100 rows" in one.evidence


def test_duplicates_learned_by_heart_and_held_out_rows_among_training_rows() -> None:
    groups = [{"kind": "exact", "similarity": 1.0, "train_rows": 5, "eval_rows": 0, "places": ["a.jsonl:1", "a.jsonl:7"]}]
    report = {
        "train": {"rows": 100},
        "eval": {"rows": 10},
        "duplicates": {
            "exact_rows": 40,
            "near_rows": 5,
            "groups": groups,
            "contaminated_exact": 3,
            "contaminated_places": ["a.jsonl:2"],
        },
    }
    found = named(
        recorded(lambda x: 0.2 + math.exp(-8 * x), epochs=5.0, evaluations=[1.4, 1.2, 1.19, 1.19, 1.2], report=report)
    )
    assert set(found) == {"duplicates learned by heart", "held-out rows among training rows"}
    assert found["duplicates learned by heart"].rows == ("a.jsonl:1", "a.jsonl:7")
    assert found["held-out rows among training rows"].rows == ("a.jsonl:2",)


def test_rows_that_were_cut() -> None:
    assert "rows cut" in named(recorded(report={"train": {"rows": 100, "cut_turns": 30}}))


def test_rows_of_which_nothing_is_left_to_learn() -> None:
    skipped = [{"reason": "nothing to train within max_length", "rows": 40, "places": ["a.jsonl:1"]}]
    train = {"rows_in": 100, "rows": 60, "skipped": skipped, "limit": {"fits_all": 900}}
    one = named(recorded(report={"train": train}))["rows cut"]
    assert one.rows == ("a.jsonl:1",) and one.change == ("data.max_length=900",) and one.figures["left_out"] == 40
    assert not named(recorded(report={"train": train | {"skipped": [skipped[0] | {"rows": 9}]}}))


def test_copies_are_named_beside_the_overfitting_that_they_make() -> None:
    report = {"train": {"rows": 100}, "duplicates": {"exact_rows": 80}}
    of = recorded(lambda x: 0.2 + math.exp(-8 * x), epochs=5.0, evaluations=[1.4, 1.2, 1.25, 1.32, 1.4], report=report)
    assert set(named(of)) == {"overfitting", "duplicates learned by heart"}


def test_precision() -> None:
    of = recorded()
    assert named(changed(of, skipped=3))["skipped steps"].figures["skipped"] == 60
    one = named(changed(of, half_rms=2.0, half_dtype="bfloat16"))["updates lost to rounding"]
    assert one.figures["least"] == pytest.approx(2.0 / 512)
    assert "updates lost to rounding" not in named(changed(of, half_rms=0.05, half_dtype="bfloat16"))


def test_judged_answers() -> None:
    dpo = recorded(method="dpo")
    assert "accuracy at chance" in named(changed(dpo, **{"rewards/accuracies": 0.5}))
    assert named(changed(dpo, **{"rewards/accuracies": 0.8})) == {}
    fallen = [row | {"logps/chosen": -40.0 - row["step"], "rewards/accuracies": 0.9} for row in dpo.metrics]
    assert set(named(replace(dpo, metrics=fallen))) == {"chosen answers become unlikely"}
    kto = [row | {"logps/chosen": -40.0 - row["step"], "kl": 0.0} for row in dpo.metrics]
    one = named(recorded(method="kto", metrics=kto))["chosen answers become unlikely"]
    assert one.next.endswith("or raise kto.beta.")
    grpo = recorded(method="grpo")
    assert set(named(changed(grpo, frac_reward_zero_std=0.9))) == {"rewards all alike"}
    assert set(named(changed(grpo, kl=30.0))) == {"drift from the reference"}


def test_what_is_not_recorded_is_said() -> None:
    of = recorded()
    kept = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    bare = replace(of, metrics=[{name: row[name] for name in kept} for row in of.metrics])
    looked = judge(bare)
    assert looked.alarms == ()
    said = " ".join(looked.unseen)
    for words in ("spikes of single steps", "gradients by layer", "LoRA's matrices", "mixed precision", "nothing is held out"):
        assert words in said
    assert judge(replace(of, metrics=of.metrics[:0], status={"state": "running"})).unseen[0].startswith("the shape of the loss")


def test_every_kind_is_described_once() -> None:
    assert len(KINDS) >= 25 and all(words.endswith(".") for words in KINDS.values())


def test_damaged_lines_of_the_records_are_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path / "damaged")
    run.folder.mkdir()
    (run.folder / "state.json").write_text('{"state": "finished", "created": 1, "step": 1}')
    (run.folder / "recipe.yaml").write_text("method: sft\n")
    (run.folder / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 2.0}\n5\n[]\n\xff\xfe{\n{"loss": 1}\n{"st')
    found = read(run)
    assert found.metrics == [{"step": 1, "loss": 2.0}] and [point.loss for point in found.points] == [2.0]
