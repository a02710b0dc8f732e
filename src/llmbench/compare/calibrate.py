"""Holds a finished comparison's judges against people's labels, and writes what both say in place of the judges' opinion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from llmbench import workspace
from llmbench.compare import judging
from llmbench.compare.judging.labels import Label, current
from llmbench.compare.result import Comparison
from llmbench.compare.run import load
from llmbench.errors import DataError, MissingPackage

__all__ = ["calibrate"]


def calibrate(name: str, read: Callable[[Comparison], Sequence[Label]]) -> Comparison:
    """The comparison with its labels, on disk too; nobody is asked.

    Args:
        name: of a finished comparison with a judge.
        read: makes labels of it.

    Raises:
        DataError: it has no judge, the labels cannot be used, or are too few.
        LlmbenchError: there is no such comparison, or another process is writing it.
    """
    if find_spec("scipy") is None:
        raise MissingPackage("judge", "scipy", "compare")
    from llmbench.compare.judging.calibration import calibrated
    from llmbench.compare.report import html

    comparison = load(name)
    if comparison.judges is None:
        raise DataError(f"{name} was compared without a judge. Give its recipe one (judge: {{model: ...}}) and compare again.")
    labels, _ = current(read(comparison), comparison)
    if not labels:
        raise DataError(f"{name}: none of the labels is of an answer that it has now. Label its answers as they are.")
    with workspace.lock(comparison.folder, "comparison"):
        found = judging.again(comparison)
        made = calibrated(comparison, found, labels, comparison.judges["metric"])
        made = judging.opined(made, found)
        judging.write_labels(comparison.folder, labels)
        workspace.write_text(made.report, html(made))
        workspace.write_json(made.summary, made.to_json())
    return made
