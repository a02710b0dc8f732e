"""Ray Train in torchrun's place: `python -m llmbench.training.distributed.ray_agent WORLD cpu|cuda COMMAND...`.

Ray finds room for the workers on its cluster (that of RAY_ADDRESS, else one on this machine) and ends all when one fails. Each
worker starts the same process as torchrun would and waits for it, so that Ctrl-C, checkpoints and faults are the same.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from llmbench import workspace
from llmbench.training.distributed import report

__all__ = ["main"]

_TICK = 0.2
_WORKER = re.compile(r"^(?:\x1b\[\d+m)?\(RayTrainWorker pid=\d+[^)]*\)(?:\x1b\[0m)? ?")


class _Words(io.TextIOBase):
    """Of all that Ray prints, what the training's processes said, as they said it."""

    def __init__(self, to: TextIO) -> None:
        self.to, self.begun, self.over = to, "", False

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            found = _WORKER.match(line)
            self.over = self.over or line.endswith("Error in training function:")  # Ray's words from here on; ours are told
            if found and not self.over:
                print(line[found.end() :], file=self.to, flush=True)
        return len(text)


def main(world: int, device: str, command: list[str]) -> int:
    """Runs the command in so many workers; returns the exit code: 0, 1 where one failed, 3 where Ray did."""
    report.die_with_parent()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported home
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    place = Path(os.environ[report.FOLDER])
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    elsewhere = "RAY_ADDRESS" in os.environ
    local: dict[str, Any] = {} if elsewhere else {"num_cpus": world + 1}
    errors = sys.stderr
    sys.stdout = sys.stderr = _Words(errors)
    ray.init(log_to_driver=True, include_dashboard=False, configure_logging=True, logging_level=logging.CRITICAL, **local)
    logging.disable(logging.CRITICAL)
    passed = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
    storage = tempfile.mkdtemp(prefix=".ray-", dir=workspace.home() if elsewhere else place)  # where all machines see it
    trainer = DataParallelTrainer(
        _work,
        train_loop_config={"command": command, "folder": str(Path.cwd()), "environment": passed},
        scaling_config=ScalingConfig(num_workers=world, use_gpu=device == "cuda", resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=0)),
    )
    try:
        trainer.fit()
    except Exception as error:
        codes = {path.name.removeprefix("code-"): int(path.read_text()) for path in place.glob("code-*")}
        (place / "failed.json").write_text(json.dumps(codes), encoding="utf-8")
        (place / "ray-said").write_text(str(error), encoding="utf-8")
        return 1 if codes else 3
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
        sys.stdout, sys.stderr = sys.__stdout__, errors
    return 0


_PASSED = ("LLMBENCH_", "HF_", "TRANSFORMERS_", "OMP_", "GLOO_", "NCCL_", "PYTHON", "TMPDIR", "PATH")
"""Beginnings of the variables that a worker's process is given."""


def _work(config: dict[str, Any]) -> None:
    """One worker: starts its process and waits for it. Runs where Ray says, and imports there."""
    import socket
    import time

    import ray
    from ray import train
    from ray.train.collective import broadcast_from_rank_zero

    here = train.get_context()
    with socket.socket() as free:
        free.bind(("", 0))
        own = [ray.util.get_node_ip_address(), free.getsockname()[1]]  # type: ignore[no-untyped-call]
    host, port = broadcast_from_rank_zero(own)
    ranks = {
        "RANK": here.get_world_rank(), "LOCAL_RANK": here.get_local_rank(), "WORLD_SIZE": here.get_world_size(),
        "LOCAL_WORLD_SIZE": here.get_local_world_size(), "MASTER_ADDR": host, "MASTER_PORT": port,
    }  # fmt: skip
    environment = {**os.environ, **config["environment"], **{name: str(value) for name, value in ranks.items()}}
    place = Path(environment[report.FOLDER])
    if not place.exists():  # on another machine, where nobody reads it
        del environment[report.FOLDER]
    gpus = environment.get("CUDA_VISIBLE_DEVICES", "")
    if gpus and gpus.count(",") == 0:
        environment["LOCAL_RANK"] = "0"  # Ray shows each worker its own GPU alone
    child = subprocess.Popen([sys.executable, "-m", "llmbench", *config["command"]], cwd=config["folder"], env=environment)
    try:
        while (code := child.poll()) is None:
            time.sleep(_TICK)
    finally:
        if child.poll() is None:
            child.terminate()
    if code:
        if place.exists():
            (place / f"code-{ranks['RANK']}").write_text(str(code), encoding="utf-8")
        raise RuntimeError(f"process {ranks['RANK']} ended with exit code {code}")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
