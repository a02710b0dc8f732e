"""A training by two processes: one is killed, both are stopped, it goes on with another number, and parts become a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbench import recipe as recipes
from llmbench import runs, workspace
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run, checkpoints
from llmbench.training.distributed import report

from .conftest import Write
from .test_processes import command, figures, one, renamed, trained

LONG = (
    "training.per_device_train_batch_size=3", "training.gradient_accumulation_steps=4", "training.max_steps=16",
    "training.save_steps=3", "training.save_total_limit=9", "model.dtype=float32",
)  # fmt: skip
WITHIN = 60
"""Seconds; the others have 5 to end by themselves, and two cores may be busy."""


class Training:
    """`llmbench train --processes 2`, which is looked at while it runs."""

    def __init__(self, recipe: TrainRecipe, folder: Path, *more: str) -> None:
        folder.mkdir()
        self.run, self.folder = Run(workspace.runs() / recipe.name), folder
        self.program = subprocess.Popen(
            command(recipe, *more, "--processes", "2"),
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def at(self, step: int) -> None:
        """Waits until a checkpoint of this step or a later one is there."""
        end = time.monotonic() + 200
        while not any(checkpoints.step_of(path) >= step for path in checkpoints.every(self.run.checkpoints)):
            assert self.program.poll() is None and time.monotonic() < end
            time.sleep(0.05)

    def process(self, rank: int) -> int:
        [place] = self.folder.glob("llmbench-ranks-*")
        return report.processes(place)[rank]

    def ended(self) -> tuple[int, str]:
        """Exit code and words, once all processes are gone."""
        [place] = self.folder.glob("llmbench-ranks-*")
        processes = report.processes(place).values()
        _, said = self.program.communicate(timeout=WITHIN)
        for process in processes:
            with pytest.raises(ProcessLookupError):
                os.kill(process, 0)
        return self.program.returncode, said


@pytest.fixture
def begun(write: Write, tmp_path: Path) -> Iterator[Training]:
    made = Training(write("ended", *LONG), tmp_path / "ranks", *LONG)
    yield made
    made.program.kill()
    made.program.wait()
    if made.program.stderr is not None:
        made.program.stderr.close()


def nothing_half(run: Run) -> None:
    assert not list(run.folder.rglob("*.part")) and all(
        checkpoints.fault(path) is None for path in checkpoints.every(run.checkpoints)
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on_as_if_it_had_not(begun: Training, write: Write, rank: int) -> None:
    begun.at(6)
    os.kill(begun.process(rank), signal.SIGKILL)
    code, said = begun.ended()
    assert code == 2 and f"Process {rank + 1} of 2 was killed (SIGKILL)" in said
    nothing_half(begun.run)
    assert begun.run.state == "failed" and "was killed" in begun.run.status["reason"]

    recipe = write("ended", *LONG)
    straight = one(renamed(recipe, "straight"))
    done = trained(recipe, *LONG, "--resume", *(["--processes", "2"] if rank else []))
    assert done.returncode == 0, done.stderr
    assert figures(begun.run) == pytest.approx(figures(straight), rel=1e-3), "whichever number goes on"


def test_ctrl_c_stops_both_after_a_step_with_a_checkpoint(begun: Training) -> None:
    begun.at(3)
    begun.program.send_signal(signal.SIGINT)
    code, said = begun.ended()
    assert code == 130 and "--resume --processes 2" in said
    assert begun.run.state == "stopped"
    assert checkpoints.step_of(checkpoints.every(begun.run.checkpoints)[-1]) == begun.run.status["step"]


def test_runs_stop_stops_both(begun: Training) -> None:
    begun.at(3)
    begun.run.stop()
    assert begun.ended()[0] == 130 and begun.run.state == "stopped"


def test_a_killed_llmbench_leaves_no_process(begun: Training) -> None:
    begun.at(3)
    processes = [begun.process(rank) for rank in (0, 1)]
    begun.program.kill()
    end = time.monotonic() + WITHIN
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < end
        time.sleep(0.1)
    nothing_half(begun.run)


def test_a_model_in_parts_trains_and_merges_to_what_one_process_makes(write: Write) -> None:
    """Half of each parameter a process; the best step is put together from its checkpoint, and the last rows too."""
    from llmbench.training.merging.merge import merge

    settings = (
        "training.per_device_train_batch_size=3", "training.gradient_accumulation_steps=4", "training.max_steps=9",
        "training.learning_rate=0.05", "training.eval_steps=3", "training.save_steps=3", "data.eval_fraction=0.1",
        "training.load_best_model_at_end=true", "model.dtype=float32",
    )  # fmt: skip
    recipe = write("parts", *settings)
    alone = one(renamed(recipe, "alone"))
    done = trained(recipe, *settings, "distributed.strategy=fsdp2", "--processes", "2")
    assert done.returncode == 0, done.stderr
    together = runs.open_run("parts")
    assert figures(together) == pytest.approx(figures(alone), rel=1e-3)
    assert together.status["kept_step"] == alone.status["kept_step"]
    from safetensors.torch import load_file

    whole, parts = (load_file(run.adapter / "adapter_model.safetensors") for run in (alone, together))
    assert {name: part.shape for name, part in parts.items()} == {name: one.shape for name, one in whole.items()}
    merged = []
    for run in (alone, together):
        merged.append(load_file(merge(run).folder / "model.safetensors"))
    for name, value in merged[0].items():
        assert (merged[1][name].float() - value.float()).abs().max() < 2e-3, name


def test_parts_that_are_stopped_go_on_with_one_process(write: Write, tmp_path: Path) -> None:
    recipe = write("ended", *LONG)
    begun = Training(recipe, tmp_path / "ranks", *LONG, "distributed.strategy=fsdp2")
    begun.at(6)
    os.kill(begun.process(1), signal.SIGKILL)
    assert begun.ended()[0] == 2
    straight = one(renamed(recipe, "straight"))
    done = trained(recipe, *LONG, "--resume")
    assert done.returncode == 0, done.stderr
    assert figures(begun.run) == pytest.approx(figures(straight), rel=1e-3)
    assert recipes.load(recipe.source, TrainRecipe).distributed.strategy == "ddp"


def test_two_machines_meet_and_train_what_one_process_trains(write: Write) -> None:
    """Two programs on this machine, each as if on its own, with one process each."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    recipe = write("machines", *LONG)
    straight = one(renamed(recipe, "straight"))
    meet = ("--nodes", "2", "--rendezvous", f"127.0.0.1:{port}")
    other = subprocess.Popen(
        command(recipe, *LONG, *meet), env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    )
    done = trained(recipe, *LONG, *meet)
    said, _ = other.communicate(timeout=200)
    assert done.returncode == other.returncode == 0, done.stderr
    assert (done.stdout + said).count("Adapter: ") == 1, "the machine of the first process says how it went"
    assert figures(runs.open_run("machines")) == pytest.approx(figures(straight), rel=1e-4)


def test_ray_train_trains_what_one_process_trains(write: Write) -> None:
    pytest.importorskip("ray")
    recipe = write("ray", *LONG)
    straight = one(renamed(recipe, "straight"))
    done = trained(recipe, *LONG, "--processes", "2", "--engine", "ray")
    assert done.returncode == 0, done.stderr
    assert "(RayTrainWorker" not in done.stderr + done.stdout and "step 16/16" in done.stderr
    assert figures(runs.open_run("ray")) == pytest.approx(figures(straight), rel=1e-4)


def test_a_fault_in_a_ray_worker_is_told_in_one_line(write: Write) -> None:
    pytest.importorskip("ray")
    done = trained(write("ray", *LONG), *LONG, "data.max_length=8", "--processes", "2", "--engine", "ray")
    assert done.returncode == 2 and done.stderr.strip().count("\n") == 0 and "max_length" in done.stderr
