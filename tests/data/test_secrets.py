"""What counts as a secret, what does not, and that none is shown."""

from __future__ import annotations

import base64
import string
from random import Random

import pytest

from llmbench.data import secrets


def drawn(count: int, letters: str = string.ascii_letters + string.digits) -> str:
    """Random characters, drawn here so that no key-like text stands in a file."""
    return "".join(Random(count).choices(letters, k=count))


UPPER = string.ascii_uppercase + "234567"
SECRETS = {
    "AWS access key": "AKIA" + drawn(16, UPPER),
    "GitHub token": "ghp_" + drawn(36),
    "GitLab token": "glpat-" + drawn(20),
    "Anthropic key": "sk-ant-api03-" + drawn(80),
    "OpenAI key": "sk-proj-" + drawn(48),
    "Hugging Face token": "hf_" + drawn(34, string.ascii_letters),
    "Google API key": "AIza" + drawn(35),
    "Slack token": "xoxb-" + drawn(12, string.digits) + "-" + drawn(24),
    "Stripe key": "sk_live_" + drawn(24),
    "npm token": "npm_" + drawn(36),
    "PyPI token": "pypi-AgE" + drawn(60),
    "SendGrid key": "SG." + drawn(22) + "." + drawn(43),
    "llmbench key": "llmb-" + drawn(12, "0123456789abcdef") + "-" + drawn(43),
    "JSON web token": ".".join(["eyJhbGciOiJIUzI1NiJ9", "eyJ" + drawn(20), drawn(43)]),
    "private key": "-----BEGIN RSA PRIVATE KEY-----\n" + base64.b64encode(drawn(300).encode()).decode()
    + "\n-----END RSA PRIVATE KEY-----",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "card number": "4111 1111 1111 1111",
    "e-mail address": "ada.lovelace+notes@analytical-engine.co.uk",
}  # fmt: skip


@pytest.mark.parametrize("kind", SECRETS)
def test_each_kind_is_found_where_it_stands(kind: str) -> None:
    text = f"Take this: {SECRETS[kind]}, please."
    [one] = secrets.find(["nothing here", text])
    assert (one.kind, one.row) == (kind, 1)
    assert text[one.start : one.end] == SECRETS[kind]


def test_every_kind_is_tried_here() -> None:
    assert set(SECRETS) == set(secrets.KINDS)


@pytest.mark.parametrize("kind", SECRETS)
def test_none_is_shown_whole(kind: str) -> None:
    secret = SECRETS[kind]
    [one] = secrets.find([secret])
    hidden = secrets.hide(f"before {secret} after")
    longest = max(len(part) for part in secret.replace("@", " ").split())
    for shown in (one.shown, hidden):
        assert secret not in shown
        assert secret[len(secret) // 2 - 4 : len(secret) // 2 + 4] not in shown
    assert len(hidden) == len(f"before {secret} after")
    assert hidden.startswith("before ") and hidden.endswith(" after")
    assert longest > 3


@pytest.mark.parametrize(
    "text",
    [
        "Write to user@example.com or root@mail.example.org or me@host.test",
        "AKIAIOSFODNN7EXAMPLE is the example of the manual",
        "sk-" + "x" * 40,
        "ghp_" + "A" * 36,
        "the task-" + "based" * 10,
        "hf_hub_download loads a file, and npm_config_registry is a variable",
        "4111 1111 1111 1112 fails Luhn's check",
        "4444 4444 4444 4444",
        "The result is 4111.1111111111111 and -5500000000000004.5",
        "DE89 3704 0044 0532 0130 01 fails its check digits",
        "XX12 3456 7890 1234 is no country's",
        "@dataclass and a@b and x @ y.com",
        "-----BEGIN CERTIFICATE-----",
        "Call +44 20 7946 0958 on 12/03/2024",
        "",
    ],
)
def test_what_only_looks_alike_is_no_find(text: str) -> None:
    assert secrets.find([text]) == []
    assert secrets.hide(text) == text


def test_a_key_of_one_kind_is_not_another_kind_as_well() -> None:
    assert [one.kind for one in secrets.find([SECRETS["Anthropic key"]])] == ["Anthropic key"]


def test_nothing_is_found_across_two_texts() -> None:
    key = SECRETS["AWS access key"]
    assert secrets.find([key[:10], key[10:]]) == []
    assert secrets.find([key[:10] + "\0" + key[10:]]) == []


def test_an_unfinished_private_key_is_found_too() -> None:
    [one] = secrets.find(["a\n-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "b"])
    assert (one.kind, one.row) == ("private key", 0)


def test_many_in_one_text_each_count() -> None:
    text = " ".join(f"person{i}@firm{i}.com" for i in range(50))
    assert len(secrets.find([text])) == 50
    assert "person1" not in secrets.hide(text)
