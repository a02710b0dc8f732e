"""Bytes -> a JSON object that can be written again for vLLM, or a refusal that says in one line what is wrong with them."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from llmbench.gateway.refusal import Refusal

__all__ = ["JSON", "KINDS", "MAX_DEPTH", "arguments_of", "check_range", "check_type", "check_types", "read"]

JSON = dict[str, Any]
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_DEPTH = 64
_INT64 = 2**63
_DIGITS = 30
"""Digits of a whole number that Python should still read; more take it a time that grows with their square."""

KINDS: dict[str, tuple[type, ...]] = {
    "a number": (int, float),
    "a whole number": (int,),
    "true or false": (bool,),
    "a text": (str,),
    "an object": (dict,),
    "a list": (list,),
    "a text or a list of texts": (str, list),
    "a text or an object": (str, dict),
}


class _Twice(ValueError):
    """A key that appears twice in one object."""


def read(raw: bytes) -> JSON:
    """The object in a request's body.

    Raises:
        Refusal: status 400: it is no UTF-8, no JSON, no object, has a key twice, is nested deeper than 64, or holds something
            that JSON cannot say (NaN, a number beyond a double, half a surrogate pair). `param` is the top-level field.
    """
    try:
        text = raw.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise Refusal(400, f"The body is not UTF-8 (byte {error.start} is {raw[error.start]:#04x}).") from None
    try:
        body = _READ.decode(text)
    except _Twice as error:
        raise Refusal(400, f"The body names {str(error)!r:.100} twice in one object.") from None
    except RecursionError:
        raise Refusal(400, f"The body is nested deeper than {MAX_DEPTH}.") from None
    except json.JSONDecodeError as error:
        raise Refusal(400, f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The body is not a JSON object.")
    for key, value in body.items():
        fault = (_SURROGATE.search(key) and "its name holds half a character (a lone surrogate)") or _fault(value)
        if fault:
            shown = key.encode("ascii", "backslashreplace").decode()[:100]
            raise Refusal(400, f"{shown}: {fault}.", param=shown)
    return body


def check_type(name: str, value: Any, kind: str) -> None:
    """Refuses a value that is not of a kind, such as `a number`; what is null counts as absent and is not asked about."""
    types = KINDS[kind]
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if fits and kind == "a text or a list of texts" and isinstance(value, list):
        fits = all(isinstance(item, str) for item in value)
    if not fits:
        raise Refusal(400, f"{name} must be {kind}, not {json.dumps(value)[:40]}.", param=name)


def check_types(fields: JSON, kinds: Mapping[str, str]) -> None:
    """The same for every field, by the kind of its name. A whole number may be written 5.0, as some clients write every one."""
    for key, value in list(fields.items()):
        if kinds[key] == "a whole number" and isinstance(value, float) and value.is_integer():
            fields[key] = value = int(value)
        check_type(key, value, kinds[key])


def check_range(name: str, value: float, lowest: int, highest: int) -> None:
    """Refuses a whole number, whose kind was checked before, that is out of bounds."""
    if not lowest <= value <= highest:
        raise Refusal(400, f"{name} must be a whole number from {lowest} to {highest}, not {value!r:.40}.", param=name)


def arguments_of(text: str) -> str:
    """A call's arguments as vLLM will read them: an object without escapes, or an empty one where the text writes none."""
    try:
        found = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return "{}"
    if not isinstance(found, dict) or "nested" in (_fault(found) or ""):
        return "{}"
    return _SURROGATE.sub("\ufffd", json.dumps(found, ensure_ascii=False))


def _object(pairs: list[tuple[str, Any]]) -> JSON:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Twice(key)
            seen.add(key)
    return found


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


_READ = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole)


def _fault(value: Any) -> str | None:
    """What in a value JSON cannot say, looked for without recursion."""
    level, depth = [value], 1
    while level:
        if depth > MAX_DEPTH:
            return f"it is nested deeper than {MAX_DEPTH}"
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                if not item.isascii() and _SURROGATE.search(item):
                    return "a text holds half a character (a lone surrogate)"
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, float) and not math.isfinite(item):
                return "a number is not finite (NaN, Infinity, or too large for a double)"
            elif isinstance(item, int) and not -_INT64 <= item < _INT64:
                return "a whole number does not fit into 64 bits"
        level, depth = below, depth + 1
    return None
