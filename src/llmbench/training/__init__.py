"""Training: one recipe in, one run folder with an adapter (or a model) out."""

import atexit
import contextlib
import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbench.training.job import Job
    from llmbench.training.methods.drawing import Drawing, Drawn
    from llmbench.training.needs import unquantized
    from llmbench.training.plan import adapter_lines
    from llmbench.training.plan import lines as method_lines
    from llmbench.training.stages import first_step, prepare, train

__all__ = [
    "Drawing",
    "Drawn",
    "Job",
    "adapter_lines",
    "certifying",
    "data_report",
    "distributed",
    "first_step",
    "method_lines",
    "prepare",
    "ranging",
    "replaying",
    "selftest",
    "train",
    "unquantized",
]

# oneDNN and PyTorch's layer over it keep a compiled kernel with its buffers for each of the last 1,024 shapes. Batches differ
# in their number of tokens, so that is memory that only grows. 128 hold what one batch needs: 90 steps of the bundled recipe
# took 2.6 GiB with 1,024 and 1.2 GiB with 128, and were no slower; 16 made a larger model a fifth slower. Both are read once,
# before the first product; whoever has set them is heeded.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "128")

# Said by every import of bitsandbytes on a CPU with bfloat16: a faster kernel is on the hub. It is a choice, not a fault.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Where DeepSpeed is installed, transformers imports it, and it warns on stdout of what it guessed. What is wrong it raises.
logging.getLogger("DeepSpeed").disabled = True

_FROM = {
    "Drawing": ("methods.drawing", "Drawing"),
    "Drawn": ("methods.drawing", "Drawn"),
    "Job": ("job", "Job"),
    "adapter_lines": ("plan", "adapter_lines"),
    "first_step": ("stages", "first_step"),
    "method_lines": ("plan", "lines"),
    "prepare": ("stages", "prepare"),
    "train": ("stages", "train"),
    "unquantized": ("needs", "unquantized"),
}
"""Where each name stands: PyTorch and TRL, 6 seconds, are imported when one of them is first used."""


def __getattr__(name: str) -> Any:
    """A name of the face, from its module."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, inner = _FROM[name]
    with _uncollected():
        found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), inner)
    return found


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Imports PyTorch and TRL without the garbage collector, and keeps it away from them afterwards.

    It would look through a million objects, none of which ever goes: 1.6 of 11 s of the import, and 0.6 s each time that
    a trainer calls `gc.collect()`.
    """
    if "trl" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()
    atexit.register(gc.unfreeze)  # the packages' own tidying at the end finds them again, and says nothing of leaks
