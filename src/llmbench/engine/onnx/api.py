"""The paths that the gateway asks of an engine.

GET  /health, /metrics, /v1/models
POST /v1/chat/completions, /v1/completions   answer, streamed or not
POST /tokenize, /detokenize
"""

from __future__ import annotations

import inspect
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from llmbench.engine.onnx import asked, shapes
from llmbench.engine.onnx.answering import AnswerStep, TokenWriter
from llmbench.engine.onnx.asked import ModelLimits, RefusedRequest, WantedAnswer
from llmbench.onnx_model import OnnxModel

__all__ = ["OnnxServer"]

_LOOK_EVERY = 8
"""Tokens between two looks whether the client is still there."""
_NOTHING = AnswerStep("", None, None, "length")
"""The end of an answer that is to have no token."""
_GONE = 499
"""The status that nobody reads, of a request whose client went; nginx's."""


class OnnxServer:
    """The server of one model.

    Args:
        model: the graph.
        tokenizer: transformers' own.
        root: the model's folder, as `/v1/models` tells it.
        name: what the model is called.
        context: tokens of prompt and answer together.
        threads: answers computed at the same moment.
    """

    def __init__(self, model: OnnxModel, tokenizer: Any, root: Path, *, name: str, context: int, threads: int) -> None:
        self._tokenizer, self._root, self._name, self._context = tokenizer, root, name, context
        self._limits = ModelLimits(context, model.vocabulary)
        self._no_variable = inspect.signature(tokenizer.apply_chat_template).parameters.keys() - {"kwargs"}
        self._reader = TokenWriter(model, tokenizer, threads)
        self._began = time.time()
        self._running = self._read = self._written = self._answers = 0

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._completions, methods=["POST"]),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/detokenize", self._detokenize, methods=["POST"]),
            ],
            exception_handlers={RefusedRequest: _refusal, ClientDisconnect: _nobody},
        )

    async def _health(self, request: Request) -> Response:
        return Response()

    async def _models(self, request: Request) -> Response:
        card = {
            "id": self._name,
            "object": "model",
            "created": int(self._began),
            "owned_by": "llmbench",
            "root": str(self._root),
        }
        return JSONResponse({"object": "list", "data": [card | {"parent": None, "max_model_len": self._context}]})

    async def _metrics(self, request: Request) -> Response:
        """vLLM's names, which dashboards know."""
        values = {
            "process_start_time_seconds": ("gauge", self._began),
            "vllm:num_requests_running": ("gauge", self._running),
            "vllm:prompt_tokens_total": ("counter", self._read),
            "vllm:generation_tokens_total": ("counter", self._written),
            "vllm:request_success_total": ("counter", self._answers),
        }
        label = f'{{model_name="{self._name}"}}'
        lines = [
            f"# TYPE {name} {kind}\n{name}{label if ':' in name else ''} {value}" for name, (kind, value) in values.items()
        ]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def _tokenize(self, request: Request) -> Response:
        body = await self._body(request)
        if "messages" in body:
            ids = self._chat_ids(body["messages"], body.get("chat_template_kwargs") or {})
        elif isinstance(body.get("prompt"), str):
            ids = self._ids(body["prompt"], add_special_tokens=body.get("add_special_tokens", True) is not False)
        else:
            raise RefusedRequest("send prompt, a text, or messages", "prompt")
        return JSONResponse({"count": len(ids), "max_model_len": self._context, "tokens": ids, "token_strs": None})

    async def _detokenize(self, request: Request) -> Response:
        ids = (await self._body(request)).get("tokens")
        if not isinstance(ids, list) or not all(isinstance(one, int) and 0 <= one < len(self._tokenizer) for one in ids):
            raise RefusedRequest("tokens must be a list of token ids", "tokens")
        return JSONResponse({"prompt": self._tokenizer.decode(ids)})

    async def _chat(self, request: Request) -> Response:
        body = await self._body(request)
        wanted = asked.chat(body, self._chat_ids, self._limits)
        head = self._head("chat.completion", "chatcmpl")
        if body.get("stream") is True:
            return _events(self._streamed(body, [wanted], head, chat=True))
        told, logits, cache = await self._prompt(wanted)
        choices: list[dict[str, Any]] = []
        written = 0
        for number in range(wanted.count):
            steps = await self._steps(request, wanted, logits, cache, number)
            written += len(steps)
            message = {"role": "assistant", "content": "".join(step.text for step in steps)}
            logprobs = shapes.chat_logprobs(steps, self._spell)
            choices.append(self._choice(number, steps, body) | {"message": message, "logprobs": logprobs})
        whole = head | {"choices": choices, "usage": shapes.usage(len(wanted.ids), written)}
        whole["prompt_logprobs"] = shapes.prompt_logprobs(told, self._spell)
        if body.get("return_token_ids") is True:
            whole["prompt_token_ids"] = list(wanted.ids)
        return JSONResponse(whole)

    async def _completions(self, request: Request) -> Response:
        body = await self._body(request)
        all_wanted = asked.completion(body, self._ids, self._limits)
        head = self._head("text_completion", "cmpl")
        if body.get("stream") is True:
            return _events(self._streamed(body, all_wanted, head, chat=False))
        choices: list[dict[str, Any]] = []
        written = 0
        for wanted in all_wanted:
            told, logits, cache = await self._prompt(wanted)
            for number in range(wanted.count):
                steps = await self._steps(request, wanted, logits, cache, number) if wanted.most else []
                written += len(steps)
                choice = self._choice(len(choices), steps, body) | {
                    "text": self._echoed(wanted) + "".join(s.text for s in steps)
                }
                told_all = [*(told if wanted.echo else []), *(step.told for step in steps if step.told is not None)]
                choice["logprobs"] = shapes.completion_logprobs(told_all, wanted.ids[0], self._spell)
                if wanted.prompt_logprobs is not None:
                    choice["prompt_logprobs"] = shapes.prompt_logprobs(told, self._spell)
                if body.get("return_token_ids") is True:
                    choice["prompt_token_ids"] = list(wanted.ids)
                choices.append(choice)
        read = sum(len(wanted.ids) for wanted in all_wanted)
        return JSONResponse(head | {"choices": choices, "usage": shapes.usage(read, written)})

    async def _streamed(
        self, body: dict[str, Any], all_wanted: list[WantedAnswer], head: dict[str, Any], *, chat: bool
    ) -> AsyncIterator[str]:
        options = body.get("stream_options") or {}
        often = options.get("continuous_usage_stats") is True and options.get("include_usage") is True
        head = head | ({"object": "chat.completion.chunk"} if chat else {})
        read, written, index = sum(len(wanted.ids) for wanted in all_wanted), 0, 0
        for wanted in all_wanted:
            told, logits, cache = await self._prompt(wanted)
            for number in range(wanted.count):
                if chat:
                    delta = {
                        "index": index,
                        "delta": {"role": "assistant", "content": ""},
                        "logprobs": None,
                        "finish_reason": None,
                    }
                    yield _event(head | {"choices": [delta]} | ({"usage": shapes.usage(read, written)} if often else {}))
                elif wanted.echo:
                    logprobs = shapes.completion_logprobs(told, wanted.ids[0], self._spell)
                    echoed = {"index": index, "text": self._echoed(wanted), "logprobs": logprobs, "finish_reason": None}
                    yield _event(head | {"choices": [echoed]})
                if wanted.most == 0:
                    yield _event(head | {"choices": [self._piece(index, _NOTHING, chat=chat)]})
                async for step in self._counted(wanted, logits, cache, number):
                    written += 1
                    if not step.text and step.reason is None and step.told is None and not often:
                        continue
                    choice = self._piece(index, step, chat=chat)
                    yield _event(head | {"choices": [choice]} | ({"usage": shapes.usage(read, written)} if often else {}))
                index += 1
        if options.get("include_usage") is True:
            yield _event(head | {"choices": [], "usage": shapes.usage(read, written)})
        yield "data: [DONE]\n\n"

    def _piece(self, index: int, step: AnswerStep, *, chat: bool) -> dict[str, Any]:
        ends = {"index": index, "finish_reason": step.reason} | ({"stop_reason": step.stop} if step.reason else {})
        if chat:
            return ends | {"delta": {"content": step.text}, "logprobs": shapes.chat_logprobs([step], self._spell)}
        told = [step.told] if step.told is not None else []
        return ends | {"text": step.text, "logprobs": shapes.completion_logprobs(told, None, self._spell)}

    async def _prompt(self, wanted: WantedAnswer) -> Any:
        self._read += len(wanted.ids)
        return await self._reader.prompt(wanted)

    async def _counted(self, wanted: WantedAnswer, logits: Any, cache: Any, number: int) -> AsyncGenerator[AnswerStep, None]:
        """The steps of an answer, counted for /metrics."""
        self._running += 1
        try:
            async for step in self._reader.answer(wanted, logits, cache, number):
                self._written += 1
                yield step
            self._answers += 1
        finally:
            self._running -= 1

    async def _steps(self, request: Request, wanted: WantedAnswer, logits: Any, cache: Any, number: int) -> list[AnswerStep]:
        """All steps of an answer.

        Raises:
            ClientDisconnect: the client went meanwhile.
        """
        steps: list[AnswerStep] = []
        async with aclosing(self._counted(wanted, logits, cache, number)) as written:
            async for step in written:
                steps.append(step)
                if len(steps) % _LOOK_EVERY == 0 and await request.is_disconnected():
                    raise ClientDisconnect
        return steps

    def _choice(self, index: int, steps: list[AnswerStep], body: dict[str, Any]) -> dict[str, Any]:
        last = steps[-1] if steps else _NOTHING
        found: dict[str, Any] = {"index": index, "finish_reason": last.reason, "stop_reason": last.stop}
        if body.get("return_token_ids") is True:
            found["token_ids"] = [step.token for step in steps]
        return found

    def _echoed(self, wanted: WantedAnswer) -> str:
        return str(self._tokenizer.decode(list(wanted.ids))) if wanted.echo else ""

    def _spell(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))

    def _head(self, kind: str, begins: str) -> dict[str, Any]:
        return {"id": f"{begins}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": self._name}

    def _chat_ids(self, messages: Any, variables: Any) -> list[int]:
        if not isinstance(variables, dict) or (own := variables.keys() & self._no_variable):
            named = f".{min(own)}" if isinstance(variables, dict) else ""
            raise RefusedRequest(f"chat_template_kwargs{named} is not a variable of the chat template", "chat_template_kwargs")
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **variables)
        except Exception as error:  # whatever the model's template raises of these messages
            raise RefusedRequest(f"the model's chat template does not take these messages ({error})", "messages") from error
        return self._ids(text, add_special_tokens=False)

    def _ids(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RefusedRequest("the text contains an unpaired surrogate, which no token stands for") from error
        found: list[int] = self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return found

    async def _body(self, request: Request) -> dict[str, Any]:
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise RefusedRequest("the body is not JSON") from error
        if not isinstance(body, dict):
            raise RefusedRequest("the body must be an object")
        if (name := body.get("model")) not in (None, self._name):
            raise RefusedRequest(f"The model `{str(name)[:100]}` does not exist.", "model", 404)
        return body


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedRequest)
    kind = "NotFoundError" if error.status == 404 else "BadRequestError"
    message, param = (None if one is None else _whole(one) for one in (str(error), error.param))
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": error.status}}, error.status)


def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=_GONE)


def _whole(text: str) -> str:
    """The same with halves of characters, which no answer can hold, spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _events(pieces: AsyncIterator[str]) -> Response:
    return StreamingResponse(pieces, media_type="text/event-stream")


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
