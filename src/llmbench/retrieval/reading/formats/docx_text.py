"""The words of one paragraph of Word: what it shows of runs, fields, controls and equations."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from llmbench.retrieval.reading.formats.equations import latex
from llmbench.retrieval.reading.formats.word_numbering import value
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["SKIPPED", "Words", "is_on", "words_of"]

SKIPPED = {
    *("del", "moveFrom", "instrText", "delText", "rPr", "pPr", "sectPr", "tblPr", "tblGrid", "Fallback", "sdtPr", "fldData"),
    *("posOffset", "align", "sizeRelH", "sizeRelV", "tcPr", "trPr", "rt", "tblPrEx", "delInstrText"),
}
"""Deleted text, field codes, properties; `Fallback` repeats a text box for old programs."""
_RAISED = str.maketrans("0123456789+-=()", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾")


@dataclass
class Words:
    """What a paragraph says, what of it Word does not show or nobody can read, and the drawings that are anchored in it."""

    text: str = ""
    hidden: str = ""
    faint: str = ""
    shapes: list[Element] = field(default_factory=list)


def is_on(element: Element) -> bool:
    """Whether a property that may be switched off is on."""
    return value(element) not in ("0", "false", "off")


def words_of(paragraph: Element, *, furniture: bool = False, hidden_styles: Collection[str] = ()) -> Words:
    """The words of a paragraph, or of an equation alone.

    Args:
        paragraph: the element.
        furniture: whether it is of a header or a footer, whose page numbers are left out.
        hidden_styles: styles whose text Word does not show.
    """
    if local(paragraph) in ("oMath", "oMathPara"):
        return Words(_equation(paragraph))
    reader = _Reader(furniture, hidden_styles)
    reader.run(paragraph)
    return Words("".join(reader.parts), "".join(reader.hidden), "".join(reader.faint), reader.shapes)


class _Reader:
    """Goes through a paragraph with a stack of its own, so that no depth of nesting can exhaust Python's."""

    def __init__(self, furniture: bool, hidden_styles: Collection[str]) -> None:
        self.furniture, self.hidden_styles = furniture, hidden_styles
        self.parts: list[str] = []
        self.hidden: list[str] = []
        self.shapes: list[Element] = []
        self.fields: list[str] = []
        self.faint: list[str] = []
        self.vanished = self.raised = self.pale = self.styled = False

    def run(self, paragraph: Element) -> None:
        """Gathers its words."""
        stack = [paragraph]
        while stack:
            node = stack.pop()
            match local(node):
                case "pPr":
                    self.styled = any(local(part) == "pStyle" and value(part) in self.hidden_styles for part in node)
                case "sdt" if _is_asking(node):
                    continue
                case "r":
                    self.vanished, self.raised = self.looks(node)
                    self.pale = _is_faint(node)
                    stack.extend(reversed(node))
                case "t":
                    self.add(node.text or "")
                case "tab" | "ptab":
                    self.add("\t")
                case "br" | "cr":
                    self.add("\n")
                case "noBreakHyphen":
                    self.add("-")
                case "sym":
                    code = value(node, "char")
                    self.add(chr(int(code, 16)) if re.fullmatch("[0-9A-Fa-f]{4}", code) else "")
                case "oMath" | "oMathPara":
                    self.parts.append(f" {_equation(node)} ")
                case "drawing" | "pict" | "object":
                    self.shapes.append(node)
                case "fldChar":
                    self.field(node)
                case "instrText" if self.fields:
                    self.fields[-1] += node.text or ""
                case "fldSimple" if self.furniture and _is_page(value(node, "instr")):
                    continue
                case "AlternateContent":  # the first that can be read; the copy for old programs is the last
                    chosen = [choice for choice in node if local(choice) == "Choice"] or list(node)
                    stack.extend(reversed(chosen))
                case name if name not in SKIPPED:
                    stack.extend(reversed(node))

    def add(self, text: str) -> None:
        """Takes characters that are shown, or not."""
        if self.vanished:
            self.hidden.append(text)
        elif not (self.furniture and self.fields and _is_page(self.fields[-1])):
            self.parts.append(text.translate(_RAISED) if self.raised else text)
            if self.pale:
                self.faint.append(text)

    def looks(self, run: Element) -> tuple[bool, bool]:
        """Whether a run is hidden, and whether it is raised figures."""
        hidden, raised = self.styled, False
        for properties in run:
            if local(properties) == "rPr":
                for part in properties:
                    match local(part):
                        case "vanish":
                            hidden = is_on(part)
                        case "rStyle":
                            hidden = hidden or value(part) in self.hidden_styles
                        case "vertAlign":
                            raised = value(part) == "superscript"
        if raised:
            words = "".join(node.text or "" for node in run if local(node) == "t")
            raised = bool(re.fullmatch(r"[\d+\-=()]+", words.strip()))
        return hidden, raised

    def field(self, node: Element) -> None:
        """Begins or ends a field; a box or a list to choose from shows what was chosen."""
        match value(node, "fldCharType"):
            case "begin":
                self.fields.append("")
                for part in node.iter():
                    match local(part):
                        case "checkBox":
                            states = {local(state): is_on(state) for state in part}
                            self.add("\u2612" if states.get("checked", states.get("default", False)) else "\u2610")
                        case "ddList":
                            chosen = next((value(item) for item in part if local(item) == "result"), "0")
                            entries = [value(item) for item in part if local(item) == "listEntry"]
                            self.add(entries[int(chosen)] if chosen.isdecimal() and int(chosen) < len(entries) else "")
            case "end" if self.fields:
                self.fields.pop()


def _is_asking(control: Element) -> bool:
    """Whether a control shows no more than the words that ask for an entry."""
    return any(local(part) == "showingPlcHdr" and is_on(part) for node in control if local(node) == "sdtPr" for part in node)


def _is_faint(run: Element) -> bool:
    """Whether letters are white, with nothing dark behind them that the run tells of, or smaller than two points."""
    found = {local(part): part for properties in run if local(properties) == "rPr" for part in properties}
    if "shd" in found or "highlight" in found:
        return False
    size = value(found["sz"]) if "sz" in found else ""
    return ("color" in found and value(found["color"]).upper() == "FFFFFF") or (size.isdecimal() and int(size) < 4)


def _is_page(code: str) -> bool:
    return re.match(r"\s*(?:PAGE|NUMPAGES|SECTIONPAGES)\b", code) is not None


def _equation(node: Element) -> str:
    """An equation between the signs that LaTeX has for it; several of one paragraph each on a line."""
    if local(node) == "oMath":
        words = latex(node)
        return f"${words}$" if words else ""
    found = [words for part in node if local(part) == "oMath" and (words := latex(part))]
    return "\n".join(f"$${words}$$" for words in found)
