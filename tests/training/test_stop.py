"""Stopped by Ctrl-C, by kill -9, and by a full disk: what is left is whole, and goes on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests import warm

from llmbench import runs, training
from llmbench.errors import LlmbenchError
from llmbench.runs import Run, checkpoints

from .conftest import Write

LONG = (
    "training.max_steps=100000",
    "training.torch_compile=false",
    "training.save_steps=3",
    "training.lr_scheduler_type=constant",
    "training.warmup_steps=0",
)


def start(recipe: Path, *arguments: str, code: str = warm.LLMBENCH, **more: Any) -> warm.Process:
    return warm.Process("training", code, "train", str(recipe), *arguments, **more)


@contextlib.contextmanager
def ended(process: warm.Process) -> Any:
    """Kills what the test has not ended itself."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_steps(run: Run, count: int, process: warm.Process) -> None:
    end = time.monotonic() + 240
    while len(run.metrics()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(write: Write, home: Path, signal_: signal.Signals) -> None:
    document = write("stopped", *LONG)
    run = Run(home / "runs" / "stopped")
    with ended(start(document.source, *LONG)) as process:
        wait_for_steps(run, 2, process)
        assert run.state == "running"
        process.send_signal(signal_)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"llmbench train {document.source} {' '.join(LONG)} --resume" in err
    assert out.startswith("Run stopped: sft, LoRA r=4")
    assert (run.status["state"], run.status["reason"]) == ("stopped", "interrupted")
    step = run.status["step"]
    checkpoint = run.checkpoints / f"checkpoint-{step}"
    assert json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"] == step
    assert [row["step"] for row in run.metrics()] == list(range(1, step + 1))


def test_a_run_of_another_machine_is_stopped_by_a_word_in_its_folder(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench import workspace
    from llmbench.errors import RunError
    from llmbench.training.loop import record

    monkeypatch.setattr(record, "_STATE_SECONDS", 0.0)
    document = write("afar", "training.save_steps=100")
    run, seen = runs.create(document), []

    def elsewhere(done: int, total: int, figures: str) -> None:
        """At step 3 the folder is as another machine's training has it, and somebody here stops that."""
        if done == 3:
            (run.folder / ".lock").write_text("1 node-7")
            monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process of this machine was signalled"))
            seen.append(run.stop())
            with pytest.raises(RunError, match="already asked"):
                run.stop()

    with pytest.raises(KeyboardInterrupt):
        training.train(document, run, progress=elsewhere)
    assert seen == [workspace.LockHolder(1, "node-7")]
    assert run.state == "stopped" and run.status["step"] == 3 and (run.checkpoints / "checkpoint-3").is_dir()


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(write: Write, home: Path) -> None:
    document = write("killed", *LONG)
    run = Run(home / "runs" / "killed")
    with ended(start(document.source, *LONG)) as process:
        wait_for_steps(run, 5, process)
        process.kill()
        process.communicate(timeout=60)
    assert run.state == "stopped" and run.status["reason"] == "killed"
    before = {row["step"]: row["loss"] for row in run.metrics()}
    again = runs.resume(document)
    with pytest.MonkeyPatch.context() as patch:
        from llmbench.training.loop import record

        last = max(before) + 2
        ask = lambda self, args, state, control, **_: setattr(self.stop, "asked", state.global_step >= last)  # noqa: E731
        patch.setattr(record.Recorder, "on_step_begin", ask)
        with pytest.raises(KeyboardInterrupt):
            training.train(document, again, resume=True)
    rows = run.metrics()
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["step"]: row["loss"] for row in rows}.items() >= before.items()


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "


@pytest.mark.slow
def test_a_disk_that_is_full_is_one_line_and_leaves_nothing_half_written(write: Write, home: Path) -> None:
    """No file may grow past 100 kB: the recipe and the metrics fit, the adapter does not."""
    document = write("full", "training.max_steps=2")
    environment = os.environ | {"MPLCONFIGDIR": str(home)}
    code = LIMITED + warm.LLMBENCH
    with ended(start(document.source, "training.max_steps=2", code=code, env=environment)) as process:
        _, err = process.communicate(timeout=240)
    run = Run(home / "runs" / "full")
    assert process.returncode == 2
    assert "Traceback" not in err
    assert f"{run.folder}: cannot be written (disk full). Free some space, then continue with --resume." in err
    assert run.state == "failed"
    assert not run.adapter.exists()
    assert not [path for path in run.folder.rglob("*") if "part" in path.name or path.name.endswith(".safetensors")]


def test_a_disk_that_fills_up_later_leaves_the_checkpoint_before(write: Write) -> None:
    """From the third step on no file may grow past 100 kB, which ends the writing of the second checkpoint."""
    from llmbench.training.loop import record

    settings = ("training.max_steps=6", "training.save_steps=2")
    whole = write("whole", *settings)
    training.train(whole, runs.create(whole))
    document = write("full", *settings)
    run = runs.create(document)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(recorder: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record.Recorder, "on_step_begin", fill)
            with pytest.raises(
                LlmbenchError, match=r"cannot be written \(disk full\)\. Free some space, then continue with --resume"
            ):
                training.train(document, run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.state == "failed"
    assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-2"]
    assert checkpoints.fault(run.checkpoints / "checkpoint-2") is None
    training.train(document, runs.resume(document), resume=True)
    ours, theirs = (r.adapter / "adapter_model.safetensors" for r in (run, runs.open_run("whole")))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_of_two_trainings_of_one_run_one_trains_and_the_other_says_so(write: Write, home: Path) -> None:
    document = write("twice")
    run = Run(home / "runs" / "twice")
    command = (document.source, "training.max_steps=30", "--overwrite")
    with ended(start(*command)) as first, ended(start(*command)) as second:
        said = [process.communicate(timeout=240)[1] for process in (first, second)]
    codes = sorted(process.returncode for process in (first, second))
    if codes == [0, 2]:
        [refusal] = [text for process, text in zip((first, second), said, strict=True) if process.returncode == 2]
        assert "is training. " in refusal or "is in use by process" in refusal
        assert "Traceback" not in refusal
    else:  # one was over before the other had loaded its model, and was replaced
        assert codes == [0, 0]
    assert run.state == "finished" and (run.adapter / "adapter_model.safetensors").is_file()
    assert [row["step"] for row in run.metrics()] == list(range(1, 31))


def test_the_second_ctrl_c_ends_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    from llmbench.training.loop.record import Stop

    stop = Stop()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        assert "Ctrl-C again stops at once" in capsys.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before


KILLS = int(os.environ.get("LLMBENCH_TEST_KILLS", "3"))
KILLED = (
    "training.max_steps=40", "training.save_steps=1", "training.gradient_accumulation_steps=2", "lora.lora_dropout=0.1",
    "data.eval_fraction=0.2", "training.eval_steps=7", "training.load_best_model_at_end=true",
)  # fmt: skip
"""A checkpoint after each step, so that about every second kill falls into the writing of one."""


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * KILLS)
def test_kills_at_random_moments_change_no_byte_of_the_result(write: Write, home: Path) -> None:
    document = write("killed", *KILLED)
    whole = write("whole", *KILLED)
    training.train(whole, runs.create(whole))
    chance = random.Random(20)
    run = Run(home / "runs" / "killed")
    began = False
    killed: list[int] = []
    while len(killed) < KILLS and not (began and run.state == "finished"):
        before = len(run.metrics()) if began else 0
        with ended(start(document.source, *KILLED, *(["--resume"] if began else []))) as process:
            moment = before + chance.randint(0, 40 // KILLS)
            while process.poll() is None and not (run.folder / "state.json").exists():
                time.sleep(0.01)
            while process.poll() is None and not (run.state == "running" and len(run.metrics()) >= moment):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.2))
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=60)
                killed.append(max((row["step"] for row in run.metrics()), default=0))
            else:
                assert process.returncode == 0, process.communicate()
        began = True
        for path in checkpoints.every(run.checkpoints)[-2:]:
            assert checkpoints.fault(path) is None
    print("killed after steps", killed)
    assert len(killed) == KILLS
    if run.state != "finished":
        training.train(document, runs.resume(document), resume=True)
    ours, theirs = (r.adapter / "adapter_model.safetensors" for r in (run, Run(home / "runs" / "whole")))
    assert ours.read_bytes() == theirs.read_bytes()
    assert run.status["kept_step"] == Run(home / "runs" / "whole").status["kept_step"]
    assert [row["step"] for row in run.metrics() if "loss" in row] == list(range(1, 41))
