"""A gate for other programs: Markdown for a comment at a pull request, and JUnit's XML for a CI system."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from pathlib import Path

from llmbench import workspace, written
from llmbench.gate import sentences
from llmbench.gate.values import Gate
from llmbench.shown import printable

__all__ = ["check", "junit", "markdown", "write_junit", "write_markdown"]

_SIGNS = {"shown": "✅", "worse": "❌", "undecided": "❔", "not tested": "⬜"}
_MARKS = {"markdown": r"^<!-- llmbench:gate:", "junit": r'<testsuites name="llmbench gate"'}


def check(markdown: Path | None, junit: Path | None) -> None:
    """Looks, before anything is asked, whether the files may be written.

    Raises:
        LlmbenchError: something else has one of the names.
    """
    for kind, path in (("markdown", markdown), ("junit", junit)):
        if path is not None:
            written.check_file(path, _MARKS[kind])


def write_markdown(path: Path, gate: Gate) -> None:
    """Writes the comment, over an earlier one or where nothing is."""
    check(path, None)
    workspace.write_text(path, markdown(gate))


def write_junit(path: Path, gate: Gate) -> None:
    """Writes the XML, over an earlier one or where nothing is."""
    check(None, path)
    workspace.write_text(path, junit(gate))


def markdown(gate: Gate) -> str:
    """The comment. Its first line, which nobody sees, tells a program which of the comments at a pull request to write over."""
    table = [[*row] for row in sentences.rows(gate)]
    for row, one in zip(table[1:], gate.metrics, strict=True):
        row[-1] = f"{_SIGNS[one.outcome]} {row[-1]}"
    lines = [
        f"<!-- llmbench:gate:{gate.name} -->",
        f"### {_SIGNS[gate.outcome]} {_inert(sentences.sentence(gate))}",
        "",
        *(_line(row) for row in [table[0], ["---"] * len(table[0]), *table[1:]]),
        "",
        *(f"- {_inert(one)}" for one in sentences.explained(gate)),
        "",
        f"<sub>llmbench gate, comparison {_inert(gate.name)}, exit code {gate.code}</sub>",
    ]
    return "\n".join(lines) + "\n"


def junit(gate: Gate) -> str:
    """One test case a metric: failed where it is worse or undecided, skipped where it was not tested."""
    verdicts = [one.outcome for one in gate.metrics]
    counts: dict[str, str] = {
        "tests": str(len(verdicts)),
        "failures": str(sum(one in ("worse", "undecided") for one in verdicts)),
        "errors": "0",
        "skipped": str(verdicts.count("not tested")),
    }
    top = ET.Element("testsuites", {"name": "llmbench gate", **counts})
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(gate.created))
    suite = ET.SubElement(top, "testsuite", {"name": gate.name, "timestamp": when, "time": "0", **counts})
    table = sentences.rows(gate)
    for row, one in zip(table[1:], gate.metrics, strict=True):
        name = f"{one.measure.label}: {gate.candidate} against {gate.baseline}"
        case = ET.SubElement(suite, "testcase", classname=f"llmbench.gate.{gate.name}", name=printable(name), time="0")
        figures = ", ".join(f"{head} {cell}" for head, cell in zip(table[0], row, strict=True))
        if one.outcome in ("worse", "undecided"):
            said = printable(sentences.sentence(gate) if one.outcome == gate.outcome else figures)
            ET.SubElement(case, "failure", type=one.outcome, message=said).text = printable(figures)
        elif one.outcome == "not tested":
            ET.SubElement(case, "skipped", message="a metric before it was not shown")
        else:
            ET.SubElement(case, "system-out").text = printable(figures)
    ET.SubElement(suite, "system-out").text = "\n".join(map(printable, [sentences.sentence(gate), *sentences.explained(gate)]))
    ET.indent(top)
    return ET.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _line(row: list[str]) -> str:
    return "| " + " | ".join(_inert(cell).replace("|", "\\|") for cell in row) + " |"


def _inert(text: str) -> str:
    """What names of variants and files hold is shown, and makes no markup, mention or picture."""
    shown = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for letter in "`*_[]!":
        shown = shown.replace(letter, f"\\{letter}")
    return shown.replace("@", "@\u200b")
