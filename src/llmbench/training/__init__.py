"""Training: one recipe in, one run folder with an adapter (or a model) out."""

import logging
import os

# oneDNN and PyTorch's layer over it keep a compiled kernel with its buffers for each of the last 1,024 shapes. Batches differ
# in their number of tokens, so that is memory that only grows. 128 hold what one batch needs: 90 steps of the bundled recipe
# took 2.6 GiB with 1,024 and 1.2 GiB with 128, and were no slower; 16 made a larger model a fifth slower. Both are read once,
# before the first product; whoever has set them is heeded.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "128")

# Said by every import of bitsandbytes on a CPU with bfloat16: a faster kernel is on the hub. It is a choice, not a fault.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from llmbench.training.job import Job  # noqa: E402
from llmbench.training.needs import unquantized  # noqa: E402
from llmbench.training.plan import adapter_lines  # noqa: E402
from llmbench.training.plan import lines as method_lines  # noqa: E402
from llmbench.training.train import first_step, prepare, train  # noqa: E402

__all__ = ["Job", "adapter_lines", "data_report", "first_step", "method_lines", "prepare", "selftest", "train", "unquantized"]
