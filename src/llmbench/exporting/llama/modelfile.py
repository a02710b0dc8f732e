"""An Ollama Modelfile: where the weights are, what ends an answer, and the chat template as far as Ollama's can say it.

Ollama's templates are Go's, and no program turns jinja into one. Most chat templates only put a prefix and a suffix around
each turn, though: these are found by rendering, and written where they give the same text for every probe.
"""

from __future__ import annotations

from typing import Any

from llmbench import parity
from llmbench.exporting.material import Material

__all__ = ["of", "turns"]

_MARK = "\x01text\x01"


def of(material: Material, weights: str, *, base: str | None = None) -> str:
    """The Modelfile's text.

    Args:
        material: with tokenizer and stop tokens.
        weights: the GGUF file, from the Modelfile's folder; an adapter where `base` is given.
        base: the base model's file or name in Ollama, for an adapter.
    """
    lines = [f"FROM {base or weights}"] + ([f"ADAPTER {weights}"] if base is not None else [])
    kwargs = material.source.run.recipe["data"].get("chat_template_kwargs") or {}
    found = turns(material.tokenizer, kwargs)
    if found is not None:
        lines.append(f'TEMPLATE """{_go(found)}"""')
    elif material.tokenizer.chat_template:
        lines.append("# The chat template does more than put words around turns, which Ollama's TEMPLATE cannot say.")
        lines.append("# Ollama may know it by its text in the GGUF file; compare what it writes with the model card.")
    stops = (material.tokenizer.convert_ids_to_tokens(token) for token in sorted(material.reference().heard.stops))
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    return "\n".join(lines) + "\n"


def turns(tokenizer: Any, kwargs: dict[str, Any]) -> dict[str, tuple[str, str]] | None:
    """Prefix and suffix of each role's turns, and of the answer that is to come; None where a template does more than that.

    Returns:
        `{"user": ("<|im_start|>user\\n", "<|im_end|>\\n"), ..., "answer": ("<|im_start|>assistant\\n", "")}`; what the
        template begins every chat with is under "start".
    """
    if not tokenizer.chat_template:
        return None
    try:
        found = _found(tokenizer, kwargs)
        return found if found is not None and all(_same(tokenizer, kwargs, found, chat) for chat in _chats()) else None
    except Exception:  # a template may refuse any chat, with any error of its own
        return None


def _found(tokenizer: Any, kwargs: dict[str, Any]) -> dict[str, tuple[str, str]] | None:
    def drawn(*turns: tuple[str, str], ask: bool = False) -> str:
        chat = [{"role": role, "content": text} for role, text in turns]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=ask, **kwargs))

    one, two = drawn(("user", _MARK)), drawn(("user", _MARK), ("assistant", "x"), ("user", _MARK))
    if one.count(_MARK) != 1 or two.count(_MARK) != 2:
        return None
    before, after = one.split(_MARK)
    _, between, end = two.split(_MARK)
    if not between.startswith(after) or end != after or "x" not in between[len(after) :]:
        return None
    middle = between[len(after) :]
    answer = drawn(("user", _MARK), ask=True)[len(one) :]
    if not middle.startswith(answer) or not middle[len(answer) :].startswith("x"):
        return None
    rest = middle[len(answer) + 1 :]
    shared = max((n for n in range(len(before) + 1) if rest.endswith(before[len(before) - n :] if n else "")), default=0)
    prefix = before[len(before) - shared :]
    system = drawn(("system", _MARK), ("user", "y")).split(_MARK)
    start = before[: len(before) - shared]
    if len(system) != 2 or not system[0].startswith(start) or f"{prefix}y" not in system[1]:
        return None
    return {
        "start": (start, ""),
        "system": (system[0][len(start) :], system[1][: system[1].index(f"{prefix}y")]),
        "user": (prefix, after),
        "assistant": (answer, rest[: len(rest) - shared]),
        "answer": (answer, ""),
    }


def _same(tokenizer: Any, kwargs: dict[str, Any], found: dict[str, tuple[str, str]], chat: list[dict[str, str]]) -> bool:
    wanted = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **kwargs)
    drawn = found["start"][0] + "".join(found[turn["role"]][0] + turn["content"] + found[turn["role"]][1] for turn in chat)
    return bool(wanted == drawn + found["answer"][0])


def _chats() -> list[list[dict[str, str]]]:
    return [list(chat) for chat in parity.CHATS if chat[0]["content"].strip() == chat[0]["content"]]


def _go(found: dict[str, tuple[str, str]]) -> str:
    """The turns as Go's template."""
    roles = [
        f'{{{{ if eq .Role "{role}" }}}}{found[role][0]}{{{{ .Content }}}}{found[role][1]}{{{{ end }}}}'
        for role in ("system", "user", "assistant")
    ]
    return f"{found['start'][0]}{{{{ range .Messages }}}}{''.join(roles)}{{{{ end }}}}{found['answer'][0]}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
