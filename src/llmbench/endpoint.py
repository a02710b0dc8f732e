"""The client side of any OpenAI-compatible URL. Everything above asks models through this seam.

`Endpoint.chat` and `Endpoint.stream` are the seam's whole width; tests pass a small fake that has them.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llmbench.errors import EndpointError
from llmbench.message import Message
from llmbench.reasoning import reasoning_apart

if TYPE_CHECKING:
    import httpx  # a quarter of a second, which a search without an endpoint need not wait for

__all__ = ["KEY_HINT", "Budget", "Delta", "Endpoint", "HttpEndpoint", "Message", "Reply"]

KEY_HINT = " Check the key in OPENAI_API_KEY."
"""What a refused request says last."""


class Budget(Protocol):
    """What a served model has room for."""

    def count(self, text: str) -> int:
        """How many tokens a text has, special tokens left out."""
        ...

    def excess(self, messages: Sequence[Message]) -> int:
        """How many tokens a conversation, with room for its answer, is over what the model takes; 0 or less where it fits."""
        ...


@dataclass(frozen=True)
class Reply:
    """One answer.

    `latency` and `first_token` are seconds from the request's start; `first_token` is None when nothing was streamed.
    `sources` are the passages of a RAG variant: dicts with `n`, `source`, `title`, `start`, `end`, `score`, `text`.
    `reasoning` is what the model thought first, where it says so; `text` is the answer without it.
    `request_id` is what `HttpEndpoint.feedback` takes; empty where the server takes no feedback. `tool_calls` are as OpenAI's
    API has them. `logprobs` are (token, log-probability), where they were asked for. `fingerprint` is what the server says of
    itself (`system_fingerprint`). `openings` is what could have been the first token -> its log-probability, where
    `top_logprobs` was asked for.
    """

    text: str
    model: str
    latency: float
    first_token: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""
    sources: tuple[dict[str, Any], ...] = ()
    reasoning: str = ""
    request_id: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    logprobs: tuple[tuple[str, float], ...] = ()
    fingerprint: str = ""
    openings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed answer. The last one carries `reply`, the whole answer with its figures.

    `reasoning` is what a server with a reasoning parser sends apart; tags in `text` are for `reasoning_apart`.
    """

    text: str = ""
    reasoning: str = ""
    sources: tuple[dict[str, Any], ...] = field(default=())
    reply: Reply | None = None


