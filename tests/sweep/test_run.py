"""The whole sweep, with real processes, folders, locks and signals; what they train is `trainer.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sweep.conftest import TRAINER, Make, Quiet

from llmbench import runs, sweep, workspace
from llmbench.errors import LlmbenchError, RecipeError

Started = Callable[[], list[dict[str, Any]]]
RATE = "training.learning_rate"
SWEEP = """
import sys
from llmbench.sweep import process
process.PROGRAM = (sys.executable, {trainer!r})
sys.argv = ["llmbench", "sweep", *sys.argv[1:]]
from llmbench.cli.main import main
main()
"""


def states(found: sweep.Sweep) -> list[str]:
    return [one.state for one in found.trials]


def test_a_sweep_finds_the_best_and_leaves_a_recipe_and_a_report(make: Make, quiet: Quiet, home: Path) -> None:
    found = sweep.run(make(), quiet)
    assert states(found) == ["finished"] * 5
    assert found.trials[0].params == {RATE: 0.01}, "the recipe as it stands comes first"
    assert found.winner.value == min(one.value for one in found.trials if one.value is not None)
    from llmbench import recipe

    best = recipe.load(found.folder / "best.yaml", recipe.TrainRecipe)
    assert best.training.learning_rate == found.winner.params[RATE]
    page = found.report.read_text()
    assert "Which settings matter" in page and "polyline" not in page
    assert sweep.load("try") == found
    assert [one.name for one in sweep.every()] == ["try"]
    assert runs.open_run("try-0003").state == "finished"


def test_the_same_command_again_trains_nothing_and_more_trials_continue(make: Make, quiet: Quiet, started: Started) -> None:
    first = sweep.run(make(trials=3), quiet)
    assert sweep.run(make(trials=3), quiet).trials == first.trials
    assert len(started()) == 3
    more = sweep.run(make(trials=5), quiet)
    assert more.trials[:3] == first.trials and len(more.trials) == 5
    assert len(started()) == 5


def test_a_grid_that_is_smaller_ends_early_and_says_so(make: Make, quiet: Quiet) -> None:
    found = sweep.run(make(space={RATE: [0.1, 0.01]}, sampler="grid", trials=9), quiet)
    assert len(found.trials) == 2
    assert any("all other combinations" in note for note in found.notes)


def test_one_that_fails_is_told_with_its_reason_and_the_others_go_on(make: Make, quiet: Quiet) -> None:
    found = sweep.run(make(space={"training.warmup_steps": [0, 102, 103]}, sampler="grid"), quiet)
    assert states(found) == ["finished", "failed", "failed"]
    assert found.trials[1].reason == "MemoryError: CUDA out of memory"
    assert found.trials[2].reason == "the objective is nan"
    assert json.loads((found.folder / "summary.json").read_text())["trials"][2]["evaluations"][0] == [1, "nan"]
    assert found.best == 0


def test_all_failing_ends_it(make: Make, quiet: Quiet, started: Started) -> None:
    spec = make(overrides={"training.warmup_steps": 102}, trials=8)
    with pytest.raises(LlmbenchError, match=r"No trial finished and 3 failed, the last one because: MemoryError.*0002\.log"):
        sweep.run(spec, quiet)
    assert len(started()) == 3


def test_all_failing_ends_it_with_several_at_once_too(make: Make, quiet: Quiet, started: Started) -> None:
    with pytest.raises(LlmbenchError, match="No trial finished"):
        sweep.run(make(overrides={"training.warmup_steps": 102}, trials=20, parallel=2), quiet)
    assert 3 <= len(started()) <= 5


def test_trackers_may_change_and_nothing_that_trains(make: Make, quiet: Quiet, home: Path) -> None:
    first = sweep.run(make(trials=1), quiet)
    (home / "base.yaml").write_text(
        (home / "base.yaml").read_text().replace("name: base", "name: other\ntracking: tensorboard")
    )
    assert sweep.run(make(trials=1), quiet).trials == first.trials
    (home / "base.yaml").write_text((home / "base.yaml").read_text().replace("max_steps: 4", "max_steps: 5"))
    with pytest.raises(LlmbenchError, match=r"recipe\.training\.max_steps: 4 -> 5"):
        sweep.run(make(trials=1), quiet)


def test_one_that_is_killed_is_continued_and_one_that_always_is_fails(make: Make, quiet: Quiet, started: Started) -> None:
    found = sweep.run(make(space={"training.warmup_steps": [0, 101, 104]}, sampler="grid"), quiet)
    assert states(found) == ["finished", "finished", "failed"]
    assert "killed by signal 9 3 times" in found.trials[2].reason
    assert [one["resume"] for one in started() if one["run"] == "try-0001"] == [False, True]


def test_a_pruned_training_is_stopped_and_keeps_its_folder(make: Make, quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "1.5")
    found = sweep.run(make(space={RATE: [0.001, 0.1]}, sampler="grid", pruner="asha", parallel=1), quiet)
    assert states(found) == ["finished", "pruned"]
    assert found.trials[1].value is None and found.best == 0
    run = runs.open_run("try-0001")
    assert run.state == "stopped" and len(run.metrics()) < 8


def test_each_worker_has_its_gpu(make: Make, quiet: Quiet, started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.3")
    most = 0

    def running(trials: list[sweep.Trial]) -> None:
        nonlocal most
        most = max(most, len(trials))

    quiet.on_running = running
    sweep.run(make(gpus=["0", "3"], trials=4), quiet)
    assert most == 2
    assert {one["gpu"] for one in started()} == {"0", "3"}


def test_a_changed_space_or_recipe_is_refused_with_what_differs(make: Make, quiet: Quiet, home: Path) -> None:
    sweep.run(make(trials=1), quiet)
    with pytest.raises(LlmbenchError, match=r"started with something else \(seed: 0 -> 7\)"):
        sweep.run(make(trials=1, seed=7), quiet)
    with pytest.raises(LlmbenchError, match=r"recipe\.training\.max_steps: 4 -> 3"):
        sweep.run(make(trials=1, overrides={"training.max_steps": 3}), quiet)
    (home / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 30)
    with pytest.raises(LlmbenchError, match=r"data\..*rows\.jsonl"):
        sweep.run(make(trials=1), quiet)


def test_two_sweeps_of_one_name_at_once_are_refused(make: Make, quiet: Quiet) -> None:
    with (
        workspace.lock(workspace.sweeps() / "try", "sweep"),
        pytest.raises(LlmbenchError, match="sweep try is in use by process"),
    ):
        sweep.run(make(), quiet)


def test_a_run_that_is_somebody_elses_is_left_alone(make: Make, quiet: Quiet) -> None:
    folder = workspace.runs() / "try-0001"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"state": "finished", "created": 1.0, "reason": ""}')
    with pytest.raises(LlmbenchError, match="Run try-0001 already exists and is not of this sweep"):
        sweep.run(make(), quiet)
    assert sorted(path.name for path in folder.iterdir()) == ["state.json"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": {"lora.rr": [1, 2]}}, r"lora\.rr=1: lora\.rr is not a field\. Did you mean r\?"),
        ({"space": {"lora.r": [8, -1]}}, r"lora\.r=-1"),
        ({"objective": "eval_exact_match"}, r"objective: eval_exact_match is not measured by .* \(available: eval_loss, "),
        ({"pruner": "asha", "overrides": {"training.eval_steps": None}}, "pruner: asha judges trials at their evaluations"),
        ({"confirm": {"questions": "rows.jsonl"}}, r"confirm\.questions: goes with an objective of answers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_anything_is_written(
    make: Make, quiet: Quiet, home: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        sweep.run(make(**fields), quiet)
    assert list((home / "outputs").iterdir()) == []


def test_a_winner_is_confirmed_on_rows_that_no_trial_saw(make: Make, quiet: Quiet, home: Path, started: Started) -> None:
    evaluation = {"evaluation.limit": 40}
    spec = make(confirm={"rows": 0.2, "seeds": 2}, objective="eval_exact_match", overrides=evaluation, trials=4)
    found = sweep.run(spec, quiet)
    assert found.claim is not None and found.claim.seen == "held out"
    assert (found.claim.seeds, found.claim.looks, found.claim.winner) == (2, 1, found.best)
    assert found.claim.difference is not None and found.claim.difference.n == 40
    names = [one["run"] for one in started()][4:]
    assert sorted(names) == sorted(f"try-{which}-s{seed}" for which in ("own", f"{found.best:04}") for seed in (1, 2))
    trained = (found.folder / "data" / "train-0.jsonl").read_text().splitlines()
    away = (found.folder / "data" / "held-out-0.jsonl").read_text().splitlines()
    assert sorted(trained + away) == sorted((home / "rows.jsonl").read_text().splitlines()) and 20 < len(away) < 60
    tried, confirmed = runs.open_run("try-0001").recipe, runs.open_run("try-own-s1").recipe
    assert (
        tried["data"]["train"][0]["path"]
        == confirmed["data"]["train"][0]["path"]
        == str(found.folder / "data" / "train-0.jsonl")
    )
    assert (
        confirmed["data"]["eval"][0]["path"] == str(found.folder / "data" / "held-out-0.jsonl") and tried["data"]["eval"] == []
    )
    assert confirmed["training"]["seed"] == tried["training"]["seed"] + 1
    assert sweep.run(spec, quiet).claim == found.claim
    assert len(started()) == 8, "nothing is trained twice"


def test_a_question_file_may_come_later_and_rows_may_not(make: Make, quiet: Quiet, home: Path, started: Started) -> None:
    asked = [{"question": f"What is {i}?", "answer": str(i)} for i in range(40)]
    (home / "held-out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    fields: dict[str, Any] = {"objective": "eval_exact_match", "overrides": {"evaluation.limit": 40}, "trials": 3}
    sweep.run(make(**fields), quiet)
    with pytest.raises(LlmbenchError, match=r"confirm: None -> \{'rows': 0\.2"):
        sweep.run(make(**fields, confirm={"rows": 0.2}), quiet)
    found = sweep.run(make(**fields, confirm={"questions": "held-out.jsonl", "seeds": 1}), quiet)
    assert found.claim is not None and found.claim.seen == "held out"
    asked_of = [runs.open_run(f"try-{number:04}").recipe["evaluation"]["questions"] for number in range(3)]
    assert asked_of == [None] * 3
    assert runs.open_run("try-own-s1").recipe["evaluation"]["questions"] == str(home / "held-out.jsonl")
    (home / "held-out.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 2)
    with pytest.raises(LlmbenchError, match=r"confirm\.questions\."):
        sweep.run(make(**fields, confirm={"questions": "held-out.jsonl", "seeds": 1}), quiet)
    own, better = dict(fields["overrides"]), {"evaluation.questions": str(home / "held-out.jsonl")}
    with pytest.raises(RecipeError, match="of its questions stand in evaluation"):
        sweep.run(make(**fields | {"overrides": own | better}, confirm={"questions": "held-out.jsonl"}), quiet)


def test_a_second_winner_is_a_second_look_at_what_was_put_away(make: Make, quiet: Quiet) -> None:
    fields: dict[str, Any] = {"confirm": {"rows": 0.2, "seeds": 2}, "sampler": "grid", "space": {RATE: [0.1, 0.02, 0.001]}}
    first = sweep.run(make(**fields, trials=2), quiet)
    assert first.claim is not None and (first.claim.winner, first.claim.looks) == (1, 1)
    assert any("2 seeds cannot show a difference, 6 can" in note for note in first.notes)
    second = sweep.run(make(**fields, trials=3), quiet)
    assert second.claim is not None and (second.claim.winner, second.claim.looks) == (2, 2)
    again = sweep.run(make(**fields, trials=3), quiet)
    assert again.claim == second.claim, "the same winner is no further look"
    assert [one.run for one in again.confirmations].count("try-own-s1") == 1


def test_answers_that_were_removed_are_named(make: Make, quiet: Quiet) -> None:
    fields: dict[str, Any] = {"confirm": {"rows": 0.2, "seeds": 1}, "sampler": "grid", "space": {RATE: [0.1, 0.001]}}
    spec = make(**fields, objective="eval_exact_match", overrides={"evaluation.limit": 40})
    sweep.run(spec, quiet)
    runs.remove(runs.open_run("try-own-s1"))
    with pytest.raises(LlmbenchError, match=r"Run try-own-s1 was removed.*Remove .*0000\.json too") as told:
        sweep.run(spec, quiet)
    (workspace.sweeps() / "try" / "confirm" / "0000.json").unlink()
    assert "0000.json" in str(told.value) and sweep.run(spec, quiet).claim is not None


def test_a_confirmation_that_failed_says_how_it_is_trained_again(make: Make, quiet: Quiet) -> None:
    spec = make(confirm={"rows": 0.2, "seeds": 1}, sampler="grid", space={RATE: [0.1, 0.001]})
    found = sweep.run(spec, quiet)
    path = found.folder / "confirm" / "0000.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"state": "failed", "value": None, "reason": "CUDA out of memory"})
    )
    with pytest.raises(LlmbenchError, match=r"run try-own-s1: CUDA out of memory\. .*llmbench runs rm try-own-s1") as told:
        sweep.run(spec, quiet)
    assert f"remove {path} and" in str(told.value)
    path.unlink()
    runs.remove(runs.open_run("try-own-s1"))
    assert sweep.run(spec, quiet).claim == found.claim


def test_a_winner_that_is_the_recipe_as_it_stands_is_not_confirmed(make: Make, quiet: Quiet, started: Started) -> None:
    found = sweep.run(make(space={RATE: [0.01, 0.1]}, confirm={"rows": 0.2}), quiet)
    assert (found.best, found.claim, len(started())) == (0, None, 2)
    assert any("nothing to confirm" in note for note in found.notes)


def test_without_a_confirmation_the_claim_is_corrected_for_all_trials(make: Make, quiet: Quiet) -> None:
    found = sweep.run(
        make(objective="eval_exact_match", overrides={"evaluation.limit": 40}, space={RATE: [1e-2, 1e-3, 1e-4]}), quiet
    )
    assert found.claim is not None and (found.claim.seen, found.claim.looks, found.claim.better) == ("searched", 2, True)
    assert any("too good" in note for note in found.notes)


def start(home: Path, *more: str, seconds: str = "0.4") -> subprocess.Popen[str]:
    environment = os.environ | {"FAKE_SECONDS": seconds}
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP.format(trainer=str(TRAINER)), str(home / "sweep.yaml"), *more],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def trains(name: str) -> bool:
    run = runs.Run(workspace.runs() / name)
    return run.exists and run.holder is not None and len(run.metrics()) > 0


def test_after_a_kill_the_training_goes_on_and_is_taken_over(make: Make, home: Path, quiet: Quiet, started: Started) -> None:
    spec = make(trials=2, overrides={"training.max_steps": 12})
    first = start(home)
    wait_for(lambda: trains("try-0000"))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert trains("try-0000"), "it outlives the sweep"
    found = sweep.run(spec, quiet)
    assert states(found) == ["finished"] * 2
    assert [one["run"] for one in started()] == ["try-0000", "try-0001"], "none is started twice"


def test_one_that_was_killed_with_its_sweep_is_continued(make: Make, home: Path, quiet: Quiet, started: Started) -> None:
    spec = make(trials=1, overrides={"training.max_steps": 6})
    first = start(home)
    wait_for(lambda: trains("try-0000"))
    os.kill(first.pid, signal.SIGKILL)
    os.kill(started()[0]["pid"], signal.SIGKILL)
    first.communicate()
    assert json.loads((workspace.sweeps() / "try" / "trials" / "0000.json").read_text())["state"] == "running"
    found = sweep.run(spec, quiet)
    assert states(found) == ["finished"]
    assert [one["resume"] for one in started()] == [False, True]


def test_ctrl_c_stops_the_trainings_with_checkpoints_and_the_same_command_continues(
    make: Make, home: Path, quiet: Quiet, started: Started
) -> None:
    spec = make(trials=2, overrides={"training.max_steps": 12}, parallel=2)
    first = start(home)
    wait_for(lambda: trains("try-0000") and trains("try-0001"))
    first.send_signal(signal.SIGINT)
    _, printed = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "0 of 2 trainings are done, and checkpoints are saved. Run the same command again to continue." in printed
    for name in ("try-0000", "try-0001"):
        run = runs.open_run(name)
        assert (run.state, run.status["reason"]) == ("stopped", "interrupted")
    assert states(sweep.run(spec, quiet)) == ["finished"] * 2
    assert [one["resume"] for one in started()] == [False, False, True, True]


def test_time_that_is_over_stops_what_trains_and_it_may_be_raised(
    make: Make, quiet: Quiet, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.run(make(trials=1), quiet)
    monkeypatch.setenv("FAKE_SECONDS", "20")
    found = sweep.run(make(trials=3, timeout=0.5), quiet)
    assert any("The time (0.5 s) was over" in note for note in found.notes)
    assert [one.number for one in found.trials] == [0]
    assert runs.open_run("try-0001").state == "stopped"
    monkeypatch.setenv("FAKE_SECONDS", "0")
    assert len(sweep.run(make(trials=3), quiet).trials) == 3
    assert [(one["run"], one["resume"]) for one in started()[1:]] == [
        ("try-0001", False), ("try-0001", True), ("try-0002", False),
    ]  # fmt: skip


def test_removing_keeps_the_runs_and_foreign_files(make: Make, quiet: Quiet) -> None:
    found = sweep.run(make(trials=1, confirm={"rows": 0.2, "seeds": 2}), quiet)
    for mine in ("mine.txt", "data/train-0-mine.jsonl"):
        (found.folder / mine).write_text("mine")
        with pytest.raises(LlmbenchError, match=rf"files that llmbench did not write \({mine}\)"):
            sweep.remove("try")
        assert sweep.load("try").trials == found.trials
        (found.folder / mine).unlink()
    sweep.remove("try")
    assert not found.folder.exists()
    assert runs.open_run("try-0000").state == "finished"
    with pytest.raises(LlmbenchError, match="There is no sweep try"):
        sweep.remove("try")
