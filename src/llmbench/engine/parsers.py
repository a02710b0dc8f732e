"""Which of vLLM's parsers finds the tool calls and the reasoning in a model's answers, told from its chat template.

What a template writes before a call is what its model was trained to write, so the mark in it decides, and the model's type
only where two families share a mark. The names are those that vLLM 0.32 registers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import assets
from llmbench.engine.admission import base_folder
from llmbench.recipe import ServeRecipe, vllm_option

__all__ = ["Parsers", "parsers"]

_OF_TOOLS = ("--tool-call-parser", "--enable-auto-tool-choice")


@dataclass(frozen=True)
class Parsers:
    """The parsers' names; None is none."""

    tools: str | None = None
    reasoning: str | None = None

    def arguments(self) -> list[str]:
        """What vLLM is started with for them."""
        tools = ["--enable-auto-tool-choice", "--tool-call-parser", self.tools] if self.tools else []
        return tools + (["--reasoning-parser", self.reasoning] if self.reasoning else [])

    def said(self) -> str:
        """What a user should know of them, in one line; empty where there is none."""
        found = [("tool calls", self.tools), ("reasoning", self.reasoning)]
        named = [f"{what} with vLLM's {name} parser" for what, name in found if name]
        return f"Reading {' and '.join(named)} (engine.tool_parser, engine.reasoning_parser)" if named else ""


def parsers(recipe: ServeRecipe) -> Parsers:
    """The parsers that a serving document names, or that the chat template of its model calls for.

    Where `engine.extra_args` names a parser itself, nothing is added to it.
    """
    spec = recipe.engine
    tools, reasoning = spec.tool_parser, spec.reasoning_parser
    if tools == "auto" or reasoning == "auto":
        kind, template = _about(recipe)
        tools = _of_tools(kind, template) if tools == "auto" else tools
        reasoning = _of_reasoning(kind, template) if reasoning == "auto" else reasoning
    if any(vllm_option(spec.extra_args, option) is not None for option in _OF_TOOLS):
        tools = "none"
    if vllm_option(spec.extra_args, "--reasoning-parser") is not None:
        reasoning = "none"
    return Parsers(None if tools == "none" else tools, None if reasoning == "none" else reasoning)


def _of_tools(kind: str, template: str) -> str:
    if kind == "gpt_oss":
        return "openai"
    if "tools" not in template:  # its model is never told of any
        return "none"
    if "<tool_call>" in template and "<function=" in template:
        return "qwen3_coder"
    if "<tool_call>" in template and '"arguments"' in template.replace("\\", ""):
        return "hermes"
    if "[TOOL_CALLS]" in template:
        return "mistral"
    if kind == "llama" and "ipython" in template:
        return "llama3_json"
    return "none"


def _of_reasoning(kind: str, template: str) -> str:
    if kind == "gpt_oss":
        return "openai_gptoss"
    if "[THINK]" in template:
        return "mistral"
    if "<think>" in template or "</think>" in template:
        return "qwen3" if kind.startswith("qwen3") else "deepseek_r1"
    return "none"


def _about(recipe: ServeRecipe) -> tuple[str, str]:
    """The type of the base and its chat template; empty where its files are not on this machine."""
    folder = base_folder(assets.model_folder(recipe.model.model_name_or_path), recipe.model.revision)
    given = vllm_option(recipe.engine.extra_args, "--chat-template")
    kind = str(_json(folder / "config.json").get("model_type", "")) if folder is not None else ""
    if given:
        return kind, _text(Path(given)) or given
    own = recipe.model.tokenizer
    place = Path(own) if own is not None and Path(own).is_dir() else folder
    return kind, _template(place) if place is not None else ""


def _template(folder: Path) -> str:
    """Every template of a tokenizer: its own, and those for tools that some have by name."""
    stated = _json(folder / "tokenizer_config.json").get("chat_template")
    named = [str(one.get("template", "")) for one in stated if isinstance(one, dict)] if isinstance(stated, list) else []
    own = [stated] if isinstance(stated, str) else named
    files = [folder / "chat_template.jinja", *sorted(folder.glob("additional_chat_templates/*.jinja"))]
    return "\n".join([*map(_text, files), *own])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
