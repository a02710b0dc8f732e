"""Masks of the known chat templates, written out by hand: what stands in brackets is learned, and nothing else."""

# ruff: noqa: RUF001 (DeepSeek's control tokens are written with wide bars)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench import assets, data
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
# The system's words stand before the last question only, and only while it is unanswered.
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
"""
QWEN_SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
TOOLS_HEAD = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"city": "string"}}}

SPECIAL = {
    "chatml": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
    "gemma": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    "phi": ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>"],
    "deepseek": ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
    "zephyr": ["<s>", "</s>"],
}
BOS = {
    "llama3": "<|begin_of_text|>",
    "mistral": "<s>",
    "gemma": "<bos>",
    "deepseek": "<｜begin▁of▁sentence｜>",
    "zephyr": "<s>",
}
EOS = {
    "chatml": "<|im_end|>", "llama3": "<|eot_id|>", "mistral": "</s>", "gemma": "<eos>", "phi": "<|endoftext|>",
    "deepseek": "<｜end▁of▁sentence｜>", "zephyr": "</s>",
}  # fmt: skip


def tokenizer_of(family: str, template: str) -> Any:
    """A tokenizer of single bytes with the control tokens of a family; its padding is its end token, which is still learned."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=BOS.get(family),
        eos_token=EOS[family],
        pad_token=EOS[family],
        additional_special_tokens=SPECIAL[family],
    )
    made.add_tokens(["<think>", "</think>"])
    made.chat_template = template
    return made


def published(name: str) -> str:
    """A template as its model publishes it, from TRL's collection."""
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def bracketed(row: dict[str, list[int]], tokenizer: Any) -> str:
    """The text of a row with brackets around what is learned."""
    text, before = "", False
    for token, label in zip([*row["input_ids"], None], [*row["labels"], -100], strict=True):
        learned = label != -100
        text += "[" if learned and not before else "]" if before and not learned else ""
        text += "" if token is None else chr(0xE000 + token) if token < 256 else tokenizer.convert_ids_to_tokens(token)
        before = learned
    inner = {chr(0xE000 + i): letter for i, letter in enumerate(sorted(alphabet()))}
    return decoded("".join(inner.get(c, c) for c in text))


def alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return list(pre_tokenizers.ByteLevel.alphabet())


def decoded(text: str) -> str:
    """Byte-level letters as the text they stand for (the tests' words are ASCII)."""
    return text.replace("Ġ", " ").replace("Ċ", "\n")


def masks(folder: Path, tokenizer: Any, rows: list[dict[str, Any]], **settings: Any) -> list[list[str]]:
    """The bracketed samples of each row."""
    path = folder / "row.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = data.load(DataSpec(train=[DataSource(path=path)], max_length=4096, **settings), tokenizer).train
    texts: list[list[str]] = [[] for _ in rows]
    for encoded in found:
        texts[encoded["row"] - 1].append(bracketed(encoded, tokenizer))
    return texts


def talk(*contents: str, system: str | None = None) -> dict[str, Any]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"messages": [{"role": "system", "content": system}] * (system is not None) + turns}


