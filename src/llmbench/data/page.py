"""The data report as one HTML file: it needs nothing else, runs no script, and obeys nothing that stands in the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources

from llmbench.data import rendering
from llmbench.data.lengths import Lengths, Limit
from llmbench.data.rendering import Fold, Piece, Row
from llmbench.data.report import DataReport, Part, percent
from llmbench.data.terminal import verdict
from llmbench.page import document, facts, header, mark, notes, section, table, text
from llmbench.svg.bars import Bar, histogram

__all__ = ["MARK", "html"]

_KIND = "data report"
MARK = mark(_KIND)
"""By which such a page is known."""
_HEAD, _TAIL = 400, 100


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
        *(section(one.title, _list(one.lines)) for one in report.sections),
        _rendering(report.rendering),
    ]
    return document(report.name, _KIND, "".join(body), style=style)


def _list(lines: Iterable[str]) -> str:
    return '<div class="card">' + "".join(f"<div>{text(line)}</div>" for line in lines) + "</div>"


def _head(report: DataReport) -> str:
    claim, more = verdict(report)
    about = {
        "Recipe": report.recipe,
        "Method": report.method,
        "Model": report.model,
        "Tokenizer": report.hashes.tokenizer[:12],
        "Chat template": (report.hashes.chat_template or "none")[:12],
    }
    said = (
        (
            note.level,
            f"<p><code>{text(note.where)}</code> {text(note.text)}</p>"
            + (f'<p class="next">{text(note.next)}</p>' if note.next else ""),
        )
        for note in report.notes
    )
    figures = f'<p class="figures">{more}</p>' if more else ""
    values = {word: f"<code>{text(value)}</code>" for word, value in about.items()}
    return header(_KIND, report.name, claim, figures, facts(values), notes(said))


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
            rows.append([text(source.name), "", *shares, ""])
    skipped = [
        f"<li><b>{skip.rows:,}</b> not used: {text(skip.reason)} <code>{text(', '.join(skip.places))}</code></li>"
        for part in (report.train, report.eval)
        for skip in (part.skipped if part else ())
    ]
    more = f"<ul>{''.join(skipped)}</ul>" if skipped else ""
    return section("Rows", table(["", "Rows in", "Used", "Tokens", "Learned tokens"], rows) + more)


def _lengths(part: Part) -> str:
    of, limit = part.lengths, part.limit
    figures = [[name, f"{value:,}"] for name, value in (
        ("Median", of.p50), ("90 %", of.p90), ("95 %", of.p95), ("99 %", of.p99), ("99.9 %", limit.fits_999),
        ("All", limit.fits_all),
    )]  # fmt: skip
    avoided = " Rows are packed end to end, so no padding is computed." if part.padding.avoided else ""
    says = f"<p>{100 * part.padding.share:.1f} % of padded batches of {part.padding.batch} would be padding.{avoided}</p>"
    if limit.rows_over:
        lost = table(
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
    chart = f'<figure class="card">{_histogram(of, limit)}</figure>'
    fits = table(["Rows that fit"] + [name for name, _ in figures], [["into tokens"] + [value for _, value in figures]])
    return section("Tokens per row", f"{chart}{fits}{says}{lost}")


def _histogram(of: Lengths, limit: Limit) -> str:
    return histogram(
        f"Histogram of tokens per row, from {of.shortest:,} to {of.longest:,}",
        [Bar(one.first, one.last, one.rows) for one in of.histogram],
        x="tokens",
        what="rows",
        limit=(limit.max_length, f"max_length {limit.max_length:,}"),
    )


def _learned(report: DataReport) -> str:
    part = report.train
    rows = [
        [
            text(role.role.capitalize()),
            f"{role.tokens:,}",
            f"{role.trained_tokens:,}",
            f"{100 * role.trained_tokens / role.tokens:.1f} %",
        ]
        for role in part.roles
    ]
    named = f" ({', '.join(map(text, part.turn_ends))})" if part.turn_ends else ""
    ends = f"The end of the turn{named} is learned in {part.turns_ended:,} of {part.turns:,} answers." if part.turns else ""
    nothing = f"{part.untrained_rows:,} rows without trainable tokens"
    if report.method == "grpo":
        nothing = "The model learns from its own answers, as judged by the reward functions"
    faults = f"{nothing}; {part.double_bos:,} with a doubled BOS token."
    return section("Learned", table(["Role", "Tokens", "Learned", "Share"], rows) + f"<p>{ends} {faults}</p>")


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
        f"Near means a Jaccard similarity of {d.threshold:g} or more between the sets of five words in a row, "
        "without system prompt and template."
    )
    groups = "".join(
        f'<div class="group"><p class="places"><b>{"Same" if group.kind == "exact" else f"Near, {group.similarity:.2f}"}</b>, '
        f"{group.train_rows + group.eval_rows} rows: {text(', '.join(group.places))}"
        f"{', …' if group.train_rows + group.eval_rows > len(group.places) else ''}</p><p>{text(group.text)}</p></div>"
        for group in d.groups
    )
    shown = f'<div class="card">{groups}</div>' if groups else ""
    return section("Duplicates", table(["Rows", "Count"], rows) + shown, lead=lead)


def _secrets(report: DataReport) -> str:
    if not report.secrets:
        return section(
            "Secrets and personal data", "", lead="None found: no keys, tokens, card numbers, IBANs, e-mail addresses."
        )
    rows = [
        [
            text(one.kind.capitalize() if one.kind.islower() else one.kind),
            f"{one.found:,}",
            f"{one.rows:,}",
            "<br>".join(f"<code>{text(place)}</code> {text(shown)}" for place, shown in one.examples),
        ]
        for one in report.secrets
    ]
    return section("Secrets and personal data", table(["Kind", "Found", "Rows", "First places"], rows))


def _rendering(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    key = '<p class="lead key"><b><i>learned </i><i>tokens</i></b> and <i>others</i>; ↵ ends a line, ⇥ is a tab</p>'
    return section("Tokenised preview", key + "".join(_row(row, open_=i < 3) for i, row in enumerate(rows)))


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
        f'<details class="card"{" open" if open_ else ""}><summary>{text(row.place)} <span>{about}</span></summary>'
        f'<div class="tokens">{inner}</div></details>'
    )


def _piece(piece: Piece | Fold) -> str:
    if isinstance(piece, Fold):
        return f"<i> [{piece.tokens:,} tokens are left out of this page] </i>"
    kind = ' class="s"' if piece.special else ""
    return f"<i{kind}>{text(piece.text)}</i>"
