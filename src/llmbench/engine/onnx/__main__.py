"""python -m llmbench.engine.onnx --model FOLDER (--uds SOCKET | --host HOST --port PORT) [--served-model-name NAME] ..."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from llmbench.errors import LlmbenchError

__all__ = ["main"]

_KEEP_ALIVE = 600


def main() -> None:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser(prog="llmbench.engine.onnx", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--served-model-name", default="base")
    parser.add_argument("--uds")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--max-model-len", type=int)
    options = parser.parse_args()

    import uvicorn
    from transformers import AutoTokenizer

    from llmbench.engine import key_guard
    from llmbench.engine.onnx.api import OnnxServer
    from llmbench.onnx_model import OnnxModel

    cores = len(os.sched_getaffinity(0))
    try:
        model = OnnxModel(options.model, threads=1)
        context = _context(model.context, options.max_model_len)
        tokenizer = AutoTokenizer.from_pretrained(str(options.model), local_files_only=True, trust_remote_code=False)
    except LlmbenchError as error:
        raise SystemExit(f"EngineError: {error}") from error
    except Exception as error:  # of tokenizers: a plain Exception for a damaged tokenizer.json
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SystemExit(f"EngineError: {options.model}: its tokenizer cannot be loaded ({why}). Export it again") from error
    server = OnnxServer(model, tokenizer, options.model, name=options.served_model_name, context=context, threads=cores)
    app = server.app()
    if options.uds is None:
        app.add_middleware(key_guard.KeyGuard)
    uvicorn.run(
        app, uds=options.uds, host=options.host, port=options.port or 0, timeout_keep_alive=_KEEP_ALIVE, access_log=False,
        log_level="warning",
    )  # fmt: skip


def _context(own: int, asked: int | None) -> int:
    """The tokens that are taken.

    Raises:
        LlmbenchError: more are asked for than the model has places for.
    """
    if asked is not None and asked > own:
        raise LlmbenchError(f"engine.max_model_len is {asked:,}, but the model takes {own:,} tokens. Lower it, or leave it out")
    return asked or own


if __name__ == "__main__":
    main()
