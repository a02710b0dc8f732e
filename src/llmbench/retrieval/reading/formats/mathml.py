"""A formula of MathML as a line of text: `A=42r`, `x^2`, `(a+b)/2`."""

from __future__ import annotations

from typing import Any

__all__ = ["formula"]

DEEPEST = 60
"""Levels of a formula; what is nested deeper is its plain text."""
_SILENT = {"annotation", "annotation-xml", "mphantom", "maction"}


def formula(node: Any, depth: int = 0) -> str:
    """The text of a `<math>` element or of a part of it."""
    if depth > DEEPEST:
        return " ".join((node.text() or "").split())
    children = [child for child in _children(node) if child.tag not in _SILENT]
    parts = [formula(child, depth + 1) for child in children if child.tag != "-text"]
    match node.tag, parts:
        case "mfrac", [above, below]:
            return f"{_grouped(above)}/{_grouped(below)}"
        case "msup" | "mover", [base, above]:
            return f"{base}^{_grouped(above)}"
        case "msub" | "munder", [base, below]:
            return f"{base}_{_grouped(below)}"
        case "msubsup" | "munderover", [base, below, above]:
            return f"{base}_{_grouped(below)}^{_grouped(above)}"
        case "msqrt", _:
            return f"√({''.join(parts)})"
        case "mroot", [base, index]:
            return f"{_grouped(index)}√({base})"
        case "mfenced", _:
            return f"({', '.join(parts)})"
        case "mtable", _:
            return "; ".join(parts)
        case "mtr" | "mlabeledtr", _:
            return ", ".join(parts)
        case "mtext" | "ms" | "mi", []:
            text = " ".join((node.text() or "").split())
            return f" {text} " if len(text) > 1 else text
        case "mo", []:
            text = " ".join((node.text() or "").split())
            return {"\u2061": "", "\u2062": "", "\u2063": ",", "\u2064": "+"}.get(text, text)
        case "mspace", _:
            return " "
        case _, []:
            return " ".join((node.text() or "").split())
    return "".join(parts)


def _children(node: Any) -> list[Any]:
    found = []
    child = node.first_child
    while child is not None:
        found.append(child)
        child = child.next
    return found


def _grouped(text: str) -> str:
    """In brackets where it is more than one thing."""
    text = text.strip()
    return text if len(text) < 2 or text.replace(".", "").isalnum() or text[0] + text[-1] == "()" else f"({text})"
