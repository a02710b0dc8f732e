"""Requests at random, valid and broken, made from a server's own description, and what no answer to them may be.

    python benchmarks/fuzz_gateway.py http://127.0.0.1:8000 [--count 20000] [--seconds 600] [--seed 0] [--key KEY]

Needs jsonschema. Two thirds of the bodies are valid by the description; the others have values, fields or bytes changed. The
faults are an error that the engine has not made, an answer that the description does not name, no answer within a minute, and a
connection that cannot be used afterwards. One seed always makes the same requests. Exits with 1 on faults.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

JSON = dict[str, Any]
PATIENCE = 60.0
ENGINE = {"engine_error", "engine_unavailable", "server_overloaded", "request_timeout", "retrieval_unavailable"}
"""Codes of errors that are not the gateway's."""
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 5.0, 1.5, 2**31, 2**63 - 1, 2**63, -(2**70), 1e308, 1e-300, "", "x", "0", "true", "\x00",
    "\u2028", "<|im_start|>system", "../../etc/passwd", "http://169.254.169.254/", "{{ 7*7 }}", "é" * 50, "a" * 5000, [],
    [[]], {}, [None], ["x"] * 20, [1, 2, 3], {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, {"$ref": "#"},
    {"type": "function"}, [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}],
    {"role": "system", "content": "x"},
]  # fmt: skip
UNLISTED = [
    "chat_template", "documents", "extra_body", "guided_json", "guided_regex", "structured_outputs", "prompt_embeds",
    "priority", "kv_transfer_params", "vllm_xargs", "mm_processor_kwargs", "media_io_kwargs", "lora_path", "api_base", "echo",
    "use_beam_search", "prompt_logprobs", "cache_salt", "request_id", "add_generation_prompt", "continue_final_message",
    "truncate_prompt_tokens", "return_token_ids", "bad_words", "logits_processors", "include_stop_str_in_output",
    "allowed_token_ids", "__proto__", "",
]  # fmt: skip
PATHS = [
    "/", "/invocations", "/v1", "/v1/", "//v1/models", "/v1/../metrics", "/v1/%2e%2e/collective_rpc",
    "/v1/models/%2e%2e%2fmetrics", "/v1/load_lora_adapter", "/v1/chat/completions/batch", "/docs", "/tokenizer_info",
    "/v1/models/none", "/server_info", "/sleep", "/v1/chat/completions%00", "/health/", "/V1/models",
    "/v1/chat/completions?model=base", "/pause", "/v1/models/" + "a" * 3000,
]  # fmt: skip
HEADERS: list[tuple[str, str]] = [
    ("X-Vllm-Priority", "-1"), ("X-Request-Id", "a b\tc"), ("X-Request-Id", "r" * 500), ("X-data-parallel-rank", "7"),
    ("X-Session-ID", "s"), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("X-Forwarded-For", "1.2.3.4"), ("X-Original-URL", "/collective_rpc"), ("X-HTTP-Method-Override", "DELETE"),
    ("Accept", "text/html"), ("Range", "bytes=0-1"), ("Accept-Encoding", "gzip, br"), ("Cookie", "a=b"), ("Origin", "null"),
    ("If-None-Match", "*"), ("X-Timeout", "nan"),
]  # fmt: skip
_LAST = (
    b'data: {"error"', b"event: response.completed\n", b"event: response.incomplete\n", b"event: response.failed\n",
)  # fmt: skip
"""What a stream may end with, beside [DONE]."""


@dataclass(frozen=True)
class Asked:
    """A request. `body` is what its bytes say, where they say something."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    raw: bytes
    body: Any = None
    id: str = ""


@dataclass(frozen=True)
class Answer:
    """A status with the headers and the body that came with it."""

    status: int
    headers: dict[str, str]
    raw: bytes


@dataclass(frozen=True)
class Difference:
    """A request of which description and server do not both say that it is valid: `taken` is what the server did with it."""

    taken: bool
    param: str | None
    shown: str


@dataclass
class Report:
    """What was found, with the requests by status."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


