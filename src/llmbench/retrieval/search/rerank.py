"""A second look at the best candidates: query and passage read together, or their tokens held against each other.

`cross-encoder` is a model with one output that reads both texts as one (Nogueira and Cho 2019, arXiv:1901.04085).
`late-interaction` is ColBERT's MaxSim (Khattab and Zaharia 2020, arXiv:2004.12832) divided by the number of query tokens:

    score(q, d) = 1/|q| * sum over i in q of (max over j in d of q_i . d_j)        each q_i and d_j of length 1

so that it is a mean cosine, -1 to 1, and means the same for a short query as for a long one. The token vectors are a
ColBERT checkpoint's own (projected, queries padded as it was trained), or, of a plain sentence-transformers model, those
of its last layer.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import hardware, scan
from llmbench.errors import LlmbenchError
from llmbench.recipe import RerankSpec
from llmbench.retrieval.search.rerank_model import load, locate
from llmbench.retrieval.search.windows import Offsets, windows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Judgement", "Reranker", "maxsim"]

LONGEST = 8192
"""Tokens at most in one reading, whatever a model claims: memory grows with the square."""
TORCH_CLASS = re.compile(r"torch\.nn\.modules\.\w+\.\w+")


@dataclass(frozen=True)
class Judgement:
    """What a reranker made of one query's passages, in their order.

    `scores` is float32 (n,), higher is better. `windows[i]` says in how many overlapping pieces passage i was read, whose
    best gave its score: 1 is whole. `query_cut` says that the model could not read all of the query.
    """

    scores: NDArray[np.float32]
    windows: tuple[int, ...]
    query_cut: bool
    seconds: float


class Reranker:
    """A cross-encoder or a late-interaction model. Safe to use from several threads, which take turns.

    Raises:
        LlmbenchError: the model is not here and cannot be fetched, could run code, or is not of its `kind`.
    """

    def __init__(self, spec: RerankSpec, *, gpu: bool = False) -> None:
        """Finds the model and looks through its folder; does not load it."""
        self.spec = spec
        self.folder = locate(spec)
        scan.folder(self.folder)
        _check_activations(self.folder)
        self._gpu = gpu
        self._lock = threading.Lock()
        self._model: Any = None

    def scores(self, query: str, passages: Sequence[str], *, stop: threading.Event | None = None) -> NDArray[np.float32]:
        """How well each passage answers the query: float32 (n,), higher is better, on the scale that `scale` names.

        Args:
            query: the question.
            passages: what is read with it.
            stop: looked at before each batch.

        Raises:
            LlmbenchError: the model gave a score that is not a number.
            CancelledError: `stop` was set.
        """
        return self.judge(query, passages, stop=stop).scores

    def judge(self, query: str, passages: Sequence[str], *, stop: threading.Event | None = None) -> Judgement:
        """The scores, and what had to be read in pieces or cut for them; arguments and errors are those of `scores`."""
        import numpy as np

        start = time.perf_counter()
        with self._lock:
            model = self._loaded()
            late = self.spec.kind == "late-interaction"
            query, room, cut = self._fit_late(query) if late else self._fit_cross(query)
            pieces = [windows(passage, room, self._offsets) for passage in passages]
            flat = [piece for several in pieces for piece in several]
            raw = self._late(model, query, flat, stop) if late else self._cross(model, query, flat, stop)
        if not np.isfinite(raw).all():
            raise LlmbenchError(f"reranker {self.spec.model_name_or_path}: some scores are not finite. Choose another.")
        best, at = [], 0
        for several in pieces:
            best.append(float(raw[at : at + len(several)].max()))
            at += len(several)
        seconds = time.perf_counter() - start
        return Judgement(np.asarray(best, dtype=np.float32), tuple(len(several) for several in pieces), cut, seconds)

    def measure(self, query: str, passages: Sequence[str]) -> tuple[list[int], bool]:
        """How many tokens it reads for each passage, the query's among them, and whether the query would have to be cut."""
        with self._lock:
            self._loaded()
            _, _, cut = self._fit_late(query) if self.spec.kind == "late-interaction" else self._fit_cross(query)
            asked = len(self._offsets(query))
            return [asked + len(self._offsets(passage)) for passage in passages], cut

    @property
    def scale(self) -> str:
        """What its scores are, in words."""
        if self.spec.kind == "late-interaction":
            return "mean MaxSim, -1 to 1"
        with self._lock:
            name = type(self._loaded().activation_fn).__name__
        match name:
            case "Sigmoid":
                return "probability, 0 to 1"
            case "Identity":
                return "logit, without bounds"
        return f"the model's own ({name})"

    def load(self) -> None:
        """Loads the model now rather than at the first query."""
        with self._lock:
            self._loaded()

    def _cross(self, model: Any, query: str, pieces: list[str], stop: threading.Event | None) -> NDArray[np.float32]:
        import numpy as np

        scores = np.zeros(len(pieces), dtype=np.float32)
        for batch in self._batches(pieces, stop):
            pairs = [(query, pieces[i]) for i in batch]
            scores[batch] = model.predict(pairs, batch_size=len(pairs), show_progress_bar=False)
        return scores

    def _late(self, model: Any, query: str, pieces: list[str], stop: threading.Event | None) -> NDArray[np.float32]:
        import numpy as np

        given = {"batch_size": self.spec.batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        scores = np.zeros(len(pieces), dtype=np.float32)
        if not pieces:
            return scores
        [asked] = model.encode_query([query], **given)
        for batch in self._batches(pieces, stop):
            read = model.encode_document([pieces[i] for i in batch], **given)
            scores[batch] = [maxsim(asked, vectors) for vectors in read]
        return scores

    def _batches(self, pieces: Sequence[str], stop: threading.Event | None) -> Iterator[list[int]]:
        """The numbers of the pieces in batches, the longest first, so that a batch holds little padding."""
        order = sorted(range(len(pieces)), key=lambda i: -len(pieces[i]))
        for at in range(0, len(order), self.spec.batch_size):
            if stop is not None and stop.is_set():
                raise CancelledError
            yield order[at : at + self.spec.batch_size]

    def _fit_cross(self, query: str) -> tuple[str, int, bool]:
        """The query as it will be read, the tokens left for a passage beside it, and whether the query was cut.

        A query may take half of the window.
        """
        window = self._window()
        frame = self._count([("", "")])
        taken, cut = self._count([(query, "")]), False
        if taken - frame > (window - frame) // 2:
            starts, cut = self._offsets(query), True
            query = query[: starts[(window - frame) // 2]].rstrip()
            taken = self._count([(query, "")])
        return query, window - taken, cut

    def _fit_late(self, query: str) -> tuple[str, int, bool]:
        """Queries and passages are read apart, each in its own window."""
        transformer = self._model[0]
        window = min(transformer.document_length or LONGEST, self._window())
        expansion = transformer.query_expansion or {}
        most = min(expansion.get("length") or transformer.query_length or LONGEST, self._window())
        frames = [self._count([self._model.prompts.get(role) or ""]) for role in ("query", "document")]
        return query, window - frames[1], frames[0] + len(self._offsets(query)) > most

    def _window(self) -> int:
        config = getattr(self._model[0].model, "config", None)
        return int(min(self._model.max_seq_length or LONGEST, getattr(config, "max_position_embeddings", LONGEST), LONGEST))

    def _count(self, inputs: list[Any]) -> int:
        """Tokens of one input as the model is given it: special tokens, prompts and templates included."""
        return int(self._model.preprocess(inputs)["attention_mask"].shape[1])

    def _loaded(self) -> Any:
        if self._model is None:
            model, self._offsets = load(self.spec, self.folder, gpu=self._gpu)
            on_gpu = str(model.device).startswith("cuda")
            # bfloat16 only where the hardware multiplies it: elsewhere a CPU emulates it, and is slower.
            self._model = model.bfloat16() if on_gpu or hardware.machine("cpu").bfloat16 else model.float()
        return self._model

    _offsets: Offsets


def maxsim(query: NDArray[np.float32], document: NDArray[np.float32]) -> float:
    """The mean over query tokens of the largest dot product with a token of the document: the formula above.

    Args:
        query: token vectors, (q, dim), each of length 1.
        document: token vectors, (d, dim), each of length 1; one without tokens is as far off as can be, -1.
    """
    if not len(document) or not len(query):
        return -1.0
    return float((query @ document.T).max(axis=1).mean())


def _check_activations(folder: Path) -> None:
    """sentence-transformers imports and calls what a model's files name as activation; only torch's own layers may be."""
    for file in sorted(folder.rglob("*config*.json")):
        for place, name in _activations(json.loads(file.read_text(encoding="utf-8")), ""):
            if not TORCH_CLASS.fullmatch(name):
                raise LlmbenchError(
                    f"{file}: {place} is {name[:60]!r}, which is not a layer of torch.nn. Choose another model."
                )


def _activations(value: Any, place: str) -> list[tuple[str, str]]:
    found = []
    if isinstance(value, dict):
        for key, item in value.items():
            here = f"{place}.{key}" if place else key
            if key in ("activation_fn", "activation_function", "sbert_ce_default_activation_function") and item is not None:
                # Other libraries' own, such as GPT-2's, are plain words that transformers looks up in a table.
                if "." in str(item):
                    found.append((here, str(item)))
            else:
                found += _activations(item, here)
    return found
