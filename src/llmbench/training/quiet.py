"""Keeps the libraries' bars, notices and warnings away from the user."""

from __future__ import annotations

import logging
import os
import warnings

__all__ = ["libraries"]


def libraries() -> None:
    """Silences what transformers, datasets, TRL, PEFT and torch say on every start."""
    import datasets  # type: ignore[import-untyped]
    import transformers

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    for name in ("bitsandbytes", "trl", "peft", "accelerate", "torch._inductor", "torch._dynamo", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("torchao", "torch.utils._pytree"):  # where torchao is: which kernels of a GPU it could not load
        logging.getLogger(name).setLevel(logging.ERROR)
    # A checkpoint of a model with more tokens holds its embedding whole, which is right and of no interest.
    warnings.filterwarnings("ignore", message="Setting `save_embedding_layers` to `True`", category=UserWarning)
    # torch's learning-rate schedulers warn about the order of steps when accelerate has wrapped the optimizer.
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step\\(\\).*", category=UserWarning)
    # PEFT leaves out what generation counts, because the vectors before the prompt shift it, and it is right.
    warnings.filterwarnings(
        "ignore", message="Position ids are not supported for parameter efficient tuning", category=UserWarning
    )
