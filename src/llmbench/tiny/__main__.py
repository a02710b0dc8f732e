"""`python -m llmbench.tiny tokenizer FOLDER` learns the tokenizer, `... handbook FOLDER` writes the sample world, and
`... judgements FOLDER` the judged answers of recipes/data.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import get_args

from llmbench.tiny import handbook, judgements, lessons, tokenizer

USAGE = "usage: python -m llmbench.tiny (tokenizer | handbook | judgements) FOLDER"
CONVERSATIONS = 700
CHARACTERS = 1500
SEED = 7


def main() -> int:
    """Writes what was asked for; returns the exit code."""
    match sys.argv[1:]:
        case ["tokenizer", folder]:
            stages = get_args(lessons.Stage)[:3]
            talks = (
                t for stage in stages for t in islice(lessons.conversations(stage, SEED, budget=CHARACTERS), CONVERSATIONS)
            )
            tokenizer.save_tokenizer((message["content"] for talk in talks for message in talk), Path(folder))
        case ["handbook", folder]:
            handbook.write(Path(folder))
        case ["judgements", folder]:
            judgements.write(Path(folder))
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    return 0


sys.exit(main())
