# ruff: noqa: RUF001, SIM905 (signs that look like letters are what is named here)
"""Equations of Office (OMML, ECMA-376 part 1, 22.1) as LaTeX."""

from __future__ import annotations

from llmbench.retrieval.reading.xml import Element, local

__all__ = ["latex"]

_SIGNS = {
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
    ).split(), strict=True)),
    **dict(zip("ΓΔΘΛΞΠΣΦΨΩ", "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split(), strict=True)),
    "±": "pm", "∓": "mp", "×": "times", "÷": "div", "⋅": "cdot", "·": "cdot", "∙": "bullet", "≤": "leq", "≥": "geq", "≠": "neq",
    "≈": "approx", "≡": "equiv", "∼": "sim", "∝": "propto", "∞": "infty", "∂": "partial", "∇": "nabla", "∑": "sum",
    "∏": "prod", "∫": "int", "∬": "iint", "∮": "oint", "√": "sqrt", "∈": "in", "∉": "notin", "⊂": "subset", "⊆": "subseteq",
    "∪": "cup", "∩": "cap", "∀": "forall", "∃": "exists", "¬": "neg", "∧": "wedge", "∨": "vee", "→": "rightarrow",
    "←": "leftarrow", "↔": "leftrightarrow", "⇒": "Rightarrow", "⇐": "Leftarrow", "⇔": "Leftrightarrow", "…": "ldots",
    "⋯": "cdots", "′": "prime", "∅": "emptyset", "ℝ": "mathbb{R}", "ℕ": "mathbb{N}", "ℤ": "mathbb{Z}", "∘": "circ",
    "ϵ": "epsilon", "ϕ": "phi", "φ": "varphi", "ε": "varepsilon", "∴": "therefore", "⊗": "otimes", "⊕": "oplus",
}  # fmt: skip
_ACCENTS = {
    "\u0302": "hat", "\u0303": "tilde", "\u0304": "bar", "\u0305": "overline", "\u0307": "dot", "\u0308": "ddot",
    "\u20d7": "vec", "\u030c": "check", "\u0306": "breve", "\u0301": "acute", "\u0300": "grave", "\u00af": "bar",
}  # fmt: skip
_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "log", "ln", "exp", "lim", "max", "min", "det"}
_ESCAPED = {"%": "\\%", "&": "\\&", "#": "\\#", "$": "\\$", "{": "\\{", "}": "\\}"}


def latex(equation: Element) -> str:
    """An `m:oMath` as LaTeX, without the signs around it. Depth is bounded by the XML reader."""
    return "".join(_of(child) for child in equation).strip()


def _of(node: Element) -> str:
    match local(node):
        case "r":
            return "".join(_signs(part.text or "") for part in node if local(part) == "t")
        case "f":
            top, bottom = _part(node, "num"), _part(node, "den")
            return f"{top}/{bottom}" if _property(node, "type") == "lin" else f"\\frac{{{top}}}{{{bottom}}}"
        case "sSup":
            return f"{_base(node)}^{{{_part(node, 'sup')}}}"
        case "sSub":
            return f"{_base(node)}_{{{_part(node, 'sub')}}}"
        case "sSubSup":
            return f"{_base(node)}_{{{_part(node, 'sub')}}}^{{{_part(node, 'sup')}}}"
        case "sPre":
            return f"{{}}_{{{_part(node, 'sub')}}}^{{{_part(node, 'sup')}}}{_base(node)}"
        case "rad":
            degree = _part(node, "deg")
            return f"\\sqrt[{degree}]{{{_part(node, 'e')}}}" if degree else f"\\sqrt{{{_part(node, 'e')}}}"
        case "nary":
            sign = _signs(_property(node, "chr") or "∫").strip()
            below, above = _part(node, "sub"), _part(node, "sup")
            return sign + (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "") + f" {_part(node, 'e')}"
        case "d":
            return _delimited(node)
        case "func":
            name = _part(node, "fName").strip()
            return f"{_function(name)} {_part(node, 'e')}"
        case "acc":
            accent = _ACCENTS.get(_property(node, "chr") or "\u0302", "hat")
            return f"\\{accent}{{{_part(node, 'e')}}}"
        case "bar":
            return f"\\{'underline' if _property(node, 'pos') == 'bot' else 'overline'}{{{_part(node, 'e')}}}"
        case "limLow":
            return f"{_function(_part(node, 'e'))}_{{{_part(node, 'lim')}}}"
        case "limUpp":
            return f"{_function(_part(node, 'e'))}^{{{_part(node, 'lim')}}}"
        case "m":
            rows = (" & ".join(_inner(e) for e in row if local(e) == "e") for row in node if local(row) == "mr")
            return "\\begin{matrix}" + " \\\\ ".join(rows) + "\\end{matrix}"
        case "eqArr":
            return "\\begin{aligned}" + " \\\\ ".join(_inner(e) for e in node if local(e) == "e") + "\\end{aligned}"
        case name if name.endswith("Pr"):
            return ""
        case _:  # boxes, phantoms, inserted runs
            return _inner(node)


def _inner(node: Element) -> str:
    return "".join(_of(child) for child in node)


def _part(node: Element, name: str) -> str:
    return "".join(_inner(child) for child in node if local(child) == name).strip()


def _base(node: Element) -> str:
    """What an index stands at, in braces where it is more than a sign."""
    text = _part(node, "e")
    return text if len(text) < 2 or text.isalnum() else f"{{{text}}}"


def _function(name: str) -> str:
    return f"\\{name}" if name in _FUNCTIONS else name


def _property(node: Element, name: str) -> str:
    """A property such as the sign of a sum; a space where it is set to nothing."""
    for group in node:
        if local(group).endswith("Pr"):
            for part in group:
                if local(part) == name:
                    value = next((value for key, value in part.attrib.items() if key.rpartition("}")[2] == "val"), "")
                    return value or " "
    return ""


def _delimited(node: Element) -> str:
    begin, end, between = (_property(node, name) for name in ("begChr", "endChr", "sepChr"))
    parts = (between.strip() or "|").join(_inner(e).strip() for e in node if local(e) == "e")
    return f"{_signs(begin or '(').strip()}{parts}{_signs(end or ')').strip()}"


def _signs(text: str) -> str:
    """Letters as they are, signs as LaTeX names them."""
    return "".join(f"\\{_SIGNS[sign]} " if sign in _SIGNS else _ESCAPED.get(sign, sign) for sign in text)
