"""A real HTTP server in OpenAI's protocol whose variants answer with a known quality and whose judges have known faults."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PART = r"{nonce} BEGIN {name}\n(.*?)\n{nonce} END {name}"


@dataclass
class Judging:
    """How a judge judges. `errs` is how often it says anything, `side` and `length` what it adds for the first and the longer
    one, in points of quality."""

    errs: float = 0.0
    side: float = 0.0
    length: float = 0.0


@dataclass
class World:
    """What the server knows: qualities of answers, judges, and all that it was asked."""

    judges: dict[str, Judging] = field(default_factory=lambda: {"judge": Judging()})
    strange: str = ""
    """What a variant `sly` adds to each of its answers."""
    logprobs: bool = True
    broken: bool = False
    raw: str | None = None
    """What every judge says in place of a verdict."""
    prompts: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0


def chance(*parts: object) -> float:
    """A number from 0 to 1 that is always the same for the same parts."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16) / 16**12


def quality(variant: str, question: str) -> int:
    """0 to 9: `good` is mostly better than `bad`, and longer."""
    base = {"good": 5.5, "sly": 3.0}.get(variant, 3.5)
    return max(0, min(9, round(base + 6 * (chance("quality", variant, question) - 0.5))))


def answer(world: World, variant: str, question: str) -> str:
    words = 3 + int(12 * chance("words", variant, question)) + (4 if variant == "good" else 0)
    return (
        f"Quality {quality(variant, question)}."
        + (" term" if variant == "good" else "")
        + " word" * words
        + (world.strange if variant == "sly" else "")
    )


def parts(prompt: str) -> dict[str, str]:
    """What stands between the markers."""
    nonce = re.search(r"lines that begin with (\w+) was written", prompt)
    assert nonce is not None, prompt
    found = {}
    for name in ("REQUEST", "RIGHT ANSWER", "ANSWER", "ANSWER A", "ANSWER B"):
        if match := re.search(PART.format(nonce=nonce[1], name=name), prompt, re.DOTALL):
            found[name] = match[1]
    return found


def worth(text: str) -> int:
    return int(text.split("Quality ")[1][0])


def likes(how: Judging, model: str, a: str, b: str) -> float:
    """How much the judge prefers the first one, in points."""
    if chance("errs", model, *sorted((a, b))) < how.errs:
        lead = 6 * (chance("noise", model, *sorted((a, b))) - 0.5) * (1 if a < b else -1)
    else:
        lead = float(worth(a) - worth(b))
    return lead + how.side + how.length * ((len(a) > len(b)) - (len(a) < len(b)))


def judged(world: World, body: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """The reply, and what could have been its first token."""
    prompt = body["messages"][-1]["content"]
    world.prompts.append(prompt)
    how, found, letters = world.judges[body["model"]], parts(prompt), "one letter" in prompt or "one digit" in prompt
    if world.raw is not None:
        return world.raw, {}
    if "ANSWER A" in found:
        lead = likes(how, body["model"], found["ANSWER A"], found["ANSWER B"])
        verdict = "A" if lead > 0.5 else "B" if lead < -0.5 else "tie"
        first = 1 / (1 + math.exp(-lead))
        if letters:
            return verdict.replace("tie", "C"), {
                "A": math.log(0.9 * first),
                " B": math.log(0.9 * (1 - first)),
                "C": math.log(0.1),
            }
        return json.dumps({"reason": f"It has more by {lead:.1f} <b>points</b>.", "verdict": verdict}), {}
    stars = 1 + worth(found["ANSWER"]) // 2
    if "Items:" in prompt:
        items = prompt.split("Items:\n")[1].split("\n\n")[0].count("\n") + 1
        return json.dumps({"reason": "Counted.", "items": [worth(found["ANSWER"]) > 3 * i for i in range(items)]}), {}
    if letters:
        return str(stars), {str(stars): math.log(0.8), str(max(1, stars - 1)) + " ": math.log(0.2)}
    return json.dumps({"reason": "Looked at it.", "rating": stars}), {}


class _Handler(BaseHTTPRequestHandler):
    world: World

    def do_GET(self) -> None:
        names = ["good", "bad", "sly", *self.world.judges]
        self._send(json.dumps({"data": [{"id": name, "adapter": {"id": name}, "rag": None} for name in names]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said: list[dict[str, Any]]
        if " BEGIN REQUEST" in body["messages"][-1]["content"]:
            self.world.bodies.append(body)
            if self.world.broken:
                self._send(json.dumps({"error": {"message": "response_format is not known"}}), status=400)
                return
            text, openings = judged(self.world, body)
        else:
            self.world.answered += 1
            text, openings = answer(self.world, body["model"], body["messages"][-1]["content"]), {}
        choice: dict[str, Any] = {"delta": {"content": text}}
        if openings and body.get("logprobs") and self.world.logprobs:
            top = [{"token": token, "logprob": value} for token, value in openings.items()]
            choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "top_logprobs": top}]}
        said = [{"choices": [choice]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {"prompt_tokens": 99, "completion_tokens": 9}}]  # fmt: skip
        self._send("".join(f"data: {json.dumps(one)}\n\n" for one in said) + "data: [DONE]\n\n", "text/event-stream")

    def _send(self, text: str, kind: str = "application/json", status: int = 200) -> None:
        data = text.encode()
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(world: World) -> Iterator[str]:
    """The server's base URL."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"world": world}))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
