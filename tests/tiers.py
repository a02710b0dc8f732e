"""Which tests `make check` leaves out because they take long, and which only `make test-all` runs.

`expensive.txt` has a test a line, `tests/folder/test_file.py::test_name`, and is written from measured times:

    .venv/bin/pytest --junitxml=junit.xml && .venv/bin/python tests/tiers.py junit.xml

Of those that stay, the first that uses a fixture or a package waits for it. A report of `make check` behind the first one,
`tests/tiers.py junit.xml check.xml`, makes expensive what waited long there.

`long.txt` is written by hand: a test, or one of its cases, and behind a bar the quicker one that covers the same ground in
`make test`. The program names the slowest tests that are not in it. `tests/test_tiers.py` finds names that no test has.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Collection
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPENSIVE, LONG = HERE / "expensive.txt", HERE / "long.txt"
SECONDS = 0.05
"""A test whose cases take longer on average is expensive: the 4,600 quicker cases take 50 seconds together."""
WAITED = 2.0
"""A case that takes longer in `make check` waits for what other quick tests hardly need."""
COSTLY = {
    "lora": "tests/", "built": "tests/test_wheel.py", "kind": "tests/training/", "trained": "tests/training/",
    "again": "tests/training/", "cross": "tests/retrieval/", "late": "tests/retrieval/", "big": "tests/retrieval/",
}  # fmt: skip
"""Fixtures that take seconds (an adapter, a wheel, a training, an index), and where: whatever uses them is expensive."""
TRAINING = frozenset({"tests/training", "tests/exporting", "tests/security", "tests/data", "tests/test_borrowed.py"})
"""Tests, by room or file, that import PyTorch, transformers, PEFT or TRL; in `make check` one process takes them all."""
WORTH_A_LOOK = 15.0
"""A case that takes longer is named by the program if it is not long."""


@cache
def expensive() -> frozenset[str]:
    """The names of expensive tests, all cases of each."""
    return frozenset(EXPENSIVE.read_text(encoding="utf-8").splitlines())


@cache
def long() -> dict[str, str]:
    """Long test, or case of one -> the quicker test that covers the same ground."""
    lines = [line for line in LONG.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {name.strip(): cover.strip() for name, _, cover in (line.partition(" | ") for line in lines)}


def is_long(case: str) -> bool:
    """Whether only `make test-all` runs a case, named as pytest does."""
    return case in long() or case.partition("[")[0] in long()


def is_expensive(case: str, fixtures: Collection[str]) -> bool:
    """Whether `make check` leaves out a case, named as pytest does, that uses these fixtures."""
    costly = any(case.startswith(COSTLY[name]) for name in fixtures if name in COSTLY)
    return costly or case.partition("[")[0] in expensive()


def measured(junit: Path) -> dict[str, float]:
    """Case -> seconds, from a report of pytest in JUnit's format."""
    found = {}
    for case in ET.parse(junit).getroot().iter("testcase"):
        if case.find("skipped") is None:
            found[f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"] = float(case.get("time", 0))
    return found


def main(junit: Path, *quick_ones: Path) -> None:
    """Writes `expensive.txt` again, from a report of all tests and any of `make check`, and prints what may be long."""
    times = measured(junit)
    cases: dict[str, list[float]] = {}
    for case, seconds in times.items():
        cases.setdefault(case.partition("[")[0], []).append(seconds)
    waited = {case.partition("[")[0] for one in quick_ones for case, seconds in measured(one).items() if seconds > WAITED}
    names = sorted(waited | {name for name, each in cases.items() if sum(each) / len(each) > SECONDS})
    EXPENSIVE.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    quick = [each for name, each in cases.items() if name not in set(names)]
    print(f"{len(names)} of {len(cases)} tests are expensive; {sum(map(len, quick))} cases of the others take", end=" ")
    print(f"{sum(map(sum, quick)):.0f} seconds together")
    for case, seconds in sorted(times.items(), key=lambda one: -one[1]):
        if seconds > WORTH_A_LOOK and not is_long(case):
            print(f"{seconds:6.1f} s, not long: {case}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
