"""What there is to train on, read without any heavy package."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "bfloat16_pays", "cores", "gpus", "machine", "memory", "processor"]


@dataclass(frozen=True)
class Machine:
    """What there is to train on."""

    device: str
    """`cpu` or `cuda`."""
    cores: int
    memory: int
    """Bytes of host memory that are free now."""
    bfloat16: bool
    """Whether the device multiplies faster in it than in float32."""
    gpu: str | None = None
    gpu_memory: int = 0
    """Bytes of GPU memory that are free now."""


def machine(device: str = "auto") -> Machine:
    """This machine: /proc, and nvidia-smi where there is one."""
    gpu = _gpu() if device in ("auto", "cuda") else None
    _, free = memory() or (0, 0)
    if gpu is None:
        return Machine("cpu", cores(), free, bfloat16_pays())
    return Machine("cuda", cores(), free, bfloat16=True, gpu=gpu[0], gpu_memory=gpu[1])


def bfloat16_pays(cpuinfo: str | None = None) -> bool:
    """Whether this CPU multiplies faster in bfloat16 than in float32: AMD's with AVX512-BF16 do, and all that have AMX.

    Intel's with AVX512-BF16 and without AMX (as many virtual machines show them) do not: products of all-MiniLM-L6-v2's shapes
    ran at 70 to 77 GFLOP/s in bfloat16 and at 105 to 131 in float32, by oneDNN on one shared core of a Xeon. A LoRA training
    read 645 tokens a second in bfloat16 there and 1,060 in float32 (docs/benchmarks.md).

    Args:
        cpuinfo: what /proc/cpuinfo says; None is to read it.
    """
    found = _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    words = set(found.split())
    return "amx_bf16" in words or ("AuthenticAMD" in words and "avx512_bf16" in words)


def processor() -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor, such as `model name` and `flags` (ARM: `Features`); empty without it."""
    first = _read("/proc/cpuinfo").split("\n\n")[0]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def memory() -> tuple[int, int] | None:
    """Bytes of memory in all and free now, for this process: of the machine, or of its control group where that has less.

    None where the kernel does not say. What a group holds of files is not counted as used, as MemAvailable does not.
    """
    lines = [line.split() for line in _read("/proc/meminfo").splitlines()]
    kib = {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
    if not {"MemTotal", "MemAvailable"} <= kib.keys():
        return None
    total, free = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    for folder, limit, used, files in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _read(f"{folder}/{limit}").strip(), _read(f"{folder}/{used}").strip()
        if most.isdigit() and now.isdigit() and int(most) < total:
            held = next((int(n) for name, n in map(str.split, _read(f"{folder}/memory.stat").splitlines()) if name == files), 0)
            total, free = int(most), max(0, min(free, int(most) - int(now) + held))
    return total, free


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gpu() -> tuple[str, int] | None:
    command = ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None
    name, free = said.rsplit(",", 1)
    return name.strip(), int(free) * 2**20


def gpus() -> bool:
    """Whether this machine has an NVIDIA GPU that its driver lists."""
    return _gpu() is not None


def cores() -> int:
    """Cores that this process may keep busy: its affinity, and the quota of its control group."""
    found = len(os.sched_getaffinity(0))
    try:
        quota, period = _read("/sys/fs/cgroup/cpu.max").split()
    except ValueError:
        return found
    return found if quota == "max" else max(1, min(found, round(int(quota) / int(period))))
