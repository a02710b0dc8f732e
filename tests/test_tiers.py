"""The lists of expensive and of long tests name tests that exist, and what covers a long test runs in `make test`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests import tiers

ROOT = Path(__file__).resolve().parents[1]


def exists(name: str) -> bool:
    """Whether a file has such a test."""
    file, _, test = name.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
    return re.search(rf"^(?:async )?def {test.partition('[')[0]}\(", text, re.MULTILINE) is not None


def test_every_listed_test_exists(node_ids: frozenset[str]) -> None:
    """Its cases are known where its file has been collected."""
    files = {case.partition("::")[0] for case in node_ids}
    known = node_ids | {case.partition("[")[0] for case in node_ids}
    listed = [*tiers.expensive(), *tiers.long(), *tiers.long().values()]
    wrong = [name for name in listed if (name not in known if name.partition("::")[0] in files else not exists(name))]
    assert wrong == []


def test_what_covers_a_long_test_is_not_long() -> None:
    assert [cover for cover in tiers.long().values() if tiers.is_long(cover)] == []


def test_the_lists_are_in_order_and_name_nothing_twice() -> None:
    lines = tiers.EXPENSIVE.read_text(encoding="utf-8").splitlines()
    assert lines == sorted(set(lines))
    lines = [line for line in tiers.LONG.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(tiers.long()) and all(" | " in line for line in lines)


def test_the_list_is_written_from_measured_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [("one", "test_a", 9.0), ("one", "test_b[1]", 0.01), ("one", "test_b[2]", 0.2), ("two", "test_c[x]", 0.04)]
    text = "".join(f'<testcase classname="tests.{file}" name="{name}" time="{time}"/>' for file, name, time in cases)
    (tmp_path / "junit.xml").write_text(f"<testsuites><testsuite>{text}</testsuite></testsuites>")
    monkeypatch.setattr(tiers, "EXPENSIVE", tmp_path / "expensive.txt")
    tiers.main(tmp_path / "junit.xml")
    assert (tmp_path / "expensive.txt").read_text() == "tests/one.py::test_a\ntests/one.py::test_b\n"
