"""llama.cpp, in a process of its own: what it makes of a GGUF file. An assertion in C ends this process and no other.

    python -m llmbench.exporting.llama.child JOB.json FOLDER

JOB.json says what is asked; FOLDER takes `answer.json` and `logits-N.npy`.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]

_STRING = 3
"""llama.cpp's number for an override that is text."""


def main(job: Path, folder: Path) -> None:
    """Answers one job."""
    asked = json.loads(job.read_text(encoding="utf-8"))
    from ik_llama_cpp import _ctypes_api as llama

    llama.llama_backend_init()
    answer = _names(llama, asked) if "names" in asked else _model(llama, asked, folder)
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _names(llama: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Which of the pre-tokenizers that llama.cpp knows by name reads the texts as wanted; else how near the best comes."""
    best: tuple[int, str] = (-1, "")
    for name in asked["names"]:
        model = _load(llama, asked["model"], vocab_only=True, pre=name)
        if not model:
            continue
        same = sum(
            _tokens(llama, model, text["text"], begins=text["begins"]) == text["ids"] for text in asked["texts"]
        )  # fmt: skip
        llama.llama_free_model(model)
        if same == len(asked["texts"]):
            return {"name": name, "same": same}
        best = max(best, (same, name))
    return {"name": None, "same": best[0], "nearest": best[1]}


def _model(llama: Any, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    model = _load(llama, asked["model"])
    if not model:
        raise SystemExit("llama.cpp cannot load it")
    longest = max(map(len, asked["sequences"])) + asked["new_tokens"]
    context = _context(llama, model, longest, adapted=bool(asked.get("adapter")))
    if asked.get("adapter"):
        _adapt(llama, model, context, asked["adapter"])
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    for i, ids in enumerate(asked["sequences"]):
        np.save(folder / f"logits-{i}.npy", _logits(llama, context, ids, vocabulary), allow_pickle=False)
    greedy = [
        _greedy(llama, context, ids[:n], asked["new_tokens"], vocabulary)
        for ids, n in zip(asked["sequences"], asked["prompts"], strict=True)
    ]
    return {
        "greedy": greedy,
        "tokens": [_tokens(llama, model, text["text"], begins=text["begins"]) for text in asked["texts"]],
        "ends": [token for token in range(vocabulary) if llama.llama_token_is_eog(model, token)],
    }


def _load(llama: Any, path: str, *, vocab_only: bool = False, pre: str | None = None) -> Any:
    params = llama.llama_model_default_params()
    params.vocab_only, params.n_gpu_layers = vocab_only, 0
    if pre is not None:
        overrides = (llama.llama_model_kv_override * 2)()  # the second, empty, ends the list
        overrides[0].tag, overrides[0].key = _STRING, b"tokenizer.ggml.pre"
        overrides[0].value.val_str = pre.encode()
        params.kv_overrides = overrides
    return llama.llama_model_load_from_file(path.encode(), params)


def _context(llama: Any, model: Any, longest: int, *, adapted: bool) -> Any:
    """In float32 where llama.cpp leaves a choice."""
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(64, longest)
    params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
    params.type_k = 0  # the values stay float16, which it insists on without its flash attention
    params.flash_attn = False
    if adapted:  # the fused products of the feed-forward leave a LoRA out
        params.fused_up_gate = params.fused_moe_up_gate = params.fused_mmad = False
    context = llama.llama_init_from_model(model, params)
    if not context:
        raise SystemExit("llama.cpp cannot make a context for it")
    return context


def _adapt(llama: Any, model: Any, context: Any, path: str) -> None:
    """Puts a LoRA beside the model, at full strength."""
    library = llama._lib
    library.llama_lora_adapter_init.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.llama_lora_adapter_init.restype = ctypes.c_void_p
    library.llama_lora_adapter_set.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float]
    library.llama_lora_adapter_set.restype = ctypes.c_int32
    adapter = library.llama_lora_adapter_init(model, path.encode())
    if not adapter or library.llama_lora_adapter_set(context, adapter, 1.0) != 0:
        raise SystemExit("llama.cpp cannot load the adapter")


def _tokens(llama: Any, model: Any, text: str, *, begins: bool) -> list[int]:
    data = text.encode()
    room = len(data) + 16
    found = (llama.llama_token * room)()
    count = llama.llama_tokenize(model, data, len(data), found, room, begins, True)
    return list(found[: max(count, 0)])


def _decode(llama: Any, context: Any, ids: list[int], start: int, *, every: bool) -> None:
    batch = llama.llama_batch_init(len(ids), 0, 1)
    try:
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, start + i, 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = every or i == len(ids) - 1
        if llama.llama_decode(context, batch) != 0:
            raise SystemExit("llama.cpp cannot compute it")
    finally:
        llama.llama_batch_free(batch)


def _row(llama: Any, context: Any, at: int, vocabulary: int) -> np.ndarray:
    return np.ctypeslib.as_array(llama.llama_get_logits_ith(context, at), (vocabulary,)).copy()


def _logits(llama: Any, context: Any, ids: list[int], vocabulary: int) -> np.ndarray:
    llama.llama_kv_cache_clear(context)
    _decode(llama, context, ids, 0, every=True)
    return np.stack([_row(llama, context, i, vocabulary) for i in range(len(ids))])


def _greedy(llama: Any, context: Any, ids: list[int], count: int, vocabulary: int) -> list[int]:
    llama.llama_kv_cache_clear(context)
    _decode(llama, context, ids, 0, every=False)
    written: list[int] = []
    for _ in range(count):
        written.append(int(_row(llama, context, (len(ids) if not written else 1) - 1, vocabulary).argmax()))
        _decode(llama, context, written[-1:], len(ids) + len(written) - 1, every=False)
    return written


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
