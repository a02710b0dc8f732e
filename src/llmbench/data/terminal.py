"""The data report in a terminal or a log: readable at 80 columns, with and without colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from llmbench.data import rendering
from llmbench.data.rendering import Fold, Piece, Row
from llmbench.data.report import DataReport, Duplicates, Level, Note, Part, Secret, percent
from llmbench.shown import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["brief", "show", "verdict"]

_MARKS: dict[Level, tuple[str, str]] = {
    "refused": ("✗", "bold red"),
    "error": ("✗", "red"),
    "warning": ("!", "yellow"),
    "note": ("·", "cyan"),
}
_BLOCKS = " ▏▎▍▌▋▊▉█"
_LEARNED = ("bold black on bright_green", "bold underline black on bright_green")
_PLAIN = ("", "underline")
"""Every other token is underlined, so that each can be told from the next in any colour scheme."""
_HEAD, _TAIL = 120, 40
_LABEL = 11
_GROUPS = 5


def show(report: DataReport, console: Console) -> None:
    """Prints the whole report; the notes stand last, where the eye is when it ends."""
    from rich.text import Text

    def title(text: str) -> None:
        console.print()
        _hang(console, Text(), Text(visible(text), "bold"))

    about = visible(f"{report.method} on {report.model}, from {report.recipe}")
    _hang(console, Text(f"{report.name}  ", "bold"), Text(about))
    title("Rows")
    _lines(console, _rows(report))
    title("Tokens per row")
    _lines(console, _lengths(report.train))
    title("Learned")
    _lines(console, _learned(report))
    title("Duplicates")
    _lines(console, _duplicates(report.duplicates, held_out=report.eval is not None))
    title("Secrets and personal data")
    _lines(console, _secrets(report.secrets))
    for section in report.sections:
        title(section.title)
        _lines(console, [("", line) for line in section.lines])
    if report.rendering:
        title("Tokenised preview")
        _legend(console)
        for row in report.rendering:
            _row(console, row)
    title("Notes")
    for note in report.notes:
        _note(console, note)
    claim, more = verdict(report)
    console.print(Text(f"{claim} ({more})." if more else f"{claim}.", "green" if report.worst in (None, "note") else ""))


def verdict(report: DataReport) -> tuple[str, str]:
    """What the notes come to, and how many of them there are besides what it says."""
    counts = {level: sum(note.level == level for note in report.notes) for level in _MARKS}
    more = ", ".join(
        f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items() if count and level != "refused"
    )
    if counts["refused"]:
        return "Training would not start", more
    if not counts["error"] and not counts["warning"]:
        return "No problems found", more
    return "Training would start", more


def brief(report: DataReport) -> list[str]:
    """The few lines that a training prints before it starts: every note but the mere ones."""
    grave = [note for note in report.notes if note.level != "note"]
    return [f"{note.level:<8}{note.where}: {visible(note.text)}" for note in grave]


def _lines(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    """Lines with a label; a long line goes on beneath itself and not beneath its label."""
    from rich.text import Text

    for label, line in lines:
        _hang(console, Text(visible(f"  {label:<{_LABEL}}" if label else "  ")), Text(visible(line)))


def _hang(console: Console, label: Text, text: Text) -> None:
    """Prints text beside its label, wrapped at words, without spaces at the ends of lines."""
    from rich.text import Text

    lines = text.wrap(console, max(console.width - label.cell_len, 20), no_wrap=False)
    for i, line in enumerate(lines or [text]):
        line.rstrip()
        console.print(Text.assemble(label if i == 0 else " " * label.cell_len, line), soft_wrap=True)


def _rows(report: DataReport) -> Iterator[tuple[str, str]]:
    for name, part in (("train", report.train), ("held out", report.eval)):
        if part is None:
            continue
        match part.rows - part.rows_in:
            case 0:
                used = f"all {part.rows:,} used"
            case more if more > 0:
                used = f"{part.rows:,} samples of {part.rows_in:,} row{'' if part.rows_in == 1 else 's'}"
            case _:
                used = f"{part.rows:,} of {part.rows_in:,} used"
        learned = f"{part.trained_tokens:,} trained ({_percent(part.trained_tokens, part.tokens)})"
        yield name, f"{used}: {part.tokens:,} tokens, {learned}"
        for skip in part.skipped:
            yield " ", f"{skip.rows:,} not used: {skip.reason} ({', '.join(skip.places[:3])}{', ...' * (skip.rows > 3)})"
        if name == "train" or report.train.sources != part.sources:
            for source in part.sources if len(part.sources) > 1 else ():
                yield " ", f"{source.name}: {source.rows:,} rows ({100 * source.rows_share:.1f} %), {source.tokens:,} tokens"
    yield "tokenizer", f"sha256 {report.hashes.tokenizer[:12]}"
    if report.hashes.chat_template:
        yield "template", f"sha256 {report.hashes.chat_template[:12]}"


def _lengths(part: Part) -> Iterator[tuple[str, str]]:
    of, limit = part.lengths, part.limit
    most = max(one.rows for one in of.histogram)
    wide, count = len(f"{of.histogram[-1].last:,}"), len(f"{most:,}")
    for one in of.histogram:
        over = " over" if one.first >= limit.max_length else ""
        yield "", f"{one.first:>{wide},} to {one.last:>{wide},}  {one.rows:>{count},} {_bar(one.rows / most, 40)}{over}"
    yield (
        "mean",
        f"{of.mean:,.0f}, median {of.p50:,}, 90 % {of.p90:,}, 95 % {of.p95:,}, 99 % {of.p99:,}, longest {of.longest:,}",
    )
    if limit.rows_over:
        rows = f"{limit.rows_over:,} row{'' if limit.rows_over == 1 else 's'}"
        yield "limit", f"max_length {limit.max_length:,}, and {rows} ({percent(limit.rows_over_share)}) longer"
        for policy, lost, share in (
            ("drop", limit.tokens_lost_by_drop, limit.tokens_lost_by_drop_share),
            ("truncate", limit.tokens_lost_by_truncate, limit.tokens_lost_by_truncate_share),
        ):
            chosen = ", as the recipe says" if policy == limit.over_length else ""
            yield " ", f"over_length: {policy} loses {lost:,} tokens ({percent(share)}){chosen}"
        nearly = f"{limit.fits_999:,} for 99.9 % of the rows, " if limit.fits_999 < limit.fits_all else ""
        yield "fits", f"{nearly}{limit.fits_all:,} for all rows"
    else:
        yield "limit", f"max_length {limit.max_length:,}, and every row fits ({limit.fits_all:,} would do)"
    avoided = "; none is computed: rows are packed without padding" if part.padding.avoided else ""
    yield "padding", f"{100 * part.padding.share:.1f} % of padded batches of {part.padding.batch}{avoided}"


def _bar(share: float, width: int) -> str:
    full, rest = divmod(max(round(share * width * 8), share > 0), 8)
    return "█" * full + _BLOCKS[rest].strip()


def _learned(report: DataReport) -> Iterator[tuple[str, str]]:
    part = report.train
    wide = max(len(f"{role.tokens:,}") for role in part.roles)
    for role in part.roles:
        share = f" ({_percent(role.trained_tokens, role.tokens)})" if role.trained_tokens else ""
        yield role.role, f"{role.tokens:>{wide},} tokens, {role.trained_tokens:,} trained{share}"
    if part.turns:
        yield "turn ends", f"trained in {part.turns_ended:,} of {part.turns:,} answers{_names(part.turn_ends)}"
    if report.method == "grpo":
        yield "answers", "generated by the model and scored by the reward functions"
    nothing = "" if report.method == "grpo" else f"{part.untrained_rows:,} rows without trainable tokens, "
    yield "faults", f"{nothing}{part.double_bos:,} with a doubled BOS token"


def _names(ends: tuple[str, ...]) -> str:
    return f" ({', '.join(ends[:3])}{', ...' if len(ends) > 3 else ''})" if ends else ""


def _duplicates(d: Duplicates, *, held_out: bool) -> Iterator[tuple[str, str]]:
    yield (
        "train",
        f"{d.exact_rows:,} rows identical to an earlier one, {d.near_rows:,} nearly so (Jaccard {d.threshold:g} or more)",
    )
    if held_out:
        same = f"{d.contaminated_exact:,} identical training rows, {d.contaminated_near:,} nearly so"
        yield "held out", f"{same}, {d.contaminated_prompts:,} with the same prompt"
    for group in d.groups[:_GROUPS]:
        kind = "same" if group.kind == "exact" else f"near {group.similarity:.2f}"
        rows = group.train_rows + group.eval_rows
        yield kind, f"{rows} rows: {', '.join(group.places)}{', ...' if rows > len(group.places) else ''}"
        yield " ", group.text
    if d.groups_found > _GROUPS:
        yield " ", f"and {d.groups_found - _GROUPS:,} more groups (--html and --json show {len(d.groups)})"


def _secrets(found: Sequence[Secret]) -> Iterator[tuple[str, str]]:
    if not found:
        yield "", "none found (keys, tokens, card numbers, IBANs, e-mail addresses)"
    for one in found:
        yield "", f"{one.kind}: {one.found:,} in {one.rows:,} row{'' if one.rows == 1 else 's'}"
        for place, shown in one.examples[:3]:
            yield " ", f"{place}: {shown}"


def _legend(console: Console) -> None:
    from rich.text import Text

    if _coloured(console):
        console.print(
            Text.assemble("  ", ("learned", _LEARNED[0]), " ", ("tokens", _LEARNED[1]), " and not trained; ↵ ends a line")
        )
    else:
        console.print(Text("  ⟦trained tokens⟧ and others; ↵ ends a line"))


def _coloured(console: Console) -> bool:
    return console.is_terminal and console.color_system is not None and not console.no_color


def _row(console: Console, row: Row) -> None:
    from rich.text import Text

    coloured = _coloured(console)
    text, at = Text(), 0
    for trained, run in rendering.runs(row):
        bracket = trained and not coloured
        text.append("⟦" if bracket else "")
        head, middle, tail = rendering.folded(run, _HEAD, _TAIL)
        for piece in (*head, *([Fold(len(middle), trained)] if middle else []), *tail):
            at += 1
            text.append_text(_piece(piece, at, coloured=coloured))
        text.append("⟧" if bracket else "")
    text.rstrip()
    about = f"{row.place}: {row.tokens:,} tokens, {row.trained_tokens:,} trained"
    console.print()
    _hang(console, Text("  "), Text(visible(about), "bold"))
    _hang(console, Text("  "), text)


def _piece(piece: Piece | Fold, at: int, *, coloured: bool) -> Text:
    from rich.text import Text

    if isinstance(piece, Fold):
        return Text(f" [... {piece.tokens:,} more tokens ...] ", "italic" if coloured else "")
    style = (_LEARNED if piece.trained else _PLAIN)[at % 2]
    if piece.special and not piece.trained:
        style = "magenta"
    shown = visible(piece.text)
    if not shown.endswith("\n"):
        return Text(shown, style if coloured else "")
    return Text(shown[:-1], style if coloured else "").append("\n", "")


def _note(console: Console, note: Note) -> None:
    from rich.text import Text

    mark, style = _MARKS[note.level]
    text = Text.assemble((note.level, style), " ", (visible(note.where), "bold"), f": {visible(note.text)}")
    _hang(console, Text(f"  {mark} ", style), text)
    if note.next:
        _hang(console, Text("    → ", "cyan"), Text(visible(note.next), "cyan"))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
