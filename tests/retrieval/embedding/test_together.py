"""Queries of several threads in one batch: the real embedder's vectors, and who computes, waits and fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbench.errors import LlmbenchError
from llmbench.retrieval.embedding import Embedder, Together


class Held:
    """Computes the lengths of texts, the first time only once it is let go; notes the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.release = threading.Event(), threading.Event()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        self.begun.set()
        self.release.wait(30)
        if "bad" in texts:
            raise LlmbenchError("bad text")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def _waiting(together: Together, held: Held, others: Sequence[Sequence[str]], pool: ThreadPoolExecutor) -> list[object]:
    """Asks for one text, and for others while it is computed; what each was given."""
    first = pool.submit(together, ["a"])
    assert held.begun.wait(30)
    later = [pool.submit(together, texts) for texts in others]
    while len(together._waiting) < len(others):
        threading.Event().wait(0.001)
    held.release.set()
    return [one.exception(30) or one.result().tolist() for one in [first, *later]]


def test_vectors_of_a_batch_are_those_of_each_text_alone(embedder: Embedder) -> None:
    texts = [f"How heavy is camera {n}{' with its lens' * (n % 5)}?" for n in range(40)]
    together = Together(embedder.embed_queries)
    with ThreadPoolExecutor(40) as pool:
        found = np.concatenate(list(pool.map(lambda text: together([text]), texts)))
    alone = np.concatenate([embedder.embed_queries([text]) for text in texts])
    assert np.abs(found - alone).max() < 1e-5


def test_what_comes_while_one_is_computed_is_one_batch() -> None:
    held = Held()
    with ThreadPoolExecutor(8) as pool:
        found = _waiting(Together(held), held, [["bb", "ccc"], ["dddd"], ["e"]], pool)
    assert found == [[[1]], [[2], [3]], [[4]], [[1]]]
    assert held.batches[0] == ["a"] and sorted(held.batches[1]) == ["bb", "ccc", "dddd", "e"] and len(held.batches) == 2


def test_a_batch_is_bounded_and_one_request_is_never_divided() -> None:
    held = Held()
    with ThreadPoolExecutor(8) as pool:
        found = _waiting(Together(held), held, [["x"] * 40, ["y"] * 40, ["z"] * 100], pool)
    assert [len(one) for one in found] == [1, 40, 40, 100]  # type: ignore[arg-type]
    assert sorted(len(batch) for batch in held.batches) == [1, 40, 40, 100]


def test_a_text_that_cannot_be_embedded_fails_alone() -> None:
    held = Held()
    together = Together(held)
    with ThreadPoolExecutor(8) as pool:
        found = _waiting(together, held, [["bb"], ["bad"], ["dddd"]], pool)
        assert found[:2] == [[[1]], [[2]]] and isinstance(found[2], LlmbenchError) and found[3] == [[4]]
        assert together(["ff"]).tolist() == [[2]]  # and nothing stands still afterwards


def test_a_thread_that_is_interrupted_leaves_nobody_waiting() -> None:
    held = Held()

    def interrupted(texts: Sequence[str]) -> NDArray[np.float32]:
        if texts == ["stop"]:
            raise KeyboardInterrupt
        return held(texts)

    together = Together(interrupted)
    with pytest.raises(KeyboardInterrupt):
        together(["stop"])
    held.release.set()
    assert together(["bb"]).tolist() == [[2]]