class Requests:
    """Makes requests from a description. `longest` is the most tokens that a valid request asks for."""

    def __init__(self, description: JSON, seed: int, *, longest: int = 16) -> None:
        self._description, self._random, self._longest = description, random.Random(seed), longest
        self._schemas = description["components"]["schemas"]
        self._made = 0
        self._operations = [
            (method.upper(), path, operation)
            for path, methods in description["paths"].items()
            for method, operation in methods.items()
            for _ in range(6 if "requestBody" in operation else 1)
        ]

    def __iter__(self) -> Iterator[Asked]:
        while True:
            yield self._one()

    def _one(self) -> Asked:
        chance = self._random
        self._made += 1
        method, path, operation = chance.choice(self._operations)
        headers = [("Content-Type", "application/json")] if "requestBody" in operation else []
        path, body, raw = path.replace("{name}", chance.choice(["base", "none", "%00", "a/b"])), None, b""
        if "requestBody" in operation:
            body = self._value(operation["requestBody"]["content"]["application/json"]["schema"])
            if path == "/v1/feedback" and chance.random() < 0.8:  # on one of those before, which may have been answered
                body["request_id"] = f"fuzz-{self._made - chance.randint(1, 9)}"
            if chance.random() < 0.35:
                for _ in range(chance.randint(1, 3)):
                    body = self._changed(body)
            raw, body = self._written(body)
        if chance.random() < 0.05:
            path = chance.choice(PATHS)
        if chance.random() < 0.03:
            method = chance.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
        if chance.random() < 0.1:
            headers += chance.sample(HEADERS, 2)
        if chance.random() < 0.02:
            headers = [
                ("Content-Type", chance.choice(["text/plain", "application/json; charset=utf-16", "application/x-ndjson"]))
            ]
        return Asked(method, path, headers, raw, body, f"fuzz-{self._made}")

    def _value(self, schema: JSON, depth: int = 0) -> Any:
        """A value that a schema allows."""
        chance = self._random
        if "$ref" in schema:
            return self._value(self._schemas[schema["$ref"].rpartition("/")[2]], depth)
        if schema.get("examples"):
            return chance.choice(schema["examples"])
        if "const" in schema or "enum" in schema:
            return deepcopy(chance.choice(schema.get("enum", [schema.get("const")])))
        if "anyOf" in schema and "type" not in schema:
            return self._value(chance.choice(schema["anyOf"]), depth)
        types = schema.get("type", "string")
        kind = types if isinstance(types, str) else chance.choice([one for one in types if one != "null"] * 5 + types[-1:])
        match kind:
            case "null":
                return None
            case "boolean":
                return chance.random() < 0.5
            case "integer":
                lowest = schema.get("minimum", -(2**63))
                return chance.randint(max(lowest, 0), min(schema.get("maximum", 2**63 - 1), max(lowest, 0) + self._longest))
            case "number":
                lowest = schema.get("minimum", schema.get("exclusiveMinimum", -2) + 1e-3)
                return round(chance.uniform(lowest, schema.get("maximum", lowest + 2)), 3)
            case "string":
                return chance.choice(["a", "Hello there.", "Ein Käse 🧀", "x" * 40, "{}", '{"a": [1]}', "<|im_end|>"])
            case "array":
                most = min(schema.get("maxItems", 3), 3)
                count = chance.randint(schema.get("minItems", 0), most)
                return [self._value(schema.get("items", {}), depth + 1) for _ in range(count)]
            case _:
                return self._object(schema, depth)

    def _object(self, schema: JSON, depth: int) -> JSON:
        chance, found = self._random, JSON()
        required = schema.get("required", [])
        for name, child in schema.get("properties", {}).items():
            if name in required or chance.random() < 0.12:
                found[name] = self._value(child, depth + 1)
        if "propertyNames" in schema and "additionalProperties" in schema:
            digits = "[0-9]" in schema["propertyNames"].get("pattern", "")
            for _ in range(chance.randint(0, 2)):
                name = str(chance.randint(0, 200)) if digits else chance.choice(["enable_thinking", "a", "_b1"])
                found[name] = self._value(schema["additionalProperties"], depth + 1)
        if "if" in schema:
            holds = Draft202012Validator(schema["if"]).is_valid(found)
            branch = schema.get("then" if holds else "else", {})
            for name, child in branch.get("properties", {}).items():
                found[name] = self._value(child, depth + 1)
        return found

    def _changed(self, body: Any) -> Any:
        """A body with something else at one of its places."""
        chance, places = self._random, list(_places(body))
        parent, key = chance.choice(places) if places else (None, None)
        odd = chance.choice(ODD)
        if parent is None:
            return odd
        match chance.randint(0, 4):
            case 0 | 1:
                parent[key] = odd
            case 2 if isinstance(parent, dict):
                del parent[key]
            case 3 if isinstance(parent, dict):
                parent[chance.choice(UNLISTED)] = odd
            case _:
                nested: Any = parent[key]
                for _ in range(chance.choice([1, 2, 40, 70])):
                    nested = [nested] if chance.random() < 0.5 else {"a": nested}
                parent[key] = nested
        return json.loads(json.dumps(body))  # the odd values are shared

    def _written(self, body: Any) -> tuple[bytes, Any]:
        """A body as bytes, now and then damaged ones, and what they say then."""
        chance, raw = self._random, json.dumps(body, ensure_ascii=self._random.random() < 0.5).encode()
        if chance.random() > 0.06:
            return raw, body
        at = chance.randrange(len(raw))
        match chance.randint(0, 6):
            case 0:
                return raw[:at], None
            case 1:
                return raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :], None
            case 2:
                return raw.replace(b"{", b'{"model": "base", "model": "other", ', 1), None
            case 3:
                return raw.replace(b": 1", b": " + chance.choice([b"NaN", b"-Infinity", b"1" * 5000, b"1e999"]), 1), None
            case 4:
                return json.dumps(body).encode("utf-16"), None
            case 5:
                return b"[" * 100_000, None
            case _:
                return raw + chance.choice([b"}", b"\x00", b" ", b"{}"]), None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list and object in a value with each of its keys."""
    for key, child in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from _places(child)


def _beyond(body: JSON) -> bool:
    """Whether a body has what no schema can forbid: a field of more than 64 levels, or a whole number beyond 64 bits."""
    level, depth = list(body.values()), 0
    while level:
        if any(type(one) is int and not -(2**63) <= one < 2**63 for one in level):
            return True
        level = [one for outer in level for one in (outer.values() if isinstance(outer, dict) else _listed(outer))]
        depth += 1
    return depth > 64


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class Judge:
    """Holds answers against a description."""

    def __init__(self, description: JSON) -> None:
        self._description = description

    def valid(self, asked: Asked) -> bool | None:
        """Whether a request is as the description wants it; None where it does not say."""
        operation = self._operation(asked)
        if operation is None or asked.body is None or "requestBody" not in operation or len(asked.headers) != 1:
            return None
        if asked.headers != [("Content-Type", "application/json")]:
            return None
        if not isinstance(asked.body, dict) or _beyond(asked.body):
            return False
        said = {name: value for name, value in asked.body.items() if value is not None}
        return self._fits(said, operation["requestBody"]["content"]["application/json"]["schema"])

    def faults(self, asked: Asked, answer: Answer) -> Iterator[str]:
        """What is wrong with an answer."""
        operation, kind = self._operation(asked), answer.headers.get("content-type", "").partition(";")[0]
        status = answer.status
        if asked.method == "HEAD":
            return
        described = (operation or {}).get("responses", {}).get(str(status))
        if described is None and status not in (404, 405, 414):
            yield f"{status} is not described"
        if kind == "text/event-stream":
            last = answer.raw.strip().rpartition(b"\n\n")[2]
            if last != b"data: [DONE]" and not last.startswith(_LAST):
                yield f"the stream ends in {last[:100]!r}"
            return
        if kind == "text/plain":
            return
        try:
            data = json.loads(answer.raw)
        except ValueError:
            yield f"{status} is no JSON: {answer.raw[:100]!r}"
            return
        if status >= 400:
            if not self._fits(data, {"$ref": "#/components/schemas/Error"}):
                yield f"{status} is no error as described: {answer.raw[:200]!r}"
                return
            error = data["error"]
            if "\n" in error["message"] or len(error["message"]) > 1000:
                yield f"{status} has a message of several lines: {error['message'][:200]!r}"
            if status >= 500 and error["code"] not in ENGINE:
                yield f"{status}: {error['message']}"
        elif described and not self._fits(data, described["content"]["application/json"]["schema"]):
            yield f"{status} is not as described: {answer.raw[:300]!r}"

    def _operation(self, asked: Asked) -> JSON | None:
        path = asked.path.partition("?")[0]
        path = re.sub(
            "^/v1/models/.+", "/v1/models/{name}", re.sub("^(/v1/vector_stores/)[^/]+(/search)$", r"\1{name}\2", path)
        )
        found: JSON | None = self._description["paths"].get(path, {}).get(asked.method.lower())
        return found

    def _fits(self, value: Any, schema: JSON) -> bool:
        fits: bool = Draft202012Validator({**schema, "components": self._description["components"]}).is_valid(value)
        return fits


class Connection:
    """One connection, kept open from request to request where the server allows it."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        self._there = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=PATIENCE)
        self._key = [("Authorization", f"Bearer {key}")] if key else []

    def ask(self, asked: Asked) -> Answer:
        """The answer.

        Raises:
            OSError, http.client.HTTPException: none came.
        """
        self._there.putrequest(asked.method, asked.path, skip_accept_encoding=True)
        for name, value in [*asked.headers, *self._key, *([("X-Request-Id", asked.id)] if asked.id else [])]:
            self._there.putheader(name, value)
        if asked.raw or asked.method == "POST":
            self._there.putheader("Content-Length", str(len(asked.raw)))
        self._there.endheaders(asked.raw or None)
        response = self._there.getresponse()
        raw = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, raw)

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        self._there.close()


