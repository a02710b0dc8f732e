"""Reasoning that a model writes between tags, apart from its answer."""

from __future__ import annotations

import re

__all__ = ["reasoning_apart"]


def reasoning_apart(text: str) -> tuple[str, str]:
    """What a model thought, and what it answered.

    Reasoning stands between tags at the start of a line outside fenced code (`<think>`, `<thinking>`, `[THINK]`, gpt-oss's
    channels, ...), or before a lone closing tag: many chat templates put the opening one into the prompt. A tag that is still
    open takes the rest.
    """
    thoughts: list[str] = []
    lone = _LONE.match(text)
    if lone is not None and not _OPENING.search(text, 0, lone.start("close")) and "```" not in lone["thought"]:
        thoughts.append(lone["thought"])
        text = text[lone.end() :]
    kept, at = [], 0
    for found in _OPENING.finditer(text):
        if found.start() < at or text.count("```", 0, found.start()) % 2:
            continue
        close = re.compile(_CLOSING[found.lastgroup or ""].format(name=re.escape(found["name"] or "")), re.IGNORECASE)
        end = close.search(text, found.end())
        kept.append(text[at : found.start()])
        thoughts.append(text[found.end() : end.start() if end else len(text)])
        at = end.end() if end else len(text)
    answer = "".join([*kept, text[at:]]) if at else text
    if not thoughts:
        return "", answer
    return "\n\n".join(part.strip() for part in thoughts if part.strip()), answer.strip()


_TAGS = "think|thinking|thought|reasoning|reason|seed:think|analysis"
_OPENING = re.compile(
    rf"^[ \t]*(?:<(?P<name>{_TAGS})>(?P<xml>)|\[THINK\](?P<square>)"
    r"|<\|begin_of_thought\|>(?P<thought>)|<\|channel\|>analysis<\|message\|>(?P<channel>))",
    re.IGNORECASE | re.MULTILINE,
)
_CLOSING = {
    "xml": r"</{name}>",
    "square": r"\[/THINK\]",
    "thought": r"<\|end_of_thought\|>",
    "channel": r"<\|end\|>(?:<\|start\|>assistant)?(?:<\|channel\|>final<\|message\|>)?",
}
_LONE = re.compile(
    rf"(?P<thought>.*?)(?P<close>(?:^[ \t]*(?:</(?:{_TAGS})>|\[/THINK\]))|(?:</(?:{_TAGS})>|\[/THINK\])(?=[ \t]*\n))",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
"""The tag ends or begins its line: a sentence that speaks about the tag does neither."""
