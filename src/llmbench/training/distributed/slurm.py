"""The batch script that trains a recipe on a Slurm cluster: one task a machine, torchrun's rendezvous at the first of them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from llmbench.errors import LlmbenchError
from llmbench.training.distributed.launch import Nodes

__all__ = ["script", "write"]

_PORT = 29400
_PORTS = 1000
"""Ports from the first on, of which each job has its own by its number: two jobs may share a machine."""


def script(name: str, where: Nodes, command: Sequence[str], *, gpus: bool) -> str:
    """The script's text.

    Args:
        name: the run's name, which becomes the job's.
        where: how many processes on how many machines.
        command: what stands behind `llmbench`, from `train` on.
        gpus: whether each process has a GPU.
    """
    words = [word for word in command if word not in ("--resume", "--overwrite", "--json")]
    resources = f"#SBATCH --gpus-per-node={where.processes}\n" if gpus else ""
    meet = '--rendezvous "$head:$port" ' if where.nodes > 1 else ""
    many = f"--processes {where.processes} " + (f"--nodes {where.nodes} " if where.nodes > 1 else "")
    return f"""#!/bin/bash
# Trains {name} with {where.world} processes. Look at the lines that begin with #SBATCH, then: sbatch THIS-FILE
# Each machine must see the same outputs (LLMBENCH_HOME) and data. Submitted again, or requeued, it resumes.
#SBATCH --job-name={name}
#SBATCH --nodes={where.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={8 * where.processes}
{resources}#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:INT@120
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.log

set -euo pipefail
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
read -r head <<< "$hosts"
port=$(({_PORT} + SLURM_JOB_ID % {_PORTS}))
resume=()
if [ -e "${{LLMBENCH_HOME:-outputs}}/runs/{name}/state.json" ]; then
    resume=(--resume)
fi

# Two minutes before the time is up Slurm interrupts this script; the training takes its step to the end and saves.
interrupted=
trap 'interrupted=1; scancel --signal=INT "$SLURM_JOB_ID.0"' INT
srun --kill-on-bad-exit=1 llmbench {shlex.join(words)} {many}{meet}"${{resume[@]}}" &
job=$!
code=0
wait "$job" || code=$?
if [ -n "$interrupted" ]; then
    wait "$job" || code=$?
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def write(path: Path, text: str, *, overwrite: bool) -> None:
    """Writes a script.

    Raises:
        LlmbenchError: there is a file of this name, or it cannot be written.
    """
    from llmbench import workspace

    if path.exists() and not overwrite:
        raise LlmbenchError(f"{path} already exists. Replace it with --overwrite, or move it away")
    workspace.write_text(path, text)
    path.chmod(0o755)
