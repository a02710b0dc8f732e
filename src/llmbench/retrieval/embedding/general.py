"""Every sentence-transformers model that is no plain encoder, by sentence_transformers itself."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.retrieval.embedding.light import batches

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["General"]

_AT_ONCE = 8
"""Batches encoded by one call, so that no call is so long that stopping seems to hang."""


class General:
    """A SentenceTransformer. One thread at a time."""

    def __init__(self, folder: Path, name: str, device: str, precision: str, window: int | None, batch_size: int) -> None:
        """Loads it.

        Raises:
            LlmbenchError: it is not a sentence-transformers model, or is broken.
        """
        self.device, self._batch_size = device, batch_size
        try:
            with quiet():
                from sentence_transformers import SentenceTransformer

                model = SentenceTransformer(str(folder), device=device, local_files_only=True, trust_remote_code=False)
        except ImportError as error:
            raise MissingPackage("index", error.name or "sentence-transformers", "rag") from error
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise LlmbenchError(f"embedder {name} cannot be loaded from {folder}: {reason}") from error
        if window is not None:
            model.max_seq_length = window
        match precision:
            case "bfloat16":
                model = model.bfloat16()
            case "float16":
                model = model.half()
            case _:
                model = model.float()
        self._model: Any = model
        self.width = int(model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str], prompt: str = "", stop: threading.Event | None = None) -> NDArray[np.float32]:
        """Vectors of shape (n, width), in the order of the texts, before any norm of ours."""
        import numpy as np

        order, parts = list[int](), []
        for block in batches.blocks([len(text) for text in texts], _AT_ONCE * self._batch_size):
            if stop is not None and stop.is_set():
                raise CancelledError
            some = [texts[i] for i in block]
            order += block
            parts.append(
                self._model.encode(
                    some, prompt=prompt, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True
                )
            )
        return np.ascontiguousarray(np.concatenate(parts)[np.argsort(order)], dtype=np.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what sentence_transformers and its imports say while loading away from the user.

    `torch.jit.script_method` warns of its deprecation on Python 3.14 wherever it is imported; bitsandbytes logs that an
    optional kernel is absent; transformers draws a bar for 0.2 seconds of work.
    """
    bitsandbytes = logging.getLogger("bitsandbytes")
    level = bitsandbytes.level
    bitsandbytes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers.utils import logging as bars

            bars.disable_progress_bar()  # type: ignore[no-untyped-call]
            yield
    finally:
        bitsandbytes.setLevel(level)
