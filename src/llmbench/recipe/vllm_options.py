"""What `engine.extra_args` says to vLLM: its arguments read as vLLM's own parser reads them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["is_option", "vllm_option"]

_WHOLE = {"--reasoning-parser"}
"""Options whose names begin another one that is asked about here: they are meant themselves, as argparse takes them."""


def vllm_option(arguments: Sequence[str], option: str) -> str | None:
    """The value that arguments for vLLM give an option.

    Args:
        arguments: `--option=value`, `--option value`, `--option.part value` and flags, in any order.
        option: its whole name with dashes, such as `--max-num-seqs`.

    Returns:
        The last value, as that is the one vLLM takes; empty for a flag, and None where the option is not given.
    """
    given = [
        argument.partition("=")[2] if "=" in argument else "" if after.startswith("--") else after
        for argument, after in pairwise([*arguments, ""])
        if is_option(argument, option)
    ]
    return given[-1] if given else None


def is_option(argument: str, option: str) -> bool:
    """Whether an argument names an option: with dashes or underscores, in part (`--option.part`), or by its beginning.

    A beginning that several options share counts as each of them: vLLM does not start with it.
    """
    if not argument.startswith("--") or argument == "--":
        return False
    name = argument.partition("=")[0].partition(".")[0].replace("_", "-")
    return name == option or (option.startswith(name) and name not in _WHOLE)