CALL = {
    "tools": [WEATHER],
    "messages": [
        {"role": "user", "content": "Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "weather", "arguments": '{"city": "Oslo"}'}]},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
    ],
}
ONE = talk("Hi", "Hello")
TWO = talk("Hi", "Hello", "Bye", "Ciao", system="Be short")
OPEN = talk("Hi", "Hello", "Bye")

U, A, E = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"
TOOLS = json.dumps(WEATHER)
CALLED = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
HEAD = "<|start_header_id|>{}<|end_header_id|>\n\n"
SYSTEM, USER, SAID = (HEAD.format(role) for role in ("system", "user", "assistant"))
GU, GM, GE = "<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>"
DU, DA, DE = "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"

CASES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("chatml", CHATML, ONE, [f"{U}Hi{E}\n{A}[Hello{E}]\n"]),
    ("chatml", CHATML, TWO, [f"<|im_start|>system\nBe short{E}\n{U}Hi{E}\n{A}[Hello{E}]\n{U}Bye{E}\n{A}[Ciao{E}]\n"]),
    ("chatml", CHATML, OPEN, [f"{U}Hi{E}\n{A}[Hello{E}]\n{U}Bye{E}\n"]),
    ("llama3", "llama3", ONE, [f"<|begin_of_text|>{USER}Hi<|eot_id|>{SAID}[Hello<|eot_id|>]"]),
    ("llama3", "llama3", TWO, [
        f"<|begin_of_text|>{SYSTEM}Be short<|eot_id|>{USER}Hi<|eot_id|>{SAID}[Hello<|eot_id|>]"
        f"{USER}Bye<|eot_id|>{SAID}[Ciao<|eot_id|>]",
    ]),
    ("llama3", "llama3", talk(" Hi ", " Hello\n"), [f"<|begin_of_text|>{USER}Hi<|eot_id|>{SAID}[Hello<|eot_id|>]"]),
    ("mistral", MISTRAL, ONE, ["<s>[INST] Hi[/INST][ Hello</s>]"]),
    ("mistral", MISTRAL, talk("Hi", "Hello", "Bye", "Ciao"), ["<s>[INST] Hi[/INST][ Hello</s>][INST] Bye[/INST][ Ciao</s>]"]),
    ("mistral", MISTRAL, TWO, [
        "<s>[INST] Be short\n\nHi[/INST][ Hello</s>]",
        "<s>[INST] Hi[/INST] Hello</s>[INST] Be short\n\nBye[/INST][ Ciao</s>]",
    ]),
    ("gemma", "gemma", ONE, [f"<bos>{GU}Hi{GE}\n{GM}[Hello{GE}]\n"]),
    ("gemma", "gemma", talk("Hi", "Hello", "Bye", "Ciao"), [
        f"<bos>{GU}Hi{GE}\n{GM}[Hello{GE}]\n{GU}Bye{GE}\n{GM}[Ciao{GE}]\n",
    ]),
    ("gemma", "gemma", OPEN, [f"<bos>{GU}Hi{GE}\n{GM}[Hello{GE}]\n{GU}Bye{GE}\n"]),
    ("phi", "phi3", ONE, ["<|user|>\nHi<|end|>\n<|assistant|>\n[Hello<|end|>]\n<|endoftext|>"]),
    ("phi", "phi3", TWO, [
        "<|system|>\nBe short<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n[Hello<|end|>]\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\n[Ciao<|end|>]\n<|endoftext|>",
    ]),
    ("phi", "phi3", OPEN, ["<|user|>\nHi<|end|>\n<|assistant|>\n[Hello<|end|>]\n<|user|>\nBye<|end|>\n<|endoftext|>"]),
    ("chatml", "qwen2_5", ONE, [f"{QWEN_SYSTEM}{E}\n{U}Hi{E}\n{A}[Hello{E}]\n"]),
    ("chatml", "qwen2_5", TWO, [f"<|im_start|>system\nBe short{E}\n{U}Hi{E}\n{A}[Hello{E}]\n{U}Bye{E}\n{A}[Ciao{E}]\n"]),
    ("chatml", "qwen2_5", CALL, [
        f"{QWEN_SYSTEM}{TOOLS_HEAD}{TOOLS}{TOOLS_TAIL}{E}\n{U}Oslo?{E}\n{A}[{CALLED}{E}]\n"
        f"{U}<tool_response>\nrain\n</tool_response>{E}\n{A}[It rains.{E}]\n",
    ]),
    # The thinking of history is stripped, and an answer's own thinking, also an empty one, is what the model is to write.
    ("chatml", "qwen3", ONE, [f"{U}Hi{E}\n{A}[<think>\n\n</think>\n\nHello{E}]\n"]),
    ("chatml", "qwen3", talk("1+1?", "<think>\nadd\n</think>\n\n2", "2+2?", "<think>\nadd\n</think>\n\n4"), [
        f"{U}1+1?{E}\n{A}[<think>\nadd\n</think>\n\n2{E}]\n",
        f"{U}1+1?{E}\n{A}2{E}\n{U}2+2?{E}\n{A}[<think>\nadd\n</think>\n\n4{E}]\n",
    ]),
    ("chatml", "qwen3", CALL, [
        f"<|im_start|>system\n{TOOLS_HEAD[2:]}{TOOLS}{TOOLS_TAIL}{E}\n{U}Oslo?{E}\n{A}[<think>\n\n</think>\n\n{CALLED}{E}]\n",
        f"<|im_start|>system\n{TOOLS_HEAD[2:]}{TOOLS}{TOOLS_TAIL}{E}\n{U}Oslo?{E}\n{A}{CALLED}{E}\n"
        f"{U}<tool_response>\nrain\n</tool_response>{E}\n{A}[<think>\n\n</think>\n\nIt rains.{E}]\n",
    ]),
    # Its prompt opens the thinking; what is learned goes on from there where the row has thinking.
    ("deepseek", "deepseek_r1_distill", talk("1+1?", "<think>\nadd\n</think>\n\n2", "2+2?", "<think>\nadd\n</think>\n\n4"), [
        f"<｜begin▁of▁sentence｜>{DU}1+1?{DA}<think>\n[add\n</think>\n\n2{DE}]",
        f"<｜begin▁of▁sentence｜>{DU}1+1?{DA}\n\n2{DE}{DU}2+2?{DA}<think>\n[add\n</think>\n\n4{DE}]",
    ]),
    ("deepseek", "deepseek_r1_distill", TWO, [f"<｜begin▁of▁sentence｜>Be short{DU}Hi{DA}[Hello{DE}]{DU}Bye{DA}[Ciao{DE}]"]),
    ("deepseek", "deepseek_r1_distill", OPEN, [f"<｜begin▁of▁sentence｜>{DU}Hi{DA}[Hello{DE}]{DU}Bye"]),
    ("zephyr", ZEPHYR, ONE, ["<|user|>\nHi</s>\n<|assistant|>\n[Hello</s>]\n"]),
    ("zephyr", ZEPHYR, TWO, [
        "<|system|>\nBe short</s>\n<|user|>\nHi</s>\n<|assistant|>\n[Hello</s>]\n"
        "<|user|>\nBye</s>\n<|assistant|>\n[Ciao</s>]\n",
    ]),
    ("zephyr", ZEPHYR, OPEN, ["<|user|>\nHi</s>\n<|assistant|>\n[Hello</s>]\n<|user|>\nBye</s>\n"]),
]  # fmt: skip


