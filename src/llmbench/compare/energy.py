"""The energy that this machine's GPUs used while a comparison asked, where NVIDIA's driver counts it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["EnergyMeter", "NvmlMeter", "used"]

_LIBRARY = "libnvidia-ml.so.1"
_JOULES_IN_WH = 3600.0


class EnergyMeter(Protocol):
    """What counts energy."""

    def joules(self) -> float | None:
        """What was used since some moment in the past; None where nothing counts."""
        ...


class NvmlMeter:
    """All NVIDIA GPUs of this machine together, by NVML's nvmlDeviceGetTotalEnergyConsumption (millijoules; since Volta)."""

    def __init__(self, library: Any = None) -> None:
        """Args:
        library: another one than the driver's, for tests.
        """
        self._library = library
        if library is None:
            try:
                self._library = ctypes.CDLL(_LIBRARY)
            except OSError:
                return
        if self._library.nvmlInit_v2() != 0:
            self._library = None

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        readings = [self._one(number) for number in range(self._count())]
        known = [one for one in readings if one is not None]
        return sum(known) / 1000 if known and len(known) == len(readings) else None

    def _count(self) -> int:
        count = ctypes.c_uint()
        found = self._library is not None and self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
        return count.value if found else 0

    def _one(self, number: int) -> int | None:
        device, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
        if self._library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) != 0:
            return None
        return energy.value if self._library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy)) == 0 else None


def used(before: float | None, after: float | None, answers: int, variants: Sequence[str]) -> tuple[dict[str, Any], str]:
    """What to keep in the summary, and the sentence about it.

    Args:
        before: joules when asking began.
        after: joules when it ended.
        answers: how many came meanwhile.
        variants: whose.
    """
    if before is None or after is None:
        return {}, "Energy was not measured: no NVIDIA driver on this machine counts it."
    if not answers:
        return {}, "Energy was not measured: no answer was asked for this time."
    hours = (after - before) / _JOULES_IN_WH
    who = "all variants together" if len(variants) > 1 else variants[0]
    words = f"While asking, this machine's GPUs used {hours:.3g} Wh: {hours / answers:.3g} Wh per answer, {who}."
    return {"wh": hours, "answers": answers, "wh_per_answer": hours / answers}, words
