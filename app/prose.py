"""A model's Markdown to inert HTML: formulas, citations, code, tables, scripts that are read from the right."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache, lru_cache
from html import escape, unescape
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.tasklists import tasklists_plugin
from mdit_py_plugins.texmath import texmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

__all__ = ["cited", "growing", "markdown", "plain", "prose"]

_CITATION = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\](?!\()")
"""As `retrieval.check_citations` has it, but for the text of a link."""
_IN_LINE = re.compile(r"\\\[(.+?)\\\]", re.DOTALL)
_LATEX = re.compile(r"\\[,;:!()\[\]{}]")
_LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)
_CONTROL = re.compile("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Overrides and embeddings turn the text after them round, `txt.exe` to `exe.txt`; they are shown by name."""
_PIECE = 3000
"""Characters of a piece of a growing text."""
_MOST_CODE = 20_000
"""Characters of a block up to which it is coloured."""
_BLOCKS = frozenset(
    {"paragraph_open", "heading_open", "list_item_open", "blockquote_open", "bullet_list_open", "ordered_list_open", "td_open",
     "th_open", "table_open"}
)  # fmt: skip
_MATHML = frozenset(
    {"math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder",
     "mover", "munderover", "mmultiscripts", "mprescripts", "mtable", "mtr", "mtd", "mpadded", "mphantom", "mstyle",
     "menclose", "none", "semantics"}
)  # fmt: skip
_ATTRIBUTES = frozenset(
    {"display", "mathvariant", "stretchy", "fence", "separator", "lspace", "rspace", "minsize", "maxsize", "width", "height",
     "depth", "linethickness", "accent", "accentunder", "displaystyle", "scriptlevel", "columnalign", "rowspacing",
     "columnspacing", "columnlines", "rowlines", "notation", "form", "movablelimits", "symmetric", "largeop"}
)  # fmt: skip


def prose(text: str, passages: Collection[int] = ()) -> str:
    """A model's Markdown as inert HTML.

    HTML in it is shown as text, links are http, https or mailto and open elsewhere, and images are links: nothing is
    fetched because a model wrote it. Where n is among `passages`, `[n]` becomes a button that points to passage n, and a
    number without a passage is marked; without passages brackets are brackets.
    """
    html: str = markdown().render(text, {"passages": frozenset(passages)})
    return html


def growing(text: str, passages: Collection[int] = ()) -> str:
    """As `prose`, for a text that grows at its end: what stands before its last paragraphs is not drawn again.

    A list that goes on after an empty line may come out as two; the finished text is for `prose`.
    """
    known, parts, at = frozenset(passages), [], 0
    while len(text) - at > 2 * _PIECE:
        cut = text.find("\n\n", at + _PIECE)
        while cut >= 0 and text.count("```", at, cut) % 2:
            cut = text.find("\n\n", cut + 2)
        if cut < 0:
            break
        parts.append(_piece(text[at:cut], known))
        at = cut + 2
    return "".join(parts) + prose(text[at:], known)


@lru_cache(maxsize=256)
def _piece(text: str, passages: frozenset[int]) -> str:
    return prose(text, passages)


def plain(text: str) -> str:
    """Text for HTML; characters that would turn other text round, or that cannot be seen, are shown by name."""
    return _CONTROL.sub(_named, escape(text))


def cited(text: str, passages: Collection[int], *, growing: bool = False) -> set[int]:
    """The passages that a text cites, code and formulas left out; not so exactly for one that is `growing`."""
    if growing:
        return {int(n) for group in _CITATION.findall(text) for n in re.findall(r"\d+", group)} & set(passages)
    found = set()
    for token in _inlines(markdown().parse(text, {"passages": frozenset(passages)})):
        if token.type == "citation":
            found |= {n for n in map(int, re.findall(r"\d+", token.content)) if n in passages}
    return found


