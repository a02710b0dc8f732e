"""The requests of benchmarks/fuzz_gateway.py, valid and broken, made from a description; one seed always makes the same."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

JSON = dict[str, Any]
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


@dataclass(frozen=True)
class Asked:
    """A request. `body` is what its bytes say, where they say something."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    raw: bytes
    body: Any = None
    id: str = ""


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
