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
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fuzz_requests import JSON, Asked, Requests
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

PATIENCE = 60.0
ENGINE = {"engine_error", "engine_unavailable", "server_overloaded", "request_timeout", "retrieval_unavailable"}
"""Codes of errors that are not the gateway's."""
_LAST = (
    b'data: {"error"', b"event: response.completed\n", b"event: response.incomplete\n", b"event: response.failed\n",
)  # fmt: skip
"""What a stream may end with, beside [DONE]."""


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
