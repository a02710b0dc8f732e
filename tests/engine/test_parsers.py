"""Which parser reads a model's calls and thoughts: its chat template tells."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llmbench.engine import command, parsers
from llmbench.recipe import ServeRecipe

HERMES = '{% if tools %}<tool_call>\\n{\\"name\\": x, \\"arguments\\": y}{% endif %}'
CODER = "{% if tools %}<tool_call><function=x>{% endif %}"
LLAMA = "{% if tools %}ipython{% endif %}"
FAMILIES = [
    ("qwen2", HERMES, "hermes", None),
    ("qwen3", HERMES + "</think>", "hermes", "qwen3"),
    ("llama", HERMES, "hermes", None),  # a Hermes of Nous Research
    ("qwen3_moe", CODER, "qwen3_coder", None),
    ("llama", LLAMA, "llama3_json", None),
    ("llama", LLAMA + "<think>", "llama3_json", "deepseek_r1"),  # a distillate of R1
    ("mistral", "{% if tools %}[TOOL_CALLS]{% endif %}[THINK]", "mistral", "mistral"),
    ("gpt_oss", "", "openai", "openai_gptoss"),
    ("qwen3", "<|im_start|>", None, None),  # a template without tools
    ("opt", "", None, None),
]


def recipe(folder: Path, **engine: Any) -> ServeRecipe:
    document = {"variants": [{"name": "base"}], "model": {"model_name_or_path": str(folder)}, "engine": engine}
    return ServeRecipe.model_validate(document)


def model(folder: Path, kind: str, template: str, *, apart: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    if apart:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    else:
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("kind", "template", "tools", "reasoning"), FAMILIES)
def test_the_template_tells_the_parser(
    tmp_path: Path, kind: str, template: str, tools: str | None, reasoning: str | None, apart: bool
) -> None:
    folder = model(tmp_path, kind, template, apart=apart)
    found = parsers(recipe(folder, reasoning_parser="auto"))
    assert (found.tools, found.reasoning) == (tools, reasoning)
    assert bool(found.said()) == bool(tools or reasoning)
    assert parsers(recipe(folder)).reasoning is None


def test_what_the_document_names_is_taken_and_what_vllm_is_given_is_left(tmp_path: Path) -> None:
    folder = model(tmp_path, "qwen3", HERMES)
    assert parsers(recipe(folder, tool_parser="none")).arguments() == []
    named = parsers(recipe(folder, tool_parser="xlam", reasoning_parser="step3"))
    words = ["--enable-auto-tool-choice", "--tool-call-parser", "xlam", "--reasoning-parser", "step3"]
    assert named.arguments() == words
    own = recipe(folder, extra_args=["--tool-call-parser=hermes", "--enable-auto-tool-choice"], reasoning_parser="qwen3")
    assert parsers(own).arguments() == ["--reasoning-parser", "qwen3"]
    own = recipe(folder, extra_args=["--tool_call_p", "hermes", "--reasoning_parser", "step3"], reasoning_parser="qwen3")
    assert parsers(own).arguments() == []
    argv = command(recipe(folder), {}, Path("/x.sock"), python=Path("/python"), device="cpu", parsers=named)
    assert " ".join(words) in " ".join(argv)


def test_a_template_of_another_file_and_those_by_name_count(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", "llama", "")
    (tmp_path / "other.jinja").write_text(LLAMA, encoding="utf-8")
    for option in ("--chat-template", "--chat_template", "--chat-templ"):
        assert parsers(recipe(folder, extra_args=[option, str(tmp_path / "other.jinja")])).tools == "llama3_json"
    several = {"chat_template": [{"name": "default", "template": ""}, {"name": "tool_use", "template": HERMES}]}
    (folder / "tokenizer_config.json").write_text(json.dumps(several), encoding="utf-8")
    assert parsers(recipe(folder)).tools == "hermes"
    (folder / "tokenizer_config.json").write_text("{", encoding="utf-8")
    assert parsers(recipe(folder)).tools is None


def test_vllm_knows_every_name() -> None:
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed here")
    for place, names in (
        ("tool_parsers", {tools for _, _, tools, _ in FAMILIES}),
        ("reasoning", {reasoning for _, _, _, reasoning in FAMILIES}),
    ):
        text = (Path(spec.origin).parent / place / "__init__.py").read_text(encoding="utf-8")
        assert names - {None} <= set(re.findall(r'^    "([\w-]+)": \(', text, re.MULTILINE))
