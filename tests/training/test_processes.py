"""Several processes train what one trains: the same rows in each step, the same losses, one run; or it is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.errors import LlmbenchError, RecipeError, RunError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training.distributed import deal, launch, ranks, report
from llmbench.training.distributed.ranks import Ranks

from .conftest import Write

STEPS = (
    "training.per_device_train_batch_size=3", "training.gradient_accumulation_steps=4", "training.max_steps=6",
    "training.eval_steps=3", "data.eval_fraction=0.1", "model.dtype=float32",
)  # fmt: skip
"""36 rows in 12 batches: with 5 of them left out, an epoch ends with a step of three, of which one process has one."""
PLANTED = """
import os, sys
if "llmbench" in sys.argv[0] or "-m" in sys.argv or "RANK" in os.environ:
    import importlib.abc, importlib.util
    class _Planted(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name != {module!r}:
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            run = spec.loader.exec_module
            def patched(module):
                run(module)
                exec({code!r}, vars(module))
            spec.loader.exec_module = patched
            return spec
    sys.meta_path.insert(0, _Planted())
"""
"""A sitecustomize that changes one module of every process when it is imported: a fault, planted."""


def command(recipe: TrainRecipe, *more: str) -> list[str]:
    return [sys.executable, "-m", "llmbench", "train", str(recipe.source), *more]


def trained(recipe: TrainRecipe, *more: str, plant: tuple[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`llmbench train` as a user starts it, in the test's own outputs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if plant is not None:
        folder = recipe.source.parent / "planted"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(PLANTED.format(module=plant[0], code=plant[1]), encoding="utf-8")
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment.get("PYTHONPATH", "")])
    return subprocess.run(command(recipe, *more), capture_output=True, text=True, env=environment, timeout=300, check=False)


def figures(run: Run) -> list[float]:
    """Every loss, held-out loss and gradient norm of a run, and the tokens."""
    names = ("loss", "grad_norm", "eval_loss", "tokens")
    return [float(row[name]) for row in run.metrics() for name in names if name in row]


def one(recipe: TrainRecipe) -> Run:
    run = runs.create(recipe)
    training.train(recipe, run)
    return run


def renamed(recipe: TrainRecipe, name: str) -> TrainRecipe:
    return recipe.model_copy(update={"name": name})


def same(recipe: TrainRecipe, overrides: tuple[str, ...], *more: str) -> Run:
    """Trains a recipe with one process here and with two by the command line; their losses are the same."""
    alone = one(renamed(recipe, "alone"))
    done = trained(recipe, *overrides, "--processes", "2", *more)
    assert done.returncode == 0, done.stderr
    together = runs.open_run(recipe.name)
    assert figures(together) == pytest.approx(figures(alone), rel=1e-4)
    assert together.state == "finished" and together.status["processes"] == 2
    return together


def test_two_processes_train_what_one_trains(write: Write) -> None:
    settings = (*STEPS, "data.train.0.limit=37")
    run = same(write("together", *settings), settings, "--json")
    assert (run.adapter / "adapter_model.safetensors").exists()
    assert run.status["strategy"] == "ddp"


@pytest.mark.parametrize(
    "more",
    [
        ("training.padding_free=false", "training.max_tokens_per_batch=160"),
        ("training.packing=true", "training.per_device_train_batch_size=1"),
        ("training.gradient_checkpointing=true", "training.max_grad_norm=0.1", "training.eval_on_start=true"),
    ],
    ids=["padded", "packed", "recomputed"],
)
def test_however_rows_are_batched(write: Write, more: tuple[str, ...]) -> None:
    settings = (*STEPS, *more)
    same(write("batched", *settings), settings)


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_gpus_train_what_one_trains(write: Write, strategy: str) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    settings = (*STEPS, "model.device=cuda", f"distributed.strategy={strategy}")
    recipe = write("gpus", *STEPS, "model.device=cuda")
    alone = one(renamed(recipe, "alone"))
    done = trained(recipe, *settings, "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert figures(runs.open_run("gpus")) == pytest.approx(figures(alone), rel=1e-3)


PLANTS = {
    "unwrapped": (
        "llmbench.training.distributed.wrap",
        "def wrapped(accelerator, model, spec):\n    return accelerator.prepare_model(model, evaluation_mode=True)",
        "strategy: ddp asked, none found",
    ),
    "tokens": (
        "llmbench.training.methods.arguments",
        "whole = arguments\ndef arguments(job, run):\n    return whole(job, run) | {'average_tokens_across_devices': False}",
        "loss over the tokens of: all processes asked, each process found",
    ),
    "batch": (
        "llmbench.training.methods.arguments",
        "whole = arguments\ndef arguments(job, run):\n    return whole(job, run) | {'gradient_accumulation_steps': 4}",
        "batches a step: 4 asked, 8 found",
    ),
    "apart": (
        "llmbench.training.distributed.wrap",
        "whole = wrapped\ndef wrapped(accelerator, model, spec):\n"
        "    import torch.distributed as dist\n    made = whole(accelerator, model, spec)\n"
        "    next(p for p in model.parameters() if p.requires_grad).data += dist.get_rank()\n    return made",
        "different models among the processes: 1 asked, 2 found",
    ),
    "trainers": (
        "llmbench.training.methods.arguments",
        "import os\nwhole = arguments\ndef arguments(job, run):\n    os.environ.pop('LOCAL_RANK')\n"
        "    os.environ.pop('WORLD_SIZE')\n    return whole(job, run)",
        "processes that accelerate counts: 2 asked, 1 found",
    ),
    "alone": (
        "llmbench.training.distributed.ranks",
        "def started_by_torchrun():\n    return False",
        "2 processes were asked for, and this one was started alone",
    ),
}
"""What was seen to go wrong without any error, each done on purpose: the module, what it is made to do, and what is said."""


@pytest.mark.parametrize("fault", PLANTS)
def test_what_is_not_as_asked_is_refused_before_the_first_step(write: Write, fault: str) -> None:
    module, code, said = PLANTS[fault]
    done = trained(write("planted", *STEPS), *STEPS, "--processes", "2", plant=(module, code))
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not list(runs.open_run("planted").folder.glob("adapter")) if fault != "alone" else True


# One process, and no training


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("rows", [1, 40, 47, 48])
def test_each_step_has_the_rows_that_it_has_with_one_process(write: Write, world: int, rows: int) -> None:
    from llmbench.training.loop.batches import Batches

    recipe = write("dealt", "training.gradient_accumulation_steps=12", "training.per_device_train_batch_size=2")
    lengths = [3 + row % 5 for row in range(rows)]
    alone = list(Batches(lengths, recipe))
    shares = [list(Batches(lengths, recipe, ranks=Ranks(rank, world))) for rank in range(world)]
    slots = 12 // world
    assert len({len(share) for share in shares}) == 1, "a process that takes more turns would wait for ever"
    for step in range(-(-len(alone) // 12)):
        dealt = [batch for share in shares for batch in share[step * slots : (step + 1) * slots] if batch]
        assert sorted(dealt) == sorted(alone[step * 12 : (step + 1) * 12])
    held_out = [list(Batches(lengths, recipe, train=False, ranks=Ranks(rank, world))) for rank in range(world)]
    assert sorted(row for share in held_out for batch in share for row in batch) == list(range(rows))
    assert len({len(share) for share in held_out}) == 1


@pytest.mark.parametrize("packed", [True, False])
def test_a_turn_without_rows_teaches_nothing_and_counts_nothing(write: Write, packed: bool) -> None:
    from llmbench.training.loop.batches import Collator

    batch = Collator(write("empty", f"training.padding_free={packed}"), 7)([])
    assert int((batch["labels"] != -100).sum()) == 0 and int(batch["attention_mask"].sum()) == 0


def test_a_batch_that_does_not_go_round_is_refused_with_one_that_does(write: Write) -> None:
    with pytest.raises(RecipeError) as found:
        deal.check(write("odd", "training.per_device_train_batch_size=8", "training.gradient_accumulation_steps=1"), 2)
    assert "training.per_device_train_batch_size=4 training.gradient_accumulation_steps=2 (the same 8 rows a step)" in str(
        found.value
    )
    with pytest.raises(RecipeError, match="gradient_accumulation_steps=6"):
        deal.check(write("budget", "training.max_tokens_per_batch=900", "training.gradient_accumulation_steps=4"), 3)
    with pytest.raises(RecipeError, match="grpo trains with one process"):
        deal.check(write("grpo").model_copy(update={"method": "grpo"}), 2)


def test_the_batch_of_a_step_is_told_over_all_processes(write: Write) -> None:
    recipe = write("told", "training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=4")
    assert deal.words(recipe, 1) == "16 rows a step (4 batches of 4)"
    assert deal.words(recipe, 2) == "16 rows a step (4 batches of 4, 2 for each of 2 processes by ddp)"
    assert deal.words(write("packed", "training.packing=true"), 1) == "up to 512 tokens a step (1 batch of 4 x 128)"


def test_several_machines_meet_at_one_place() -> None:
    given = launch.torchrun(launch.Nodes(8, 4, "node-1:29400"), ["train", "recipe.yaml"])
    assert given[:4] == ["--nnodes", "4", "--nproc-per-node", "8"]
    assert given[given.index("--rdzv-endpoint") + 1] == "node-1:29400" and "--standalone" not in given
    assert given[-3:] == ["llmbench", "train", "recipe.yaml"]
    assert "--standalone" in launch.torchrun(launch.Nodes(2), ["train"])


def test_machines_without_a_place_to_meet_are_refused() -> None:
    from llmbench.cli import several

    assert several.machines(1, 1, None) is None
    for nodes, rendezvous in ((2, None), (2, "node-1"), (1, "node-1:29400")):
        with pytest.raises(RunError, match="--rendezvous"):
            several.machines(2, nodes, rendezvous)


def test_a_process_that_is_alone_where_others_were_asked_for_does_not_train(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `accelerate launch --cpu --num_processes 2` starts one."""
    monkeypatch.setenv(ranks.ASKED, "2")
    with pytest.raises(LlmbenchError, match="2 processes were asked for, and this one was started alone"):
        training.prepare(write("alone"))


ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "killed": (
        {"failed.json": {"1": -9, "0": 1}, "error-0.json": ("crash", "Connection closed by peer")},
        "Process 2 of 2 was kil",
    ),
    "told": ({"failed.json": {"0": 2}, "error-0.json": ("told", "rows.jsonl:3: no such")}, "rows.jsonl:3: no such"),
    "crashed": (
        {
            "failed.json": {"0": 1, "1": 1},
            "error-0.json": ("crash", "RuntimeError: Connection closed by peer"),
            "error-1.json": ("crash", "ZeroDivisionError: division by zero"),
        },
        "Process 2 of 2 failed (ZeroDivisionError",
    ),
    "silent": ({"failed.json": {"1": 3}, "log-1": "one\nlast words\n"}, "last words"),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_first_fault_is_told_in_one_line(tmp_path: Path, end: str) -> None:
    files, said = ENDS[end]
    for number, (name, content) in enumerate(files.items()):
        if isinstance(content, tuple):
            kind, message = content
            content = {"rank": int(name[6]), "kind": kind, "message": message, "time": number}
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(LlmbenchError) as found:
        launch._outcome(tmp_path, 1, 2, asked=[])
    assert said in str(found.value) and "\n" not in str(found.value)


def test_what_ends_a_process_is_written_for_the_one_that_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(report.FOLDER, str(tmp_path))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(report, "die_with_parent", lambda: None)
    with pytest.raises(SystemExit) as code, report.reporting():
        raise RecipeError("recipe.yaml:3: wrong")
    assert code.value.code == 2
    [told] = report.errors(tmp_path)
    assert (told["rank"], told["kind"], told["message"]) == (0, "told", "recipe.yaml:3: wrong")
    assert report.processes(tmp_path) == {0: os.getpid()}
    with report.reporting():
        raise KeyboardInterrupt(report.STOPPED)
    assert (tmp_path / "stopped").exists()


def slurm_script(write: Write, tmp_path: Path, *more: str) -> str:
    recipe = write("on-slurm", *STEPS)
    done = subprocess.run(
        command(recipe, *STEPS, "--emit", "slurm", *more), capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    script = tmp_path / "on-slurm.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    return script.read_text(encoding="utf-8")


def test_a_slurm_script_starts_one_program_a_machine_that_meet_at_the_first(write: Write, tmp_path: Path) -> None:
    text = slurm_script(write, tmp_path, "--processes", "2", "--nodes", "2")
    for line in ("#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=1", "#SBATCH --gpus-per-node=2", "#SBATCH --requeue"):
        assert f"{line}\n" in text
    [srun] = [line for line in text.split("\n") if line.startswith("srun ")]
    assert '--processes 2 --nodes 2 --rendezvous "$head:$port" "${resume[@]}" &' in srun
    assert all(setting in srun for setting in STEPS)
    with pytest.raises(AssertionError, match="already exists"):
        slurm_script(write, tmp_path, "--processes", "2", "--nodes", "2")
    assert "--rendezvous" not in slurm_script(write, tmp_path, "--processes", "2", "--overwrite")


def test_the_slurm_script_trains_and_resumes_where_srun_is_a_shell(write: Write, tmp_path: Path) -> None:
    """Slurm's commands stood in for by four lines each; llmbench is a word that is written down."""
    slurm_script(write, tmp_path, "--processes", "4", "--nodes", "1")
    tools = {
        "scontrol": 'if [ "$1" = show ]; then echo node-7; echo node-8; fi', "srun": 'shift; exec "$@"',
        "llmbench": 'echo "$@" >> said', "scancel": "true",
    }  # fmt: skip
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node-[7-8]",
        "LLMBENCH_HOME": str(tmp_path / "home"),
    }  # fmt: skip
    for _ in range(2):
        subprocess.run(["bash", "on-slurm.sbatch"], cwd=tmp_path, env=environment, check=True)
        (tmp_path / "home/runs/on-slurm").mkdir(parents=True, exist_ok=True)
        (tmp_path / "home/runs/on-slurm/state.json").write_text("{}", encoding="utf-8")
    first, second = (tmp_path / "said").read_text(encoding="utf-8").strip().split("\n")
    assert first.startswith("train ") and first.endswith("--processes 4") and second == f"{first} --resume"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"quantization": {}}, "divides unquantised parameters"),
        ({"adapter": {"type": "ia3"}, "lora": None}, "use ddp with adapter.type ia3"),
        ({"training": {"optim": "muon"}, "lora": None}, "muon makes orthogonal"),
        ({"training": {"torch_compile": True}}, "leave training.torch_compile out"),
    ],
)
def test_what_cannot_be_in_parts_is_refused_when_the_recipe_is_read(write: Write, more: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        write("parts", distributed={"strategy": "fsdp2"}, **more)


def test_one_process_does_not_pretend_to_be_in_parts(write: Write) -> None:
    with pytest.raises(RecipeError, match="start several with --processes"):
        training.prepare(write("parts", distributed={"strategy": "fsdp2"}))
