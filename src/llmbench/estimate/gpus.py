"""GPUs by what their makers state; a name as nvidia-smi writes it finds one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from llmbench.errors import LlmbenchError

__all__ = ["Gpu", "every", "find", "named"]

_OTHERS = {"laptop", "mobile", "mig", "nvl", "max"}
"""Words of names whose chip is another one, or a part of one."""
_VARIANTS = {"ti", "super", "d"}
"""Words after a number that make it another GPU: an RTX 3080 Ti is no RTX 3080."""


@dataclass(frozen=True)
class Gpu:
    """One GPU, alone: what several do together is not known here."""

    name: str
    memory: int
    """Bytes."""
    bandwidth: int
    """Bytes a second between its memory and its cores."""
    bf16: int
    """Dense matrix products in bfloat16, accumulated in float32, FLOP/s."""
    fp8: int | None
    """In eight-bit floats; None where it multiplies none."""
    source: str
    """Where the figures were read."""


@cache
def every() -> tuple[Gpu, ...]:
    """All that are known, from the smallest memory to the largest."""
    read = json.loads((files("llmbench.estimate") / "gpus.json").read_text(encoding="utf-8"))
    return tuple(sorted((Gpu(**one) for one in read["gpus"]), key=lambda gpu: (gpu.memory, gpu.bf16)))


def find(text: str) -> Gpu | None:
    """The GPU that a text names, such as `NVIDIA A100-SXM4-40GB` or `rtx 4090`; None where the table has none by it."""
    words = set(re.findall(r"[a-z0-9]+", text.lower()))
    named = [gpu for gpu in every() if _words(gpu) <= words and words & _VARIANTS <= _words(gpu)]
    if not named or words & _OTHERS:
        return None
    return max(named, key=lambda gpu: len(_words(gpu)))


def named(text: str) -> Gpu:
    """The GPU that somebody asks for.

    Raises:
        LlmbenchError: the table has none by this name.
    """
    found = find(text)
    if found is None:
        names = ", ".join(gpu.name for gpu in every())
        raise LlmbenchError(f"--hardware {text}: not in the table of GPUs. Known are {names}; `this` measures this machine.")
    return found


def _words(gpu: Gpu) -> set[str]:
    """`RTX 4070 Ti SUPER` -> 4070, ti, super."""
    return set(re.findall(r"[a-z0-9]+", gpu.name.lower())) - {"rtx"}
