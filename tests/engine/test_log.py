"""What is read out of vLLM's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbench.engine import log

API, CORE = "(APIServer pid=7) ", "(EngineCore pid=8) ERROR 11-23 20:05:20 [core.py:906] "
NOISE = ["nanobind: leaked 514 functions!", ' - leaked function "get_split"', " - ... skipped remainder"]


CASES = {
    "a first-hand error, not the one that follows from it": (
        [f"{CORE}Traceback (most recent call last):", f"{CORE}ValueError: head size 16", "RuntimeError: See root cause above"],
        "ValueError: head size 16",
    ),
    "a process that was killed": (
        [
            f"{API}WARNING 11-23 20:05:20 [c.py:817] engine core exited unexpectedly",
            f"{CORE}vllm.v1.EngineDeadError: an issue.",
        ],
        "engine core exited unexpectedly",
    ),
    "a mistake in the arguments": (
        ["usage: api_server.py [-h]", "launch.py: error: unrecognized arguments: --no"],
        "launch.py: error: unrecognized arguments: --no",
    ),
    "no memory": (["torch.OutOfMemoryError: CUDA out of memory."], "torch.OutOfMemoryError: CUDA out of memory."),
    "no error at all": (["INFO 11-23 20:05:20 [a.py:1] something", "Killed"], "Killed"),
    "nothing": ([], "its log is empty"),
}


@pytest.mark.parametrize(("lines", "cause"), CASES.values(), ids=CASES.keys())
def test_the_most_telling_line_is_found(tmp_path: Path, lines: list[str], cause: str) -> None:
    path = tmp_path / "engine.log"
    path.write_text("\n".join(lines + NOISE))
    assert log.cause(path) == cause


@pytest.mark.parametrize(
    ("code", "words"), [(137, "SIGKILL), most likely because memory ran out"), (139, "SIGSEGV"), (1, "complete")]
)
def test_a_signal_of_which_the_log_says_nothing_is_the_cause(tmp_path: Path, code: int, words: str) -> None:
    path = tmp_path / "engine.log"
    path.write_text("INFO:     Application startup complete.\n")
    assert words in log.cause(path, code)
    path.write_text("ValueError: head size 16\n")
    assert log.cause(path, code) == "ValueError: head size 16"


def test_the_last_lines_leave_out_prefixes_and_noise(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text("\n".join([*(f"{CORE}line {i}" for i in range(30)), "", *NOISE]))
    assert log.last_lines(path, 3) == ["line 27", "line 28", "line 29"]


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert log.last_lines(tmp_path / "none.log") == []


def test_half_a_line_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    tail = log.Tail(path)
    assert tail.read() == "importing vLLM"
    path.write_text("Starting to load")
    assert tail.read() == "importing vLLM"
    path.write_text("Starting to load model x\n")
    assert tail.read() == "loading the weights"
