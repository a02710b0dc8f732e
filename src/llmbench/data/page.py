"""The data report as one HTML file: it needs nothing else, runs no script, and obeys nothing that stands in the data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from llmbench.data import rendering
from llmbench.data.lengths import Lengths, Limit
from llmbench.data.rendering import Fold, Piece, Row
from llmbench.data.report import DataReport, Part, percent
from llmbench.data.terminal import verdict
from llmbench.shown import visible

__all__ = ["MARK", "html"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_GENERATOR = '<meta name="generator" content="llmbench">'
MARK = re.escape(_GENERATOR)
"""By which a page of llmbench's is known."""
_HEAD, _TAIL = 400, 100
_HEIGHT = 150


def html(report: DataReport) -> str:
    """The whole page; everything that stands in the data or in names of files is escaped."""
    style = resources.files("llmbench.data").joinpath("page.css").read_text(encoding="utf-8")
    body = [
        _head(report),
        _rows(report),
        _lengths(report.train),
        _learned(report),
        _duplicates(report),
        _secrets(report),
        *(_section(section.title, _list(section.lines)) for section in report.sections),
        _rendering(report.rendering),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'{_GENERATOR}<link rel="icon" href="data:,"><title>{_text(report.name)} - llmbench data report</title>'
        f"<style>{style}</style></head>\n<body><main>{''.join(body)}</main></body></html>\n"
    )


def _text(text: str) -> str:
    """Escaped, with what cannot be seen written out."""
    return escape(visible(text))


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{inner}</section>"


def _list(lines: Iterable[str]) -> str:
    return '<div class="card">' + "".join(f"<div>{_text(line)}</div>" for line in lines) + "</div>"


