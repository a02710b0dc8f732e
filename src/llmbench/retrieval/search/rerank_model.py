"""Where a reranker's model is, whether it is one, and how it is loaded: safetensors only, no code of its own."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.recipe import RerankSpec
from llmbench.retrieval.embedding import PACKAGED
from llmbench.retrieval.embedding import locate as locate_embedder
from llmbench.retrieval.search.windows import Offsets

__all__ = ["load", "locate"]

WANTED = ["*.json", "*.txt", "*.model", "*.safetensors", "artifact.metadata", "*.jinja"]
REFUSED = ["onnx/*", "openvino/*"]


def locate(spec: RerankSpec) -> Path:
    """The folder of a model: the packaged one, a folder, the hub's cache, or the hub itself.

    Raises:
        LlmbenchError: it is nowhere, has weights other than safetensors, or is not of the kind that the recipe says.
    """
    name = spec.model_name_or_path
    short = PACKAGED[0]
    given = Path(name).expanduser()
    if name in (short, f"sentence-transformers/{short}"):
        folder = locate_embedder(name, spec.revision)
    elif given.is_dir():
        folder = given.resolve()
    else:
        folder = _from_hub(name, spec.revision)
    if not (folder / "config.json").is_file():
        raise LlmbenchError(f"reranker {name}: not a model (no config.json in {folder}). Choose another folder.")
    for weights in (*folder.rglob("*.bin"), *folder.rglob("*.pt"), *folder.rglob("*.pth")):
        if not list(weights.parent.glob("*.safetensors")):
            raise LlmbenchError(f"{weights}: is a pickle, which can run code; a reranker's weights must be safetensors.")
    if not list(folder.glob("*.safetensors")):
        raise LlmbenchError(f"reranker {name}: no safetensors weights in {folder}. Choose another.")
    if spec.kind == "cross-encoder" and not _is_cross_encoder(folder):
        raise LlmbenchError(
            f"reranker {name}: not a cross-encoder: it has no trained output ({_architecture(folder)}). Choose another "
            f"model, or set kind: late-interaction."
        )
    return folder


def load(spec: RerankSpec, folder: Path, *, gpu: bool) -> tuple[Any, Offsets]:
    """The model in sentence-transformers' own class, and the places of a text's tokens."""
    try:
        with _quiet():
            from sentence_transformers.util import get_device_name

            device = get_device_name() if gpu else "cpu"
            model = _late(folder, device) if spec.kind == "late-interaction" else _cross(folder, device)
    except ImportError as error:
        raise MissingPackage("search", error.name or "sentence-transformers", "rag") from error
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LlmbenchError(f"reranker {spec.model_name_or_path} cannot be loaded from {folder}: {reason}") from error
    if spec.kind == "cross-encoder" and model.num_labels != 1:
        raise LlmbenchError(
            f"reranker {spec.model_name_or_path}: has {model.num_labels} outputs; a reranker has one. Choose another."
        )
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise LlmbenchError(f"reranker {spec.model_name_or_path} has no tokenizer.json. Choose another.")
    # A copy of its own: sentence-transformers sets truncation and padding on the original with every call.
    own = type(tokenizer).from_str(tokenizer.to_str())
    own.no_truncation()
    own.no_padding()
    return model, lambda text: [start for start, _ in own.encode(text, add_special_tokens=False).offsets]


def _cross(folder: Path, device: str) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device=device, local_files_only=True, trust_remote_code=False)


def _late(folder: Path, device: str) -> Any:
    """A ColBERT checkpoint as it was trained; a plain model's last layer, without a projection that nobody trained."""
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    given: dict[str, Any] = {"device": device, "local_files_only": True}
    if _is_late(folder):
        return MultiVectorEncoder(str(folder), trust_remote_code=False, **given)
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    plain = SentenceTransformer(str(folder), trust_remote_code=False, **given)
    modules = [plain[0], MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    prompts = {role: prompt for role, prompt in plain.prompts.items() if prompt}
    return MultiVectorEncoder(modules=modules, prompts=prompts, device=device)


def _is_late(folder: Path) -> bool:
    kind = _read(folder / "config_sentence_transformers.json").get("model_type")
    return kind in ("ColBERT", "MultiVectorEncoder") or "HF_ColBERT" in _architecture(folder)


def _is_cross_encoder(folder: Path) -> bool:
    """A head that nobody trained would be filled with chance without a word, so the files must say that there is one."""
    kind = _read(folder / "config_sentence_transformers.json").get("model_type")
    return kind == "CrossEncoder" or _architecture(folder).endswith(("ForSequenceClassification", "ForCausalLM"))


def _architecture(folder: Path) -> str:
    named = _read(folder / "config.json").get("architectures") or ["no architecture named"]
    return str(named[0])


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise LlmbenchError(f"{file}: cannot be read as JSON ({type(error).__name__}).") from error
    return document if isinstance(document, dict) else {}


def _from_hub(name: str, revision: str | None) -> Path:
    """A model of the hub by name: from the cache, else fetched; never with pickled weights or code."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingPackage("search", "huggingface-hub", "rag") from error
    full = name if "/" in name else f"cross-encoder/{name}"
    for offline in (True, False):
        try:
            return Path(
                snapshot_download(
                    full, revision=revision, local_files_only=offline, allow_patterns=WANTED, ignore_patterns=REFUSED
                )
            )
        except Exception as error:
            if offline and not os.environ.get("HF_HUB_OFFLINE"):
                continue
            lines = str(error).strip().splitlines() or [""]
            raise LlmbenchError(
                f"reranker {name} is neither a folder nor in the hub's cache, and could not be downloaded "
                f"({type(error).__name__}: {lines[0][:150]}). Name a folder, or all-MiniLM-L6-v2 with kind: late-interaction."
            ) from error
    raise AssertionError("unreachable")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the libraries say while loading away from the user: deprecations of theirs, a bar for 0.2 s of work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging as bars

        bars.disable_progress_bar()  # type: ignore[no-untyped-call]
        yield