@pytest.mark.parametrize("name", dict.fromkeys(template for _, template, _, _ in CASES), ids=lambda name: name[:12])
def test_the_masks_of_a_known_template(tmp_path: Path, name: str) -> None:
    cases = [case for case in CASES if case[1] == name]
    assert len(cases) == 3
    tokenizer = tokenizer_of(cases[0][0], name if "{" in name else published(name))
    assert masks(tmp_path, tokenizer, [row for _, _, row, _ in cases]) == [expected for *_, expected in cases]


def test_a_row_that_begins_with_two_beginnings_is_noticed(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("zephyr", "{{ bos_token + bos_token }}" + ZEPHYR)
    path = tmp_path / "row.jsonl"
    path.write_text(json.dumps(ONE), encoding="utf-8")
    report = data.load(DataSpec(train=[DataSource(path=path)]), tokenizer).train_report
    assert report.double_bos == 1
    assert "begin with two BOS tokens" in " ".join(report.remarks())


def test_answers_without_the_thinking_that_the_prompt_opens_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "row.jsonl"
    path.write_text(json.dumps(TWO), encoding="utf-8")
    tokenizer = tokenizer_of("deepseek", published("deepseek_r1_distill"))
    assert data.load(DataSpec(train=[DataSource(path=path)]), tokenizer).train_report.unprompted == 2


@pytest.mark.parametrize(
    ("row", "template", "message"),
    [
        (CALL, CHATML, "the chat template renders no tool calls (weather). Set data.chat_template to one that does"),
        ({**ONE, "tools": [WEATHER]}, CHATML, "the chat template does not render the row's tools."),
        (TWO, "{% for m in messages if m.role != 'system' %}{{ m.role + m.content + eos_token }}{% endfor %}"
              "{% if add_generation_prompt %}assistant{% endif %}", "the chat template does not render turn 1 (system)."),
        (ONE, "{% for m in messages %}{{ m.role + m.content | upper + eos_token }}{% endfor %}"
              "{% if add_generation_prompt %}assistant{% endif %}", "does not render what the assistant said in turn 2."),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_an_error(tmp_path: Path, row: dict[str, Any], template: str, message: str) -> None:
    path = tmp_path / "row.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        data.load(DataSpec(train=[DataSource(path=path)]), tokenizer_of("chatml", template))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_bundled_template_for_tools_writes_calls(tmp_path: Path) -> None:
    template = Path(assets.bundled("recipes/tools.jinja")).read_text(encoding="utf-8")
    [[text]] = masks(tmp_path, tokenizer_of("chatml", template), [CALL])
    assert f'{A}[<tool_call>{{"name": "weather", "arguments": {{"city": "Oslo"}}}}</tool_call>{E}]\n' in text
    assert text.endswith(f"<|im_start|>tool\nrain{E}\n{A}[It rains.{E}]\n")


def test_the_opening_of_a_first_turn_is_not_learned(tmp_path: Path) -> None:
    turns = [
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Ann"},
    ]
    [[text]] = masks(tmp_path, tokenizer_of("chatml", CHATML), [{"messages": turns}])
    assert text == (
        "<|im_start|>assistant\n[Hi<|im_end|>]\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n[Ann<|im_end|>]\n"
    )
