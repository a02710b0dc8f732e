"""Secrets and personal data in texts: what is found with few false alarms, and never shown whole.

Keys are told by the prefixes that their issuers publish; card numbers and IBANs by their checksums; e-mail addresses by
their form, leaving out the domains that are reserved for examples (RFC 2606). Telephone numbers, names and addresses are
not looked for: no pattern tells them from other text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["KINDS", "Found", "find", "hide", "redacted"]

_BETWEEN = "\0"


@dataclass(frozen=True)
class Found:
    """One find in one text."""

    kind: str
    row: int
    """Number of the text."""
    start: int
    end: int
    shown: str
    """Enough to recognise it by, the rest as dots."""


@dataclass(frozen=True)
class _Kind:
    pattern: re.Pattern[str]
    signs: tuple[str, ...]
    """One of these stands in every match: a text without them need not be searched."""
    key: bool
    """Whether it opens something, or tells of a person."""
    head: int
    """Characters that may be shown: what everyone knows of it, as its prefix."""
    holds: Callable[[str], bool] = lambda text: True
    """The check that the pattern alone cannot make."""
    tail: int = 0


def _luhn(text: str) -> bool:
    """Whether digits end in Luhn's check digit (ISO/IEC 7812-1) and are not one digit over and over."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


_IBAN = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24,
    "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "RS": 22, "SA": 24, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "TR": 26, "UA": 29,
}  # fmt: skip
"""Country -> characters of its IBANs."""


def _iban(text: str) -> bool:
    """Whether the length is the country's and the check digits are right (ISO 13616: the number modulo 97 is 1)."""
    number = "".join(text.split()).upper()
    moved = number[4:] + number[:4]
    return len(number) == _IBAN.get(number[:2], 0) and int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


def _private(text: str) -> bool:
    domain = text.rsplit("@", 1)[1].lower()
    reserved = domain.rsplit(".", 1)[-1] in ("example", "test", "invalid", "localhost")
    return not reserved and not re.search(r"(^|\.)example\.(com|net|org)$", domain)


def _varied(text: str) -> bool:
    """Whether it looks drawn at random and not like a placeholder such as `sk-xxxxxxxx` or `AKIAEXAMPLE...`."""
    body = re.sub(r"^[A-Za-z]+[-_]", "", text)
    return len(set(body)) >= 8 and "example" not in text.lower()


def _key(*signs: str, pattern: str, head: int = 4, holds: Callable[[str], bool] = _varied) -> _Kind:
    return _Kind(re.compile(pattern), signs, True, head, holds)


def _personal(*signs: str, pattern: str, holds: Callable[[str], bool], head: int = 0, tail: int = 0) -> _Kind:
    return _Kind(re.compile(pattern), signs, False, head, holds, tail)


KINDS = {
    "private key": _key(
        "PRIVATE KEY",
        pattern=r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----[^\0]{0,8000}?"
        r"(?:-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----|(?=\0)|$)",
        head=27,
        holds=lambda text: True,
    ),
    "AWS access key": _key("AKIA", "ASIA", pattern=r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    "GitHub token": _key(
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        pattern=r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    ),
    "GitLab token": _key("glpat-", pattern=r"\bglpat-[A-Za-z0-9_-]{20,}", head=6),
    "Anthropic key": _key("sk-ant-", pattern=r"\bsk-ant-[A-Za-z0-9_-]{32,}", head=7),
    "OpenAI key": _key("sk-", pattern=r"\bsk-(?!ant-)(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{32,}", head=3),
    "Hugging Face token": _key("hf_", pattern=r"\bhf_[A-Za-z]{30,}\b", head=3),
    "Google API key": _key("AIza", pattern=r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    "Slack token": _key("xox", pattern=r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}", head=5),
    "Stripe key": _key("k_live_", "k_test_", pattern=r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{20,}", head=8),
    "npm token": _key("npm_", pattern=r"\bnpm_[A-Za-z0-9]{36}\b"),
    "PyPI token": _key("pypi-AgE", pattern=r"\bpypi-AgE[A-Za-z0-9_-]{50,}", head=5),
    "SendGrid key": _key("SG.", pattern=r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", head=3),
    "llmbench key": _key("llmb-", pattern=r"\bllmb-[0-9a-f]{12}-[A-Za-z0-9_-]{43}", head=5),
    "JSON web token": _key("eyJ", pattern=r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}", head=3),
    "IBAN": _personal(
        pattern=r"\b[A-Z]{2}[0-9]{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b", head=2, holds=_iban, tail=2
    ),
    "card number": _personal(
        pattern=r"(?<![\d.,-])(?:(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|6011)(?:([ -]?)\d{4}(?:\1\d{4}){2})"
        r"|3[47]\d{2}([ -]?)\d{6}\2\d{5})(?![\d-]|[.,]\d)",
        holds=_luhn,
        tail=4,
    ),
    "e-mail address": _personal(
        "@",
        pattern=r"(?<![\w.%+-])[A-Za-z0-9][\w.%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w@])",
        head=1,
        holds=_private,
    ),
}
"""What is looked for; a text that two kinds match counts for the first."""


def find(texts: Sequence[str]) -> list[Found]:
    """Everything found, in the order of the texts."""
    together = _BETWEEN.join(text.replace(_BETWEEN, " ") for text in texts)
    starts = [0, *accumulate(len(text) + 1 for text in texts)]
    found: list[Found] = []
    taken: dict[int, list[tuple[int, int]]] = {}
    for name, start, end in _matches(together):
        row = bisect_right(starts, start) - 1
        start, end = start - starts[row], end - starts[row]
        if any(start < b and a < end for a, b in taken.setdefault(row, [])):
            continue
        taken[row].append((start, end))
        found.append(Found(name, row, start, end, _shown(name, texts[row][start:end])))
    return sorted(found, key=lambda one: (one.row, one.start))


def _matches(text: str) -> Iterator[tuple[str, int, int]]:
    for name, kind in KINDS.items():
        if kind.signs and not any(sign in text for sign in kind.signs):
            continue
        for match in kind.pattern.finditer(text):
            if kind.holds(match[0]):
                yield name, match.start(), match.end()


def _shown(name: str, text: str) -> str:
    kind = KINDS[name]
    if name == "e-mail address":
        user, _, domain = text.partition("@")
        return f"{user[:1]}…@{domain[:1]}….{domain.rsplit('.', 1)[1]}"
    return f"{text[: kind.head]}…{text[len(text) - kind.tail :]} ({len(text):,} characters)"


def redacted(text: str) -> str:
    """The text with every find in it replaced by its kind in brackets; a find in what then stands there too."""
    while found := find([text]):
        for one in reversed(found):
            text = f"{text[: one.start]}[{one.kind}]{text[one.end :]}"
    return text


def hide(text: str) -> str:
    """The text with every find in it dotted out but for its head and tail; as long as before."""
    for one in find([text]):
        kind = KINDS[one.kind]
        hidden = "".join(
            char if char.isspace() or i < kind.head or i >= one.end - one.start - kind.tail else "•"
            for i, char in enumerate(text[one.start : one.end])
        )
        text = text[: one.start] + hidden + text[one.end :]
    return text