class Endpoint(Protocol):
    """Whatever answers chats: the gateway, vLLM, or any other OpenAI-compatible server."""

    async def models(self) -> list[str]:
        """The model ids on offer."""
        ...

    async def chat(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> Reply:
        """One whole answer."""
        ...

    def stream(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> AsyncIterator[Delta]:
        """The answer piece by piece; the last piece carries the reply."""
        ...


class HttpEndpoint:
    """An OpenAI-compatible server at `base_url` (which ends in `/v1`). Use it as an async context manager.

    Raises (every method):
        EndpointError: nobody answers there, or it answers with an error; the message says what next.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        import httpx

        if not _is_url(base_url):
            raise EndpointError(f"{base_url!r:.200} is not a URL. Give one such as http://127.0.0.1:8000/v1")
        api_key = (api_key or "").strip()
        if not (api_key.isascii() and api_key.isprintable()):
            raise EndpointError("The API key holds characters that no key has, such as a line end or a typographic sign.")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=10.0),
            transport=transport,
            # Common servers close idle connections after five seconds; a request sent at that moment would be lost.
            limits=httpx.Limits(max_connections=256, keepalive_expiry=2.0),
            trust_env=not _is_local(base_url),
        )

    async def __aenter__(self) -> HttpEndpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def models(self) -> list[str]:
        """The ids of the models on offer that chat, in the server's order."""
        return [str(entry["id"]) for entry in await self.listing()]

    async def listing(self) -> list[dict[str, Any]]:
        """All that `/models` says of each model that chats; the gateway adds `adapter` and `rag`, either of which may be None.

        The gateway lists RAG pipelines as well, for embeddings and searches; they are left out here.
        """
        import httpx

        try:
            response = await self._client.get(f"{self.base_url}/models")
            response.raise_for_status()
            listed = [{**item, "id": str(item["id"])} for item in response.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise self._problem(error) from error
        return [item for item in listed if item.get("kind") != "pipeline"]

    async def health(self) -> str | None:
        """Why the server cannot answer although it is up (its engine has died), or None; a server without /health is fine."""
        import httpx

        try:
            response = await self._client.get(f"{self.base_url.removesuffix('/v1')}/health")
        except httpx.HTTPError as error:
            raise self._problem(error) from error
        if response.status_code < 500:
            return None
        return str(self._problem(httpx.HTTPStatusError("", request=response.request, response=response)))

    async def chat(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> Reply:
        """One whole answer, sampled as the variant says unless `max_tokens` is given."""
        import httpx

        start = time.perf_counter()
        try:
            response = await self._client.post(f"{self.base_url}/chat/completions", json=_body(messages, model, max_tokens))
            response.raise_for_status()
            data = response.json()
            if isinstance(data, dict) and data.get("error"):  # with status 200, as routers of several models have it
                raise EndpointError(f"{self.base_url} answered with an error: {_message_of(data)}")
            choice, usage = data["choices"][0], data.get("usage") or {}
            message = choice["message"]
            reasoning, text = reasoning_apart(message["content"] or "")
            return Reply(
                text=text,
                reasoning="\n\n".join(part for part in (_reasoning_of(message), reasoning) if part),
                model=model,
                latency=time.perf_counter() - start,
                prompt_tokens=usage.get("prompt_tokens") or 0,
                completion_tokens=usage.get("completion_tokens") or 0,
                finish_reason=choice.get("finish_reason") or "",
                sources=tuple(data.get("sources") or ()),
                request_id=_request_id(response),
            )
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._problem(error) from error

    async def stream(
        self,
        messages: Sequence[Message],
        model: str,
        *,
        max_tokens: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Delta]:
        """The answer as it is written; pieces come the moment the server sends them.

        Args:
            messages: the conversation.
            model: the name to ask for.
            max_tokens: most tokens of the answer; None is the variant's own.
            options: further fields of the request, such as `temperature`, `tools` or `logprobs`.
        """
        import httpx

        body = _body(messages, model, max_tokens) | dict(options or {})
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        heard, request_id = _Heard(time.perf_counter()), ""
        ended = False
        try:
            async with self._client.stream("POST", f"{self.base_url}/chat/completions", json=body) as response:
                if response.is_error:
                    await response.aread()
                response.raise_for_status()
                if response.headers.get("content-type", "").startswith("application/json"):
                    said = _message_of(json.loads(await response.aread()))
                    raise EndpointError(f"{self.base_url} sent no stream: {said}")
                request_id = _request_id(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    if line[5:].strip() == "[DONE]":
                        ended = True
                        continue
                    event = json.loads(line[5:])
                    if event.get("error"):
                        raise EndpointError(f"The model stopped mid-answer: {_message_of(event)} ({self.base_url})")
                    for piece in heard.event(event):
                        yield piece
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._problem(error) from error
        if not ended and not heard.finish:
            raise EndpointError(f"The model stopped mid-answer: the stream ended without its end ({self.base_url}).")
        yield Delta(sources=heard.sources, reply=heard.reply(model, request_id))

    async def feedback(
        self, request_id: str, value: bool | float, *, metric: Literal["vote", "judge"] = "vote", comment: str | None = None
    ) -> None:
        """Says how good an answer was; said again, the last holds, and a rollout counts the first.

        Args:
            request_id: the reply's.
            value: whether it was good; of a judge a score from 0 to 1.
            metric: who says so.
            comment: at most 4,000 characters, kept where the server captures conversations.
        """
        import httpx

        said = {"request_id": request_id, "metric": metric, "value": value} | ({"comment": comment} if comment else {})
        try:
            (await self._client.post(f"{self.base_url}/feedback", json=said)).raise_for_status()
        except httpx.HTTPError as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception) -> EndpointError:
        import httpx

        match error:
            case httpx.HTTPStatusError(response=response):
                status = response.status_code
                try:
                    reason = _message_of(response.json())
                except ValueError:
                    reason = " ".join(response.text.split())[:200]
                hint = KEY_HINT if status in (401, 403) else ""
                if hint and not reason.endswith((".", "!", "?")):
                    reason += "."
                return EndpointError(f"{self.base_url} answered {status}: {reason}{hint}", status=status)
            case httpx.ConnectError() | httpx.ConnectTimeout():
                return EndpointError(f"No endpoint answers at {self.base_url}. Start one: llmbench serve recipes/serve.yaml")
            case httpx.TimeoutException():
                return EndpointError(f"{self.base_url} timed out after {self._timeout:g} s. See the server's log.")
            case httpx.HTTPError():
                reason = f" ({error})" if str(error) else ""
                return EndpointError(f"{self.base_url} closed the connection mid-answer{reason}. See the server's log.")
            case _:
                return EndpointError(f"{self.base_url} does not speak the OpenAI API ({type(error).__name__}: {error}).")


class _Heard:
    """What came of a streamed answer so far, which began at `start` by `time.perf_counter`."""

    def __init__(self, start: float) -> None:
        self.finish, self.sources = "", tuple[dict[str, Any], ...]()
        self._start = start
        self._first: float | None = None
        self._text = self._thought = self._fingerprint = ""
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: list[tuple[str, float]] = []
        self._openings: dict[str, float] = {}

    def event(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        """Takes the next event; gives what of it is new to whoever reads along."""
        self._usage = event.get("usage") or self._usage
        self._fingerprint = str(event.get("system_fingerprint") or self._fingerprint)
        if event.get("sources"):
            self.sources = tuple(event["sources"])
            yield Delta(sources=self.sources)
        for choice in event.get("choices") or ():
            self.finish = choice.get("finish_reason") or self.finish
            delta = choice.get("delta") or {}
            self._openings = self._openings or ({} if self._logprobs else _openings_of(choice))
            self._logprobs += _logprobs_of(choice)
            for part in delta.get("tool_calls") or ():
                _join_call(self._calls, part)
            piece, reasoning = delta.get("content") or "", _reasoning_of(delta)
            if piece or reasoning:
                self._first = self._first if self._first is not None else time.perf_counter() - self._start
                self._text += piece
                self._thought += reasoning
                yield Delta(text=piece, reasoning=reasoning)

    def reply(self, model: str, request_id: str) -> Reply:
        """The whole answer, now that it has ended."""
        tagged, text = reasoning_apart(self._text)
        return Reply(
            text=text,
            reasoning="\n\n".join(part for part in (self._thought, tagged) if part),
            model=model,
            latency=time.perf_counter() - self._start,
            first_token=self._first,
            prompt_tokens=self._usage.get("prompt_tokens") or 0,
            completion_tokens=self._usage.get("completion_tokens") or 0,
            finish_reason=self.finish,
            sources=self.sources,
            request_id=request_id,
            tool_calls=tuple(self._calls[place] for place in sorted(self._calls)),
            logprobs=tuple(self._logprobs),
            fingerprint=self._fingerprint,
            openings=self._openings,
        )


def _reasoning_of(message: dict[str, Any]) -> str:
    """What a server's reasoning parser found: `reasoning` in today's vLLM and OpenRouter, `reasoning_content` in others."""
    found = message.get("reasoning") or message.get("reasoning_content") or ""
    return found if isinstance(found, str) else ""


def _logprobs_of(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """What a piece of an answer tells of its tokens, in their order."""
    told = (choice.get("logprobs") or {}).get("content") or ()
    return [(str(one["token"]), float(one["logprob"])) for one in told]


def _openings_of(choice: dict[str, Any]) -> dict[str, float]:
    """What could have stood in place of the first of these tokens."""
    told = (choice.get("logprobs") or {}).get("content") or ()
    return {str(one["token"]): float(one["logprob"]) for one in (told[0].get("top_logprobs") or ())} if told else {}


def _join_call(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    """Adds a piece of a tool call to what came of it before: names come whole, arguments in pieces."""
    place = part.get("index", len(calls))
    call = calls.setdefault(place, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call["id"] = part.get("id") or call["id"]
    function = part.get("function") or {}
    call["function"]["name"] = function.get("name") or call["function"]["name"]
    call["function"]["arguments"] += function.get("arguments") or ""


def _is_url(text: str) -> bool:
    """Whether a text is a URL that can be asked: of HTTP, with a host, and with a port that there is."""
    import httpx

    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return text.startswith(("http://", "https://")) and bool(url.host) and (url.port or 0) < 65_536


def _is_local(url: str) -> bool:
    """Whether a URL is on this machine, so that no proxy of the environment may stand between."""
    import httpx

    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")


def _request_id(response: httpx.Response) -> str:
    """The id by which llmbench's gateway takes feedback; other servers send such ids too, and take none."""
    return str(response.headers.get("x-request-id", "")) if "x-llmbench-variant" in response.headers else ""


def _body(messages: Sequence[Message], model: str, max_tokens: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": list(messages)}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return body


def _message_of(data: Any) -> str:
    """The text inside an OpenAI error, whatever its nesting."""
    error = data.get("error", data) if isinstance(data, dict) else data
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]