def _inlines(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _inlines(token.children or [])


def _named(found: re.Match[str]) -> str:
    code = ord(found[0])
    name = unicodedata.name(found[0], "half a character" if 0xD800 <= code <= 0xDFFF else "control character")
    return f'<span class="control" title="{escape(name.lower())}">U+{code:04X}</span>'


@cache
def markdown(*, breaks: bool = True) -> MarkdownIt:
    """The parser: Markdown, tables, tasks, bare links, formulas, citations; no HTML. `breaks`: a line is a line."""
    md = MarkdownIt("commonmark", {"html": False, "breaks": breaks, "linkify": True})
    md.enable(["table", "strikethrough", "linkify"])
    md.disable(["reference"])
    assert md.linkify is not None
    md.linkify.set({"fuzzy_link": False, "fuzzy_email": False, "fuzzy_ip": False})
    dollarmath_plugin(
        md, allow_space=False, allow_digits=False, allow_labels=False, allow_blank_lines=False, double_inline=True
    )
    texmath_plugin(md, delimiters="brackets")
    amsmath_plugin(md)
    tasklists_plugin(md)
    md.validateLink = _is_link  # type: ignore[method-assign]
    md.inline.ruler.before("link", "citation", _read_citation)
    md.inline.ruler.before("escape", "backslash", _read_backslash)
    md.core.ruler.push("direction", _direct)
    for name in ("math_inline", "math_inline_double", "math_block", "math_block_eqno", "math_block_label", "amsmath"):
        md.add_render_rule(name, _write_math)
    for name, rule in (
        ("citation", _write_citation), ("link_open", _write_link), ("image", _write_image), ("fence", _write_code),
        ("code_block", _write_code), ("html_inline", _write_box), ("text", _write_text), ("code_inline", _write_inline_code),
    ):  # fmt: skip
        md.add_render_rule(name, rule)
    return md


def _is_link(url: str) -> bool:
    return _LINK.match(url) is not None


def _direct(state: StateCore) -> None:
    """Lets each block be read from the side of its first letter."""
    for token in state.tokens:
        if token.type in _BLOCKS:
            token.attrSet("dir", "auto")


def _read_citation(state: StateInline, silent: bool) -> bool:
    passages: frozenset[int] = state.env.get("passages", frozenset())
    found = _CITATION.match(state.src, state.pos) if passages else None
    if found is None:
        return False
    numbers = {int(n) for n in re.findall(r"\d+", found[1])}
    if not numbers & passages and state.pos and (state.src[state.pos - 1].isalnum() or state.src[state.pos - 1] in "_)]"):
        return False  # a[0]: an index, and no passage has that number
    if not silent:
        state.push("citation", "", 0).content = found[1]
    state.pos = found.end()
    return True


def _read_backslash(state: StateInline, silent: bool) -> bool:
    r"""A `\[formula\]` inside a line; and a backslash that belongs to LaTeX and not to Markdown stays."""
    found = _IN_LINE.match(state.src, state.pos)
    kept = _LATEX.match(state.src, state.pos)
    if found is None and kept is None:
        return False
    if found is not None:
        if not silent:
            state.push("math_inline_double", "", 0).content = found[1]
        state.pos = found.end()
        return True
    assert kept is not None
    if not silent:
        state.pending += kept[0]
    state.pos = kept.end()
    return True


def _write_citation(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    parts = []
    for n in re.findall(r"\d+", tokens[index].content):
        if int(n) in env["passages"]:
            title = f'title="Show passage {n}" aria-label="Show passage {n}"'
            parts.append(f'<button type="button" class="cite" data-cite="{n}" {title}>{n}</button>')
        else:
            parts.append(f'<span class="cite missing" title="There is no passage {n}">{n}</span>')
    return "".join(parts)


def _write_link(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    return _anchor(str(tokens[index].attrs.get("href", "")))


def _anchor(url: str) -> str:
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer nofollow">'


def _write_image(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    url = str(token.attrs.get("src", ""))
    return f"{_anchor(url)}Image: {plain(token.content or url)}</a>"


def _write_text(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    return plain(tokens[index].content)


def _write_box(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """The box of a task; no other HTML gets here, since what a model writes as HTML is text."""
    done = "checked" in tokens[index].content
    label = "done" if done else "to do"
    return f'<input class="task-list-item-checkbox" type="checkbox" disabled{" checked" if done else ""} aria-label="{label}">'


def _write_inline_code(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    return f'<code dir="ltr">{plain(tokens[index].content)}</code>'


def _write_code(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    language = (token.info or "").split()[0] if (token.info or "").split() else ""
    label = f"<span>{plain(language)}</span>" if language else "<span></span>"
    return (
        f'<div class="code" dir="ltr"><div class="code-head">{label}<button type="button" class="copy">Copy</button></div>'
        f'<pre tabindex="0"><code>{_coloured(token.content, "" if env.get("plain") else language)}</code></pre></div>'
    )


def _coloured(code: str, language: str) -> str:
    if language and len(code) <= _MOST_CODE:
        try:
            lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
        except ClassNotFound:
            return plain(code)
        html = highlight(code, lexer, HtmlFormatter(nowrap=True))
        return _CONTROL.sub(_named, html)
    return plain(code)


def _write_math(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    block = token.type != "math_inline"
    return _formula(token.content.strip(), block=block)


@lru_cache(maxsize=4096)
def _formula(source: str, *, block: bool) -> str:
    """MathML that a browser typesets by itself; the source where it holds what is not known here."""
    try:
        parts = list(_mathml(convert_to_element(source, display="block" if block else "inline")))
    except Exception:  # a parser of what a model wrote: whatever it raises, the source is shown
        parts = []
    if not parts or any("\\" in part for part in parts):
        return f'<code class="{"math block" if block else "math"}" dir="ltr">{plain(source)}</code>'
    kind = "math block" if block else "math"
    return f'<span class="{kind}" dir="ltr" title="{escape(source)}">{"".join(parts)}</span>'


def _mathml(element: Element) -> Iterator[str]:
    """Only elements and attributes of MathML that draw and do nothing; an unknown element gives way to its content."""
    name = element.tag.rpartition("}")[2]
    known = name in _MATHML
    if known:
        attributes = "".join(f' {k}="{escape(v)}"' for k, v in element.attrib.items() if k in _ATTRIBUTES)
        yield f"<{name}{attributes}>"
    if element.text:
        yield plain(unescape(element.text))
    for child in element:
        yield from _mathml(child)
        if child.tail and child.tail.strip():
            yield plain(unescape(child.tail))
    if known:
        yield f"</{name}>"
