"""torchrun with a quiet end: `python -m llmbench.training.distributed.agent TORCHRUN'S ARGUMENTS`.

torch's elastic agent starts the processes, meets the agents of other machines, and ends all when one fails. What failed goes to
`failed.json` of the folder that the environment names, in place of a traceback. Exit code: 0, 1 where a process failed, or 130.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from llmbench.training.distributed import report

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Runs torchrun; returns the exit code."""
    report.die_with_parent()
    logging.disable(logging.CRITICAL)  # what failed is written down, and said once
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        failed = {str(rank): failure.exitcode for rank, failure in error.failures.items()}
        place = Path(os.environ[report.FOLDER])
        (place / "failed.json").write_text(json.dumps(failed), encoding="utf-8")
        return 1
    except SignalException:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
