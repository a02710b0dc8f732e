"""What `engine.extra_args` says to vLLM, read as vLLM's own parser reads it."""

from __future__ import annotations

import argparse

import pytest

from llmbench.recipe import vllm_option

SEQS = "--max-num-seqs"


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], None),
        (["--max-num-seqs=4"], "4"),
        (["--max-num-seqs", "4"], "4"),
        (["--max_num_seqs=4"], "4"),
        (["--max_num_seqs", "4"], "4"),
        (["--max-num-s", "4"], "4"),
        (["--max-num-seqs", "4", "--max_num_seq=8"], "8"),
        (["--max-num-seqs="], ""),
        (["--max-num-batched-tokens", "4"], None),
        (["max-num-seqs", "4"], None),
        (["--", "4"], None),
        (["--enforce-eager", "--max-num-seqs", "4", "--swap-space", "8"], "4"),
    ],
)
def test_the_value_is_the_one_that_argparse_takes(arguments: list[str], value: str | None) -> None:
    assert vllm_option(arguments, SEQS) == value
    theirs = argparse.ArgumentParser()
    for option in (SEQS, "--max-num-batched-tokens", "--swap-space"):
        theirs.add_argument(option)
    theirs.add_argument("--enforce-eager", action="store_true")
    dashed = [word.replace("_", "-") for word in arguments]
    assert theirs.parse_known_args(dashed)[0].max_num_seqs == value


def test_a_flag_has_no_value_and_a_part_is_the_option() -> None:
    arguments = ["--enable-auto-tool-choice", "--structured-outputs-config.backend", "guidance", "--seed=1"]
    assert vllm_option(arguments, "--enable-auto-tool-choice") == ""
    assert vllm_option(arguments, "--structured-outputs-config") == "guidance"
    assert vllm_option(["--enable-auto-tool-choice"], "--enable-auto-tool-choice") == ""


def test_an_option_whose_name_begins_another_one_is_itself() -> None:
    assert vllm_option(["--reasoning-parser", "qwen3"], "--reasoning-parser") == "qwen3"
    assert vllm_option(["--reasoning-parser", "qwen3"], "--reasoning-parser-plugin") is None
