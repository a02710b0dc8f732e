"""A language model in ONNX, asked with onnxruntime: next-token logits, with the keys and values of what it has read.

The graph has the inputs and outputs that Optimum gives a causal language model: `input_ids`, `attention_mask`, `position_ids`,
`past_key_values.N.key` and `.value`; `logits`, `present.N.key` and `.value`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import LlmbenchError, MissingPackage

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GRAPH", "Cache", "OnnxModel"]

GRAPH = "model.onnx"
_CONFIG = "config.json"
_PAST, _PRESENT = "past_key_values.", "present."

Cache = list["np.ndarray"]
"""Keys and values by turns, layer after layer: each (1, heads, tokens read, width)."""


class OnnxModel:
    """The graph of a folder, on the CPU."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        """Loads the graph.

        Args:
            folder: with `model.onnx`, its weights and `config.json`.
            threads: that compute one product; None is onnxruntime's own number, one a core.

        Raises:
            MissingPackage: onnxruntime is not installed.
            LlmbenchError: a file is missing or damaged, or the graph is none of a causal language model.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPackage("serve", "onnxruntime", "onnx") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self._path = path = folder / GRAPH
        if not path.is_file():
            raise LlmbenchError(f"{folder} has no {GRAPH}. Make one: llmbench export RUN --format onnx")
        self.config = _config(folder)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's ten kinds of errors have no class of their own above them
            raise LlmbenchError(f"{path} cannot be loaded ({_first_line(error)}). Export it again") from error
        self._past = [one for one in self._session.get_inputs() if one.name.startswith(_PAST)]
        outputs = {one.name: one for one in self._session.get_outputs()}
        self._outputs = ["logits", *(one.name.replace(_PAST, _PRESENT) for one in self._past)]
        if not self._past or not outputs.keys() >= set(self._outputs):
            raise LlmbenchError(
                f"{path} is not a causal language model with a KV cache. Export one: llmbench export RUN --format onnx"
            )
        width = outputs["logits"].shape[-1]
        self.vocabulary = width if isinstance(width, int) else int(self.config["vocab_size"])
        """How many tokens it knows: ids go from 0 up to this, and not to it."""
        self.stops = _stops(folder, self.config)
        """The tokens that end an answer."""

    @property
    def context(self) -> int:
        """Tokens that it can read and write together.

        Raises:
            LlmbenchError: config.json does not say.
        """
        found = self.config.get("max_position_embeddings")
        if not isinstance(found, int):
            raise LlmbenchError(f"{self._path.parent / _CONFIG}: max_position_embeddings is missing. Export it again")
        return found

    def start(self) -> Cache:
        """The cache of a model that has read nothing."""
        import numpy as np

        return [np.zeros((1, int(one.shape[1]), 0, int(one.shape[3])), np.float32) for one in self._past]

    def read(self, ids: Sequence[int], cache: Cache) -> tuple[np.ndarray, Cache]:
        """Reads tokens after those of a cache.

        Args:
            ids: the tokens, at least one.
            cache: of what was read before; it stays as it is.

        Returns:
            Logits of the token behind each of `ids`, (tokens, vocabulary) in float32, and the cache with them.

        Raises:
            LlmbenchError: onnxruntime cannot compute the graph.
        """
        import numpy as np

        read = cache[0].shape[2]
        feed = {
            "input_ids": np.asarray([ids], np.int64),
            "attention_mask": np.ones((1, read + len(ids)), np.int64),
            "position_ids": np.arange(read, read + len(ids), dtype=np.int64)[None],
            **{one.name: values for one, values in zip(self._past, cache, strict=True)},
        }
        try:
            logits, *present = self._session.run(self._outputs, feed)
        except Exception as error:  # as in __init__
            raise LlmbenchError(f"{self._path} failed while it was computed ({_first_line(error)}). Export it again") from error
        return logits[0], present

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The likeliest token after tokens, `count` times or until one of `stops`, which is the last then."""
        logits, cache = self.read(ids, self.start())
        written: list[int] = []
        while True:
            written.append(int(logits[-1].argmax()))
            if len(written) == count or written[-1] in self.stops:
                return written
            logits, cache = self.read(written[-1:], cache)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LlmbenchError(f"{folder / _CONFIG} cannot be read ({_first_line(error)}). Export it again") from error
    if not isinstance(found, dict):
        raise LlmbenchError(f"{folder / _CONFIG} is not a JSON object. Export it again")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _stops(folder: Path, config: dict[str, Any]) -> frozenset[int]:
    try:
        given = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    except (OSError, ValueError, KeyError, TypeError):
        given = config.get("eos_token_id")
    return frozenset(given if isinstance(given, list) else [] if given is None else [int(given)])
