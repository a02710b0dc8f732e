"""Which engine a request is for: the one that most likely computed its beginning before, so that vLLM's prefix cache has it.

vLLM keeps what it computed of a prompt in blocks of 16 tokens on a GPU and 128 on a CPU, each known by all tokens before it and
by the adapter. Requests profit from one another as far as their prompts begin alike, so what they begin with decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["BEGINNING", "beginning_of", "ranked"]

BEGINNING = 512
"""Characters that count of the first message of the user, or of a text: about 128 tokens, the least that is worth computing
once (8 blocks on a GPU, one on a CPU).

Most questions are shorter and count whole, so that conversations are spread and each stays where it began. Passages are longer,
so that different questions about the same ones meet where these are cached.
"""
_TOKENS = BEGINNING // 4
_ENDING = 64


def beginning_of(body: Mapping[str, Any]) -> bytes:
    """What a request to the engine begins with, as a hash of 16 bytes.

    Of a conversation: model, tools, and all up to the first message of the user, of which the first `BEGINNING` characters
    count. Nothing of that changes while it goes on. System messages count whole: prompts with different ones have nothing
    in common behind them. Of a text, its first `BEGINNING` characters.
    """
    found = hashlib.blake2b(digest_size=16)

    def add(part: Any) -> None:
        text = part if isinstance(part, str) else json.dumps(part)  # escaping a long text takes longer than the rest
        found.update(f"{len(text)} ".encode() + text.encode("utf-8", "surrogatepass"))

    add(body.get("model"))
    messages = body.get("messages")
    if messages is None:
        add(_of_prompt(body.get("prompt")))
        return found.digest()
    add(body.get("tools"))
    for message in messages:
        add(message.get("role"))
        if message.get("role") == "user":
            add(_of_content(message.get("content")))
            break
        add(message.get("content"))
    return found.digest()


def ranked(beginning: bytes, engines: Sequence[str]) -> list[str]:
    """The engines in the order in which they should have the requests with a beginning.

    Each draws a number by the hash of its own name and the beginning, and the highest is first: an engine that leaves hands
    its requests to all others, one that comes takes its share from all, and nothing else moves, whatever the order of the
    names (rendezvous hashing; Thaler and Ravishankar 1998). Gateways with the same engines agree without asking each other.
    """
    return sorted(engines, key=lambda name: hashlib.blake2b(name.encode(), key=beginning, digest_size=8).digest(), reverse=True)


def _of_content(content: Any) -> Any:
    """The beginning of a message: of its texts together; images by how long their addresses are and how they end."""
    if not isinstance(content, list):
        return str(content)[:BEGINNING]
    found, left = [], BEGINNING
    for part in content:
        if part.get("type") == "text":
            found.append(part["text"][:left])
            left -= len(found[-1])
        else:
            address = json.dumps(part)
            found.append(f"{len(address)} {address[-_ENDING:]}")
        if left <= 0:
            break
    return found


def _of_prompt(prompt: Any) -> Any:
    """The beginning of a text, or of its tokens; of several texts, of the first."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompt = prompt[0]
    return prompt[:_TOKENS] if isinstance(prompt, list) else str(prompt)[:BEGINNING]
