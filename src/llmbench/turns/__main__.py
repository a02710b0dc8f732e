"""The process that renders chat templates: one line of settings, then lines of rows in, one line of JSON a row out.

It is confined, and limits the processor time of each row by a timer of its own, so that a row that takes too long is told in
words; where that does not help, the parent kills it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any, BinaryIO

import orjson

from llmbench.confined import inside
from llmbench.turns.page import Page
from llmbench.turns.refusal import Limit, Refused


def answer(page: Page, row: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The samples of a row, or why there are none."""
    import jinja2

    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return page.samples(row)
    except Refused as error:
        return {"reason": error.reason, "detail": str(error)}
    except Limit as error:
        return {"limit": str(error)}
    except MemoryError:
        return {"limit": "fills the memory"}
    except RecursionError:
        return {"limit": "calls itself without end"}
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        return {"reason": "the chat template refuses it", "detail": f"the model's chat template refuses this row: {detail}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Limits itself, then answers until the input ends."""
    import jinja2

    answers = inside.confine(json.loads(sys.argv[1]))
    setup = json.loads(sys.stdin.buffer.readline())
    seconds = setup["seconds"]

    def late(*_: Any) -> None:
        raise Limit(f"takes over {seconds:g} seconds for one row")

    signal.signal(signal.SIGPROF, late)
    try:
        page = Page(setup)
    except jinja2.TemplateSyntaxError as error:
        _say(answers, _line({"limit": f"is no valid Jinja (line {error.lineno}: {error.message})"}))
        return
    _say(answers, _line({}))
    for line in sys.stdin.buffer:
        said, since = bytearray(), time.monotonic()
        for row in json.loads(line):
            said += _line(answer(page, row, seconds))
            if len(said) > 2**16 or time.monotonic() - since > 1:
                _say(answers, said)
                said, since = bytearray(), time.monotonic()
        _say(answers, said)


def _line(value: dict[str, Any]) -> bytes:
    """An answer as a line; the fast writer refuses half characters and whole numbers beyond 64 bits."""
    try:
        return orjson.dumps(value) + b"\n"
    except TypeError:
        pass
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def _say(answers: BinaryIO, lines: bytes | bytearray) -> None:
    answers.write(lines)
    answers.flush()


if __name__ == "__main__":
    main()
    os._exit(0)
