"""Memory and processor as the kernel tells them, and the control group's share where that is less."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmbench import hardware

MEMINFO = "MemTotal: 64000 kB\nMemFree: 100 kB\nMemAvailable: 48000 kB\nHugePages_Total: 0\n"
GROUP = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """The files that the kernel shows; others are not there."""
    return lambda files: monkeypatch.setattr(hardware, "_read", lambda path: files.get(path, ""))


@pytest.mark.parametrize(
    ("group", "found"),
    [
        ({}, (64_000, 48_000)),
        (dict(zip(GROUP, ("max\n", "9\n", ""), strict=True)), (64_000, 48_000)),
        (dict(zip(GROUP, (f"{8_000 * 1024}\n", f"{3_000 * 1024}\n", f"anon 5\ninactive_file {1_000 * 1024}\n"), strict=True)),
         (8_000, 6_000)),
        (dict(zip(GROUP, (f"{90_000 * 1024}\n", "9\n", ""), strict=True)), (64_000, 48_000)),
        (dict(zip(GROUP, (f"{8_000 * 1024}\n", f"{9_000 * 1024}\n", ""), strict=True)), (8_000, 0)),
        ({"/sys/fs/cgroup/memory/memory.limit_in_bytes": f"{8_000 * 1024}\n",
          "/sys/fs/cgroup/memory/memory.usage_in_bytes": f"{2_000 * 1024}\n"}, (8_000, 6_000)),
    ],
    ids=["machine", "no-limit", "limit", "limit-above-all", "over", "version-1"],
)  # fmt: skip
def test_a_container_has_the_memory_of_its_group(
    kernel: Callable[[dict[str, str]], None], group: dict[str, str], found: tuple[int, int]
) -> None:
    kernel({"/proc/meminfo": MEMINFO, **group})
    assert hardware.memory() == tuple(size * 1024 for size in found)
    assert hardware.machine("cpu").memory == found[1] * 1024


def test_a_kernel_that_says_nothing(kernel: Callable[[dict[str, str]], None]) -> None:
    kernel({})
    assert hardware.memory() is None and hardware.processor() == {}
    assert hardware.machine("cpu").memory == 0


def test_the_first_processor_is_described(kernel: Callable[[dict[str, str]], None]) -> None:
    kernel({"/proc/cpuinfo": "model name\t: A\nflags\t\t: fpu avx2\n\nmodel name\t: B\n"})
    assert hardware.processor() == {"model name": "A", "flags": "fpu avx2"}
