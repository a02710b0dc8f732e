"""Training: one recipe in, one run folder with an adapter (or a model) out."""

import logging

# Said by every import of bitsandbytes on a CPU with bfloat16: a faster kernel is on the hub. It is a choice, not a fault.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from llmbench.training.job import Job, prepare, train  # noqa: E402
from llmbench.training.plan import lines as method_lines  # noqa: E402

__all__ = ["Job", "method_lines", "prepare", "train"]
