"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.responses import Response

__all__ = ["Refusal", "as_json"]

_WRITTEN = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """A request that gets an error for an answer.

    Args:
        status: the HTTP status.
        message: what is wrong and what next, one line.
        param: the field of the request that it is about.
        code: a word for programs, such as `model_not_found`.
        retry_after: seconds until asking again may help.
        allow: the methods that the path has.
        retry: whether OpenAI's clients shall ask again; None leaves it to them.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: str | None = None,
        allow: str | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        again = None if retry is None else str(retry).lower()
        self._headers = {"Retry-After": retry_after, "Allow": allow, "x-should-retry": again}

    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The error object as an answer."""
        headers = {name: value for name, value in self._headers.items() if value is not None}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return as_json(self.body(), status=self.status, headers=headers)


def as_json(data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON document as an answer; half a character that the engine wrote in it becomes a question mark, as UTF-8 has none."""
    from starlette.responses import Response

    content = _WRITTEN.encode(data).encode("utf-8", "replace")
    return Response(content, status, headers, "application/json")