def fuzz(url: str, *, count: int, seed: int = 0, seconds: float = 1e9, key: str | None = None, most: int = 20) -> Report:
    """Asks a server and judges its answers, until there are `most` faults."""
    report, end = Report(), time.monotonic() + seconds
    with closing(Connection(url, key)) as connection:
        description = json.loads(connection.ask(Asked("GET", "/openapi.json", [], b"")).raw)
        judge = Judge(description)
        for number, asked in enumerate(Requests(description, seed)):
            if number >= count or time.monotonic() > end or len(report.faults) >= most:
                break
            shown = f"{asked.method} {asked.path[:80]} {asked.headers} {asked.raw[:1500]!r}"
            try:
                answer = connection.ask(asked)
                report.statuses[answer.status] += 1
                report.faults += [f"{fault}\n    {shown}" for fault in judge.faults(asked, answer)]
                valid, taken = judge.valid(asked), answer.status < 400
                if valid is not None and valid != taken and (taken or answer.status in (400, 413, 415)):
                    param = None if taken else json.loads(answer.raw)["error"]["param"]
                    report.differences.append(Difference(taken, param, f"{answer.raw[:300]!r}\n    {shown}"))
                if number % 10 == 0 and connection.ask(Asked("GET", "/health", [], b"")).status != 200:
                    report.faults.append(f"/health fails afterwards\n    {shown}")
            except (OSError, http.client.HTTPException) as error:
                report.faults.append(f"{type(error).__name__}: {error}\n    {shown}")
                connection.close()
    return report


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key")
    given = parser.parse_args()
    report = fuzz(given.url, count=given.count, seed=given.seed, seconds=given.seconds, key=given.key)
    for one in report.differences[:20]:
        print(f"note: {'taken, though not' if one.taken else 'refused, though'} as described: {one.shown}")
    for text in report.faults:
        print(f"FAULT: {text}")
    print(f"{report.statuses.total():,} requests: {dict(sorted(report.statuses.items()))}; {len(report.faults)} faults")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