def _head(report: DataReport) -> str:
    claim, more = verdict(report)
    figures = f'<p class="figures">{more}</p>' if more else ""
    facts = {
        "Recipe": report.recipe,
        "Method": report.method,
        "Model": report.model,
        "Tokenizer": report.hashes.tokenizer[:12],
        "Chat template": (report.hashes.chat_template or "none")[:12],
    }
    items = "".join(f"<div><dt>{key}</dt><dd><code>{_text(value)}</code></dd></div>" for key, value in facts.items())
    notes = "".join(
        f'<li class="{note.level}"><span class="level">{note.level}</span>'
        f"<p><code>{_text(note.where)}</code> {_text(note.text)}</p>"
        + (f'<p class="next">{_text(note.next)}</p>' if note.next else "")
        + "</li>"
        for note in report.notes
    )
    return (
        f'<header><p class="over">llmbench data report <b>{_text(report.name)}</b></p><h1>{claim}</h1>{figures}'
        f'<dl class="facts">{items}</dl>' + (f'<ul class="notes">{notes}</ul>' if notes else "") + "</header>"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already; the first of a row names it."""
    top = "".join(f"<th scope=col>{head}</th>" for head in heads)
    body = "".join(f"<tr><th scope=row>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows)
    return f'<div class="card scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _rows(report: DataReport) -> str:
    rows = []
    for name, part in (("Train", report.train), ("Held out", report.eval)):
        if part is None:
            continue
        learned = f"{part.trained_tokens:,} ({100 * part.trained_tokens / max(part.tokens, 1):.1f} %)"
        rows.append([f"<b>{name}</b>", f"{part.rows_in:,}", f"{part.rows:,}", f"{part.tokens:,}", learned])
        for source in part.sources if len(part.sources) > 1 else ():
            shares = [
                f"{source.rows:,} ({100 * source.rows_share:.1f} %)",
                f"{source.tokens:,} ({100 * source.tokens_share:.1f} %)",
            ]
            rows.append([_text(source.name), "", *shares, ""])
    skipped = [
        f"<li><b>{skip.rows:,}</b> not used: {_text(skip.reason)} <code>{_text(', '.join(skip.places))}</code></li>"
        for part in (report.train, report.eval)
        for skip in (part.skipped if part else ())
    ]
    more = f"<ul>{''.join(skipped)}</ul>" if skipped else ""
    return _section("Rows", _table(["", "Rows in", "Used", "Tokens", "Learned tokens"], rows) + more)


def _lengths(part: Part) -> str:
    of, limit = part.lengths, part.limit
    figures = [[name, f"{value:,}"] for name, value in (
        ("Median", of.p50), ("90 %", of.p90), ("95 %", of.p95), ("99 %", of.p99), ("99.9 %", limit.fits_999),
        ("All", limit.fits_all),
    )]  # fmt: skip
    avoided = " Rows are packed end to end, so no padding is computed." if part.padding.avoided else ""
    says = f"<p>{100 * part.padding.share:.1f} % of padded batches of {part.padding.batch} would be padding.{avoided}</p>"
    if limit.rows_over:
        lost = _table(
            ["Rows over <code>max_length</code>", "Rows", "Tokens lost", "Share"],
            [
                [name, f"{limit.rows_over:,}", f"{tokens:,}", percent(share)]
                for name, tokens, share in (
                    ("<code>over_length: drop</code>", limit.tokens_lost_by_drop, limit.tokens_lost_by_drop_share),
                    ("<code>over_length: truncate</code>", limit.tokens_lost_by_truncate, limit.tokens_lost_by_truncate_share),
                )
            ],
        )
    else:
        lost = f"<p>Every row fits into <code>max_length</code> {limit.max_length:,}.</p>"
    chart = f'<div class="card"><figure class="chart">{_histogram(of, limit)}</figure></div>'
    fits = _table(["Rows that fit"] + [name for name, _ in figures], [["into tokens"] + [value for _, value in figures]])
    return _section("Tokens per row", f"{chart}<p></p>{fits}{says}{lost}")


def _histogram(of: Lengths, limit: Limit) -> str:
    """Bars in percent of the width, so that they stretch with the page and the letters do not."""
    bins = of.histogram
    step, most = 100 / len(bins), max(one.rows for one in bins)
    width = bins[1].first - bins[0].first if len(bins) > 1 else bins[0].last - bins[0].first + 1
    drawn = [f'<line class="base" x1="0" x2="100%" y1="{_HEIGHT}" y2="{_HEIGHT}"/>']
    for i, one in enumerate(bins):
        height = max(_HEIGHT * 0.88 * one.rows / most, 1 if one.rows else 0)
        kind = ' class="beyond"' if one.first >= limit.max_length else ""
        top = _HEIGHT - height
        said = f"{one.first:,} to {one.last:,} tokens: {one.rows:,} rows"
        left, wide, middle = i * step + step * 0.06, step * 0.88, (i + 0.5) * step
        drawn.append(
            f'<rect{kind} x="{left:.2f}%" width="{wide:.2f}%" y="{top:.1f}" height="{height:.1f}" rx="2">'
            f"<title>{said}</title></rect>"
        )
        if one.rows:
            drawn.append(f'<text class="count" x="{middle:.2f}%" y="{top - 5:.1f}" text-anchor="middle">{one.rows:,}</text>')
    edges = "".join(
        f'<text class="edge{"" if i else " least"}" x="{i * step:.2f}%" y="{_HEIGHT + 18}">{one.first:,}</text>'
        for i, one in enumerate(bins)
    )
    at = (limit.max_length - bins[0].first) / (width * len(bins)) * 100
    mark = ""
    if 0 <= at <= 100:
        anchor = "end" if at > 70 else "start"
        mark = (
            f'<line x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="{_HEIGHT}"/><text class="mark" x="{at:.2f}%" y="8" '
            f'dx="{-6 if anchor == "end" else 6}" text-anchor="{anchor}">max_length {limit.max_length:,}</text>'
        )
    label = f"Histogram of tokens per row, from {of.shortest:,} to {of.longest:,}"
    axis = f'<text x="100%" y="{_HEIGHT + 36}" text-anchor="end">tokens</text>'
    return f'<svg role="img" aria-label="{label}">{"".join(drawn)}<g>{edges}</g>{axis}{mark}</svg>'


def _learned(report: DataReport) -> str:
    part = report.train
    rows = [
        [
            _text(role.role.capitalize()),
            f"{role.tokens:,}",
            f"{role.trained_tokens:,}",
            f"{100 * role.trained_tokens / role.tokens:.1f} %",
        ]
        for role in part.roles
    ]
    named = f" ({', '.join(map(_text, part.turn_ends))})" if part.turn_ends else ""
    ends = f"The end of the turn{named} is learned in {part.turns_ended:,} of {part.turns:,} answers." if part.turns else ""
    nothing = f"{part.untrained_rows:,} rows without trainable tokens"
    if report.method == "grpo":
        nothing = "The model learns from its own answers, as judged by the reward functions"
    faults = f"{nothing}; {part.double_bos:,} with a doubled BOS token."
    return _section("Learned", _table(["Role", "Tokens", "Learned", "Share"], rows) + f"<p>{ends} {faults}</p>")


def _duplicates(report: DataReport) -> str:
    d = report.duplicates
    rows = [["Train, the same as an earlier row", f"{d.exact_rows:,}"], ["Train, nearly the same", f"{d.near_rows:,}"]]
    if report.eval is not None:
        rows += [
            ["Train, held out as well", f"{d.contaminated_exact:,}"],
            ["Train, nearly the same as a held-out row", f"{d.contaminated_near:,}"],
            ["Train, with the prompt of a held-out row", f"{d.contaminated_prompts:,}"],
        ]
    lead = (
        f'<p class="lead">Near means a Jaccard similarity of {d.threshold:g} or more between the sets of five words in a row, '
        "without system prompt and template.</p>"
    )
    groups = "".join(
        f'<div class="group"><p class="places"><b>{"Same" if group.kind == "exact" else f"Near, {group.similarity:.2f}"}</b>, '
        f"{group.train_rows + group.eval_rows} rows: {_text(', '.join(group.places))}"
        f"{', …' if group.train_rows + group.eval_rows > len(group.places) else ''}</p><p>{_text(group.text)}</p></div>"
        for group in d.groups
    )
    shown = f'<p></p><div class="card">{groups}</div>' if groups else ""
    return _section("Duplicates", f"{lead}{_table(['Rows', 'Count'], rows)}{shown}")


def _secrets(report: DataReport) -> str:
    if not report.secrets:
        return _section(
            "Secrets and personal data",
            '<p class="lead">None found: no keys, tokens, card numbers, IBANs, e-mail addresses.</p>',
        )
    rows = [
        [
            _text(one.kind.capitalize() if one.kind.islower() else one.kind),
            f"{one.found:,}",
            f"{one.rows:,}",
            "<br>".join(f"<code>{_text(place)}</code> {_text(shown)}" for place, shown in one.examples),
        ]
        for one in report.secrets
    ]
    return _section("Secrets and personal data", _table(["Kind", "Found", "Rows", "First places"], rows))


def _rendering(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    key = '<p class="lead key"><b><i>learned </i><i>tokens</i></b> and <i>others</i>; ↵ ends a line, ⇥ is a tab</p>'
    return _section("Tokenised preview", key + "".join(_row(row, open_=i < 3) for i, row in enumerate(rows)))


def _row(row: Row, *, open_: bool) -> str:
    inner = ""
    for trained, run in rendering.runs(row):
        head, middle, tail = rendering.folded(run, _HEAD, _TAIL)
        tokens = "".join(map(_piece, head))
        if middle:
            tokens += f"<details><summary>{len(middle):,} more tokens</summary>{''.join(map(_piece, middle))}</details>"
        tokens += "".join(map(_piece, tail))
        inner += f"<b>{tokens}</b>" if trained else f"<span>{tokens}</span>"
    about = f"{row.tokens:,} tokens, {row.trained_tokens:,} learned"
    return (
        f'<details class="card row"{" open" if open_ else ""}><summary>{_text(row.place)} <span>{about}</span></summary>'
        f'<div class="tokens">{inner}</div></details>'
    )


def _piece(piece: Piece | Fold) -> str:
    if isinstance(piece, Fold):
        return f"<i> [{piece.tokens:,} tokens are left out of this page] </i>"
    kind = ' class="s"' if piece.special else ""
    return f"<i{kind}>{_text(piece.text)}</i>"
