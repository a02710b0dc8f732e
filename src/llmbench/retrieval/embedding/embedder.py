"""The embedder: texts to vectors, with the model's own prompts, window and pooling, by whatever backend serves best here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Literal, Protocol

from llmbench import scan
from llmbench.errors import LlmbenchError
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import canaries, fingerprint, probe
from llmbench.retrieval.embedding.contract import Contract
from llmbench.retrieval.embedding.general import General
from llmbench.retrieval.embedding.light import Light, batches, layout, load
from llmbench.retrieval.embedding.locate import locate
from llmbench.retrieval.embedding.probe import Choice
from llmbench.retrieval.embedding.tokens import Reading, Tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Dtype", "Embedder", "Embeds"]

Dtype = Literal["float32", "bfloat16", "float16", "int8"]


class Embeds(Protocol):
    """The seam: tests may pass anything that has it."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (n, dim), each of length 1; a text's vector does not depend on its neighbours."""
        ...


class Embedder:
    """A sentence-transformers model. Safe to use from several threads, which take turns.

    `fingerprint` changes when any file does that could change a vector. `dtype` is the precision, known once it is loaded.

    Raises:
        LlmbenchError: the model is not here and cannot be fetched, or it is not a sentence-transformers model.
    """

    def __init__(
        self,
        spec: EmbedderSpec,
        *,
        dtype: Dtype | None = None,
        gpu: bool = False,
        like: Contract | None = None,
        queries: bool = False,
    ) -> None:
        """Finds the model; does not load it.

        Args:
            spec: the recipe's section.
            dtype: how it computes; None is the recipe's precision.
            gpu: whether to use a GPU where there is one.
            like: the contract of an index whose vectors are to be met again.
            queries: whether only queries come: what opens soonest is then taken before what has the highest throughput.
        """
        self.spec = spec
        self.dtype: str | None = dtype
        self._gpu, self._like, self._queries = gpu, like, queries
        self.folder = locate(spec.model_name_or_path, spec.revision)
        scan.folder(self.folder)
        self.fingerprint = fingerprint.of_folder(self.folder)
        self.layout = layout.read(self.folder)
        self.query_prefix = self.layout.prompt("query") if spec.query_prefix is None else spec.query_prefix
        own = self.layout.prompt("document", "passage", "corpus")
        self.document_prefix = own if spec.document_prefix is None else spec.document_prefix
        self.max_tokens = self._window()
        self._lock, self._tokens_lock = threading.RLock(), threading.Lock()
        self._choice: Choice | None = None
        self._light: Light | None = None
        self._general: General | None = None
        self._tokens: Tokens | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (n, dim), float32, length 1, in the order of the texts, which are taken as they stand.

        Texts longer than the window are cut at its end.
        """
        return self._embed(texts, "", None)

    def embed_documents(
        self, texts: Sequence[str], tokens: Sequence[int] | None = None, *, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        """As `embed`, each text after the prefix of documents.

        Args:
            texts: the passages.
            tokens: each one's length in tokens, where it is known, by which they are put into batches; else their characters
                are counted.
            stop: looked at before each batch.

        Raises:
            CancelledError: `stop` was set.
        """
        return self._embed(texts, self.document_prefix, tokens, stop)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `embed`, each text after the prefix of queries."""
        return self._embed(texts, self.query_prefix, None)

    def stream_documents(self, texts: Iterable[str], block: int = batches.BLOCK) -> Iterator[NDArray[np.float32]]:
        """The vectors of any number of passages, `block` of them at a time, in order; holds no more than a block."""
        source = iter(texts)
        while some := list(islice(source, block)):
            yield self.embed_documents(some)

    @property
    def dim(self) -> int:
        """The length of a vector; a plain encoder is not loaded to tell it."""
        if self.layout.light is None and self.layout.width is not None:
            return self.spec.truncate_dim or self.layout.width
        with self._lock:
            self._load()
            return self.spec.truncate_dim or self._width()

    @property
    def special_tokens(self) -> int:
        """How many special tokens are put around a text."""
        return self._tokenizer().special

    def starts(self, text: str) -> list[int]:
        """The character at which each token of a text begins, special tokens left out. Waits for no computing."""
        return self._tokenizer().starts(text)

    def reading(self, text: str) -> Reading:
        """How much of a text its vocabulary knows. Waits for no computing."""
        return self._tokenizer().reading(text)

    def load(self) -> None:
        """Loads the model now rather than at the first text.

        Raises:
            LlmbenchError: no backend gives vectors that hold.
        """
        with self._lock:
            self._load()

    @property
    def choice(self) -> Choice:
        """What computes; loads the model."""
        with self._lock:
            return self._load()

    @cached_property
    def contract(self) -> Contract:
        """What the vectors depend on, canaries among it: the work of some ten passages."""
        return replace(self.promise, canaries=canaries.pack(self.embed(canaries.TEXTS)))

    @property
    def promise(self) -> Contract:
        """The contract without canaries; a plain encoder is not loaded for it."""
        found = self._choice or self._candidates()[0]
        return Contract(
            model=self.spec.model_name_or_path,
            fingerprint=self.fingerprint,
            pooling=self.layout.pooling,
            normalize=True,
            query_prefix=self.query_prefix,
            document_prefix=self.document_prefix,
            window=self.max_tokens,
            truncate_dim=self.spec.truncate_dim,
            dim=self.dim,
            backend=found.backend,
            precision=found.precision,
        )

    def check_canaries(self, stored: Contract) -> str:
        """What differs between a stored contract's canaries and this embedder's vectors of them; empty when nothing does."""
        return self.contract.drift(stored)

    def _window(self) -> int:
        """The recipe's window, else the model's; never more than it has positions for.

        Raises:
            LlmbenchError: the recipe asks for more.
        """
        asked, known = self.spec.max_seq_length, self.layout
        if known.light is not None:
            return asked or known.window
        most = int(known.config.get("max_position_embeddings") or known.window) - known.first_position
        if asked is not None and asked > most:
            name = self.spec.model_name_or_path
            raise LlmbenchError(f"embedder {name}: max_seq_length is {asked}, and the model has {most} positions. Lower it.")
        return min(asked or known.window, most)

    def _tokenizer(self) -> Tokens:
        with self._tokens_lock:
            if self._tokens is None:
                self._tokens = Tokens(self.layout, self.max_tokens)
            return self._tokens

    def _candidates(self) -> list[Choice]:
        return probe.candidates(
            self.spec,
            self.layout,
            device=probe.device(self._gpu),
            precision=self.dtype,
            like=self._like,
            queries=self._queries,
        )

    def _load(self) -> Choice:
        """Takes the first candidate whose vectors hold. Called under the lock."""
        if self._choice is not None:
            return self._choice
        cosine = 0.0
        found = self._candidates()
        for choice in found:
            self._open(choice)
            cosine = probe.check(choice, self.fingerprint, lambda: self._raw(canaries.TEXTS, "", None), self._reference)
            if cosine >= probe.BOUND[choice.precision]:
                self._choice, self.dtype = choice, choice.precision
                self._refuse_dim()
                return choice
        raise LlmbenchError(
            f"embedder {self.spec.model_name_or_path}: {choice.backend} in {choice.precision} gives vectors at cosine "
            f"{cosine:.4f} to float32's, under {probe.BOUND[choice.precision]}. Use backend: torch, precision: float32."
        )

    def _open(self, choice: Choice) -> None:
        """Loads what computes."""
        self._light = self._general = None
        if not choice.light:
            name, window = self.spec.model_name_or_path, self.spec.max_seq_length
            self._general = General(self.folder, name, choice.device, choice.precision, window, self.spec.batch_size)
            return
        self._light = load(
            self.layout, self.fingerprint, backend=choice.backend, precision=choice.precision, device=choice.device
        )

    def _reference(self) -> NDArray[np.float32]:
        """The canaries' vectors by sentence_transformers in float32."""
        spec = self.spec
        model = General(self.folder, spec.model_name_or_path, "cpu", "float32", spec.max_seq_length, spec.batch_size)
        return model.encode(canaries.TEXTS)

    def _width(self) -> int:
        """How many values a vector has before it is cut; known once the model is loaded."""
        width = self._general.width if self._general is not None else self.layout.width
        assert width is not None
        return width

    def _refuse_dim(self) -> None:
        name, asked, width = self.spec.model_name_or_path, self.spec.truncate_dim, self._width()
        if asked is not None and asked > width:
            raise LlmbenchError(f"embedder {name}: truncate_dim is {asked}, and vectors have {width}. Lower it.")

    def _embed(
        self, texts: Sequence[str], prefix: str, sizes: Sequence[int] | None, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors, cut to truncate_dim first."""
        import numpy as np

        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        with self._lock:
            self._load()
            vectors = self._raw(texts, prefix, sizes, stop)
        vectors = np.ascontiguousarray(vectors[:, : self.spec.truncate_dim])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise LlmbenchError(f"embedder {self.spec.model_name_or_path}: some vectors are not finite. Try another embedder.")
        vectors /= lengths
        return vectors

    def _raw(
        self, texts: Sequence[str], prefix: str, sizes: Sequence[int] | None, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        """Vectors as the model gives them. Called under the lock."""
        import numpy as np

        if self._general is not None:
            return self._general.encode(texts, prefix, stop)
        assert self._light is not None and self.layout.width is not None
        tokens, light = self._tokenizer(), self._light
        if len(texts) == 1:
            return light.encode(tokens.numbers([prefix + texts[0]]))
        vectors = np.empty((len(texts), self.layout.width), dtype=np.float32)
        budget = min(light.budget, self.spec.batch_size * self.max_tokens)

        def read(block: list[int]) -> list[list[int]]:
            return tokens.numbers([prefix + texts[i] for i in block])

        def compute(part: tuple[list[int], list[list[int]]]) -> None:
            if stop is not None and stop.is_set():
                raise CancelledError
            indices, rows = part
            vectors[indices] = light.encode(rows)

        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(light.workers, initializer=light.enter) as pool:
            for block, rows in _ahead(reader, read, batches.blocks(sizes or [len(text) for text in texts])):
                lengths = [len(row) for row in rows]
                share = max(256, sum(lengths) // light.workers)  # so that a few texts are work for every core
                parts = batches.by_length(lengths, min(budget, share))
                work = [([block[i] for i in part], [rows[i] for i in part]) for part in parts]
                list(pool.map(compute, work)) if light.workers > 1 else list(map(compute, work))
        return vectors


def _ahead(
    reader: ThreadPoolExecutor, read: Callable[[list[int]], list[list[int]]], source: Iterable[list[int]]
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Each block with its token numbers, the next one tokenized while this one is computed."""
    before = None
    for block in source:
        future = reader.submit(read, block)
        if before is not None:
            yield before[0], before[1].result()
        before = (block, future)
    if before is not None:
        yield before[0], before[1].result()
