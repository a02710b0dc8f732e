"""The confined process: lines of requests in, one line of JSON a request out.

A request that takes too long is interrupted by a timer of the process's own; where that does not help, the parent kills it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from llmbench.confined import inside
from llmbench.sandbox import patterns, programs, queries, schemas
from llmbench.sandbox.refusal import Beyond, Faulty, Impossible

_JOBS = {"search": patterns.search, "schema": schemas.check, "query": queries.same, "program": programs.passes}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What came of one request."""
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])
    try:
        return {"value": _JOBS[request["job"]](request)}
    except Impossible as error:
        return {"impossible": str(error)}
    except Beyond as error:
        return {"limit": str(error)}
    except Faulty as error:
        return {"fault": str(error)}
    except MemoryError:
        return {"limit": "fills the memory"}
    except RecursionError:
        return {"limit": "is nested too deeply"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Limits itself, then answers until the input ends."""
    answers = inside.confine(json.loads(sys.argv[1]))

    def late(*_: Any) -> None:
        raise Beyond("takes too long")

    signal.signal(signal.SIGPROF, late)
    for line in sys.stdin.buffer:
        for request in json.loads(line):
            try:
                said = answer(request)
            except Beyond as error:  # the timer, just as it was switched off
                said = {"limit": str(error)}
            answers.write(json.dumps(said).encode() + b"\n")
            answers.flush()


if __name__ == "__main__":
    main()
    os._exit(0)
