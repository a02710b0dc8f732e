"""Control tokens spelled out in somebody's words: kept from becoming the chat template's own.

A tokenizer makes the token that opens a system turn out of `<|im_start|>` wherever it stands, in a retrieved page too. So one
invisible character is put behind the first of each: people read the same, and the tokenizer finds ordinary pieces, as
training does with such words (there by the tokenizer's own switch, which a server's API does not have).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

__all__ = ["JOINERS", "ControlTokens", "of_folder", "of_unknown"]

JOINERS = ("\u2060", "\u200b", " ")
"""What a control token can be split with, best first: word joiner, zero-width space, a space where a normalizer drops both."""

_SHAPES = r"""
    <\|[^\s\u2060\u200b<>|]{1,48}\|?>              # <|im_start|>, <|start_header_id|>, <|user|>; Gemma 4's <|turn>
  | <[^\s\u2060\u200b<>|/]{1,48}\|>                # and its <turn|>
  | <\uff5c[^\u2060\u200b<>\uff5c]{1,48}\uff5c>   # DeepSeek, Hunyuan
  | \[\|[^\s\u2060\u200b\[\]|]{1,48}\|\]           # EXAONE
  | \[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|MODEL_SETTINGS|gMASK)\]
  | <</?SYS>>
  | <(?:start|end)_of_[a-z]{1,16}>     # Gemma
  | <(?:/?s|bos|eos|sop|eop|pad|unk)>
  | <[a-z_]{1,16}:(?:bos|eos)>         # Seed
  | <(?:extra_id_|reserved_|SPECIAL_|unused)\d{1,6}>
"""
"""How families spell them: for text whose model is not known, and for what a template writes without having a token for it."""
_THINKING = re.compile(r"think|reason|thought|channel", re.IGNORECASE)
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja")
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_LISTED = ("additional_special_tokens", "extra_special_tokens")
_MAX_BYTES = 256_000_000


@dataclass(frozen=True)
class ControlTokens:
    """How a model's control tokens are spelled, and how they are split.

    `ids` are the tokens' numbers as far as the files name them. `folding` says that the tokenizer looks for some of them in
    normalized text, where full-width signs are plain ones.
    """

    names: frozenset[str]
    ids: frozenset[int] = frozenset()
    folding: bool = False
    joiner: str = JOINERS[0]

    def split(self, text: str, *, thinking: bool = False) -> str:
        """The text with every control token in it split.

        Args:
            text: somebody's words.
            thinking: leaves the marks of thinking whole, which chat templates look for in what the model said earlier.
        """
        if self.folding and not text.isascii():
            plain = unicodedata.normalize("NFKC", text)
            text = plain if self._pattern.search(plain) else text

        def apart(match: re.Match[str]) -> str:
            return match[2] if thinking and _THINKING.search(match[1]) else match[2] + self.joiner

        return self._pattern.sub(apart, text)

    def split_all(self, value: Any, *, thinking: bool = False) -> Any:
        """The same for every text in lists and objects, keys among them."""
        if isinstance(value, str):
            return self.split(value, thinking=thinking)
        if isinstance(value, dict):
            return {self.split(key, thinking=thinking): self.split_all(item, thinking=thinking) for key, item in value.items()}
        return [self.split_all(item, thinking=thinking) for item in value] if isinstance(value, list) else value

    def joined_by(self, joiner: str) -> ControlTokens:
        """The same tokens, split by another character."""
        return replace(self, joiner=joiner)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _compiled(self.names, folding=self.folding)


@cache
def of_unknown() -> ControlTokens:
    """The spellings of the families that are known, for text whose model is not."""
    return ControlTokens(frozenset())


def of_folder(folder: Path, *, template: Path | None = None) -> ControlTokens:
    """The control tokens of a model's or a tokenizer's folder, as its files name them. What is not there names none.

    Args:
        folder: where tokenizer.json, tokenizer_config.json or tekken.json are.
        template: a chat template that is used in place of the folder's own.
    """
    names: set[str] = set()
    ids: set[int] = set()
    folding = False
    tokenizer = _json(folder / "tokenizer.json")
    for token in _objects(tokenizer.get("added_tokens")):
        if token.get("special"):
            names.add(str(token.get("content", "")))
            ids.add(int(token.get("id", -1)))
            folding = folding or bool(token.get("normalized") and tokenizer.get("normalizer"))
    config = _json(folder / "tokenizer_config.json")
    for number, token in _items(config.get("added_tokens_decoder")):
        if isinstance(token, dict) and token.get("special"):
            names.add(str(token.get("content", "")))
            ids.add(int(number))
    for settings in (config, _json(folder / "special_tokens_map.json")):
        names.update(_named(settings))
    for token in _objects(_json(folder / "tekken.json").get("special_tokens")):
        names.add(str(token.get("token_str", "")))
    for text in _templates(folder, config, template):
        names.update(re.findall(_SHAPES, text, re.VERBOSE))
    return ControlTokens(frozenset(name for name in names if len(name) > 1 and name.strip()), frozenset(ids), folding)


def _compiled(names: frozenset[str], *, folding: bool) -> re.Pattern[str]:
    """Every token (1) that begins anywhere, overlapping ones among them, and its first character (2)."""
    written = _trie(names)
    ahead = rf"{written}|{_SHAPES}" if written else _SHAPES
    return re.compile(rf"(?=({ahead}))(.)", re.VERBOSE | re.DOTALL | (re.IGNORECASE if folding else re.NOFLAG))


def _trie(names: Iterable[str]) -> str:
    """A pattern that tries as many characters as match, and not every name: some tokenizers have thousands."""
    tree: dict[str, Any] = {}
    for name in names:
        node = tree
        for character in name:
            node = node.setdefault(character, {})
        node[""] = {}

    def write(node: dict[str, Any]) -> str:
        if "" in node:  # a longer one need not be looked for
            return ""
        parts = [f"{re.escape(character)}{write(below)}" for character, below in sorted(node.items())]
        return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"

    return write(tree) if tree else ""


def _named(settings: dict[str, Any]) -> Iterator[str]:
    """The tokens that a tokenizer's settings name one by one: texts, or objects with `content`."""
    values = [settings.get(key) for key in _NAMED]
    for key in _LISTED:
        listed = settings.get(key)
        values += list(listed.values()) if isinstance(listed, dict) else listed if isinstance(listed, list) else []
    for value in values:
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            yield content


def _templates(folder: Path, config: dict[str, Any], other: Path | None) -> Iterator[str]:
    own = config.get("chat_template")
    yield from [own] if isinstance(own, str) else [str(one.get("template", "")) for one in _objects(own)]
    for path in [path for pattern in _TEMPLATES for path in folder.glob(pattern)] + ([other] if other else []):
        if path.is_file() and path.stat().st_size < _MAX_BYTES:
            yield path.read_text(encoding="utf-8", errors="replace")


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(key, item) for key, item in value.items() if key.isdecimal()] if isinstance(value, dict) else []


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; nothing where there is none, which vLLM will say in its own words."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
