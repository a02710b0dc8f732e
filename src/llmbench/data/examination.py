"""Prepared rows -> the data report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbench.data import duplicates, findings, lengths, rendering, secrets
from llmbench.data.columns import ROLES, Columns, columns
from llmbench.data.report import DataReport, Duplicates, Group, Hashes, Part, RoleTokens, Secret, Skips, SourceShare, ranked

if TYPE_CHECKING:
    from llmbench.data.values import Report, Rows
    from llmbench.recipe import DataSource, TrainRecipe

__all__ = ["examine"]

_PLACES = 5
_TEXT = 160
_GROUPS = 20
_READ = 50_000_000
"""Tokens of a part that are read as text, for duplicates and secrets: some 200 MB, a minute or two."""


def examine(
    recipe: TrainRecipe,
    rows: Rows,
    tokenizer: Any,
    hashes: Hashes,
    *,
    stops: Sequence[int] = (),
    shown: int = 3,
    threshold: float = duplicates.THRESHOLD,
    refused: str | None = None,
) -> DataReport:
    """Looks at the rows of a recipe.

    Args:
        recipe: what they are for.
        rows: as `data.load` prepares them.
        tokenizer: a `tokenizers.Tokenizer`, which says what tokens stand for.
        hashes: of the tokenizer and the chat template.
        stops: the tokens at which the model stops by itself.
        shown: rows to render token by token.
        threshold: the Jaccard similarity from which rows are near duplicates.
        refused: why training would not start, where the rows were prepared otherwise than it would, to be able to show them.
    """
    parts = [_Looked(columns(rows.train), rows.train_report, recipe.data.train)]
    if rows.eval is not None and rows.eval_report is not None:
        if not recipe.data.eval:  # drawn from the same rows
            apart = rows.train_report.rows_in - rows.eval_report.rows_in
            parts = [replace(parts[0], report=replace(rows.train_report, rows_in=apart))]
        parts.append(_Looked(columns(rows.eval), rows.eval_report, recipe.data.eval or recipe.data.train))
    name = getattr(tokenizer.model, "unk_token", None)
    unknown = tokenizer.token_to_id(name) if name else None
    report = DataReport(
        recipe=str(recipe.source),
        name=recipe.name,
        method=recipe.method,
        model=recipe.model.model_name_or_path,
        hashes=hashes,
        train=_tokens_of(_part(parts[0], recipe, unknown), parts[0], recipe, tokenizer, stops),
        eval=_part(parts[1], recipe, unknown) if len(parts) > 1 else None,
        duplicates=_duplicates(parts, tokenizer, threshold),
        secrets=_secrets(parts, tokenizer),
        rendering=tuple(_rendered(parts[0], tokenizer, shown)),
    )
    return replace(report, notes=ranked(findings.notes(report, recipe, refused)))


@dataclass(frozen=True)
class _Looked:
    """One part with what is needed to name its rows."""

    columns: Columns
    report: Report
    sources: list[DataSource]

    @property
    def read(self) -> int:
        """How many rows, from the first, are read as text."""
        return int(np.searchsorted(self.columns.starts, _READ, side="right")) - 1

    def place(self, row: int) -> str:
        """`train.jsonl:17`, or `train.json: row 17`; `sample 17` of rows that do not know where they come from."""
        if self.columns.source[row] < 0:
            return f"sample {row + 1}"
        source = self.sources[self.columns.source[row]]
        number = int(self.columns.row[row])
        name = _name(source, self.sources)
        return f"{name}:{number}" if name.endswith((".jsonl", ".ndjson", ".csv", ".tsv")) else f"{name}: row {number}"

    def shortened(self, place: str) -> str:
        """A place as `data` names it, with the end of the path only."""
        for source in self.sources:
            if source.path is not None and place.startswith(str(source.path)):
                return _name(source, self.sources) + place.removeprefix(str(source.path))
        return place

    def texts(self, tokenizer: Any, *, roles: tuple[int, ...] | None) -> list[str]:
        """What the rows say: all of it, special tokens as they are written; or what some roles wrote, a line each."""
        c = self.columns.first(self.read)
        if roles is None:
            ids = [c.ids[a:b].tolist() for a, b in pairwise(c.starts)]
            texts: list[str] = tokenizer.decode_batch(ids, skip_special_tokens=False)
            return texts
        mine = np.isin(c.roles, roles)
        edge = np.zeros(len(mine) + 1, dtype=bool)
        edge[c.starts] = True
        edge[1:-1] |= mine[1:] != mine[:-1]
        edges = np.flatnonzero(edge)
        spans = [(a, b) for a, b in pairwise(edges) if mine[a]]
        said = tokenizer.decode_batch([c.ids[a:b].tolist() for a, b in spans], skip_special_tokens=True)
        lines: list[list[str]] = [[] for _ in range(len(c))]
        for row, text in zip(np.searchsorted(c.starts, [a for a, _ in spans], side="right") - 1, said, strict=True):
            lines[row].append(text)
        return ["\n".join(found) for found in lines]


def _name(source: DataSource, sources: Sequence[DataSource]) -> str:
    """The end of a source's path that no other source has."""
    if source.path is None:
        return f"lessons {source.lessons.stage}" if source.lessons else "rows"
    others = [other.path for other in sources if other.path is not None and other.path != source.path]
    parts = source.path.parts
    for count in range(1, len(parts)):
        if not any(other.parts[-count:] == parts[-count:] for other in others):
            return str(Path(*parts[-count:]))
    return str(source.path)


def _part(part: _Looked, recipe: TrainRecipe, unknown: int | None) -> Part:
    c, spec, training = part.columns, recipe.data, recipe.training
    before = c.lengths if part.report.length_before is None else part.report.length_before
    trained = c.per_row(c.trained)
    untrained = np.flatnonzero(trained == 0)
    begins = (c.roles == ROLES.index("assistant")).any() and np.count_nonzero(
        np.diff(c.trained.astype(np.int8), prepend=0) == 1
    )
    within = c.lengths > 0
    cut = (c.lengths == spec.max_length) & within & (part.report.truncated > 0)
    kept = np.minimum(before, spec.max_length) if spec.over_length == "truncate" else before[before <= spec.max_length]
    return Part(
        rows_in=part.report.rows_in,
        rows=part.report.rows,
        skipped=tuple(_skips(part)),
        sources=tuple(_shares(part)),
        tokens=len(c.ids),
        trained_tokens=int(c.trained.sum()),
        lengths=lengths.lengths(before),
        limit=lengths.limit(before, spec.max_length, spec.over_length),
        padding=lengths.padding(
            kept if len(kept) else before,
            rows=training.per_device_train_batch_size,
            tokens=training.max_tokens_per_batch,
            shuffle=spec.shuffle,
            multiple=training.pad_to_multiple_of or 1,
            seed=training.seed,
            avoided=recipe.end_to_end,
        ),
        roles=tuple(_roles(c)),
        turns=int(begins),
        turns_ended=int(begins) - min(part.report.unstopped, int(begins)),
        control=part.report.control,
        split=part.report.split,
        unprompted=part.report.unprompted,
        merged=part.report.merged,
        remarks=(*part.report.notes, *_unread(part)),
        cut_turns=int(np.count_nonzero(c.trained[c.starts[1:][cut] - 1])),
        untrained_rows=len(untrained),
        untrained_places=tuple(part.place(int(i)) for i in untrained[:_PLACES]),
        double_bos=part.report.double_bos,
        unknown=0 if unknown is None else int((c.ids == unknown).sum()),
    )


def _tokens_of(made: Part, part: _Looked, recipe: TrainRecipe, tokenizer: Any, stops: Sequence[int]) -> Part:
    """The part with the tokens that end turns, those at which the model stops, and added tokens that no row has."""
    known = {number: tokenizer.id_to_token(number) or f"<{number}>" for number in (*part.report.turn_ends, *stops)}
    added = [] if recipe.tokenizer is None else recipe.tokenizer.add_tokens
    return replace(
        made,
        turn_ends=tuple(known[end] for end in part.report.turn_ends),
        unstoppable=tuple(known[end] for end in part.report.turn_ends if end not in stops),
        stops=tuple(known[stop] for stop in stops),
        unused=tuple(token for token in added if not (part.columns.ids == tokenizer.token_to_id(token)).any()),
    )


def _unread(part: _Looked) -> list[str]:
    if part.read == len(part.columns):
        return []
    return [f"duplicates and secrets were looked for in the first {part.read:,} of {len(part.columns):,} rows"]


def _skips(part: _Looked) -> list[Skips]:
    reasons = Counter(skip.reason for skip in part.report.skipped)
    first: dict[str, list[str]] = {reason: [] for reason in reasons}
    for skip in part.report.skipped:
        if len(first[skip.reason]) < _PLACES:
            first[skip.reason].append(part.shortened(skip.place))
    return [Skips(reason, count, tuple(first[reason])) for reason, count in reasons.most_common()]


def _shares(part: _Looked) -> list[SourceShare]:
    c = part.columns
    known = c.source >= 0
    rows = np.bincount(c.source[known], minlength=len(part.sources))
    tokens = np.bincount(c.source[known], weights=c.lengths[known], minlength=len(part.sources)).astype(np.int64)
    return [
        SourceShare(
            _name(source, part.sources),
            str(source.path or ""),
            int(rows[i]),
            round(int(rows[i]) / max(len(c), 1), 4),
            int(tokens[i]),
            round(int(tokens[i]) / max(len(c.ids), 1), 4),
        )
        for i, source in enumerate(part.sources)
    ]


def _roles(c: Columns) -> list[RoleTokens]:
    all_, learned = np.bincount(c.roles, minlength=len(ROLES)), np.bincount(c.roles[c.trained], minlength=len(ROLES))
    names = ROLES if all_[1:].any() else ("text", *ROLES[1:])
    return [RoleTokens(name, int(all_[i]), int(learned[i])) for i, name in enumerate(names) if all_[i]]


@dataclass(frozen=True)
class _Told:
    """What the rows of all parts say, each row of a file once, however many samples training makes of it."""

    parts: list[_Looked]
    at: list[list[int]]
    """Of each part a sample of each row, the last."""
    texts: list[str]
    keys: list[bytes]

    @property
    def train(self) -> int:
        """How many of them are training rows; they come first."""
        return len(self.at[0])

    def place(self, i: int) -> str:
        """Where the i-th of them stands."""
        if i < self.train:
            return self.parts[0].place(int(self.at[0][i]))
        return f"eval {self.parts[1].place(int(self.at[1][i - self.train]))}"


def _told(parts: list[_Looked], tokenizer: Any) -> _Told:
    """What users, assistants and tools say: without template and system prompt, which all rows have in common."""
    said = tuple(ROLES.index(role) for role in ("user", "assistant", "tool", "prompt"))
    at, texts, keys = [], [], []
    for part in parts:
        c = part.columns.first(part.read)
        written = part.texts(tokenizer, roles=said if np.isin(c.roles, said).any() else None)
        hashes = duplicates.digests(c.ids, c.starts[:-1], c.starts[1:])
        samples = c.samples_of_rows()
        at.append([row[-1] for row in samples])
        texts += ["\n".join(dict.fromkeys(written[i] for i in row)) for row in samples]
        keys += [b"".join(dict.fromkeys(hashes[i] for i in row)) for row in samples]
    return _Told(parts, at, texts, keys)


def _duplicates(parts: list[_Looked], tokenizer: Any, threshold: float) -> Duplicates:
    import pyarrow as pa

    told = _told(parts, tokenizer)
    first = told.train
    found = duplicates.groups(pa.array(told.texts, pa.large_string()), told.keys, threshold)
    exact, near = _surplus(found, told)
    held_out = set(told.keys[first:])
    same = {row for row in range(first) if told.keys[row] in held_out}
    across = {row for group in found if group.rows[-1] >= first for row in group.rows if row < first}
    asked = _same_prompts(told)
    return Duplicates(
        threshold=threshold,
        exact_rows=exact,
        near_rows=near,
        contaminated_exact=len(same),
        contaminated_near=len(across - same),
        contaminated_prompts=len(asked - same),
        contaminated_places=tuple(told.place(row) for row in sorted(same | across | asked)[:_PLACES]),
        groups_found=len(found),
        groups=tuple(
            Group(
                "exact" if group.exact else "near",
                round(group.similarity, 3),
                sum(row < first for row in group.rows),
                sum(row >= first for row in group.rows),
                tuple(told.place(row) for row in _some(group.rows, first)),
                _short(told.texts[group.rows[0]]),
            )
            for group in sorted(found, key=lambda group: group.rows[0] >= first or group.rows[-1] < first)[:_GROUPS]
        ),
    )


def _surplus(found: list[duplicates.Group], told: _Told) -> tuple[int, int]:
    """Training rows that are equal to an earlier one, and those that are only nearly so."""
    exact = near = 0
    for group in found:
        mine = [row for row in group.rows if row < told.train]
        different = len({told.keys[row] for row in mine})
        exact += len(mine) - different
        near += max(different - 1, 0)
    return exact, near


def _same_prompts(told: _Told) -> set[int]:
    """Training rows that ask what a held-out row asks. A prompt of one token at most is none."""
    prompts = []
    for part, at in zip(told.parts, told.at, strict=True):
        starts, ends = part.columns.starts[:-1][at], part.columns.prompt_ends()[at]
        hashes = duplicates.digests(part.columns.ids, starts, ends)
        prompts.append([key if end - start > 1 else None for key, start, end in zip(hashes, starts, ends, strict=True)])
    asked = {key for keys in prompts[1:] for key in keys if key is not None}
    return {row for row, key in enumerate(prompts[0]) if key in asked}


def _some(rows: Sequence[int], first: int) -> list[int]:
    """A few rows of a group, of both parts where it has both."""
    mine, theirs = [row for row in rows if row < first], [row for row in rows if row >= first]
    half = _PLACES - min(len(theirs), _PLACES // 2)
    return [*mine[:half], *theirs[: _PLACES - len(mine[:half])]]


def _short(text: str) -> str:
    """A text's beginning on one line, without secrets."""
    line = " ".join(secrets.hide(text[:4000]).split())
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"


def _secrets(parts: list[_Looked], tokenizer: Any) -> tuple[Secret, ...]:
    found: dict[str, list[tuple[str, str]]] = {}
    for part, name in zip(parts, ("", "eval "), strict=False):
        for one in secrets.find(part.texts(tokenizer, roles=None)):
            found.setdefault(one.kind, []).append((name + part.place(one.row), one.shown))
    return tuple(
        Secret(kind, how.key, len(found[kind]), len({place for place, _ in found[kind]}), tuple(found[kind][:_PLACES]))
        for kind, how in secrets.KINDS.items()
        if kind in found
    )


def _rendered(part: _Looked, tokenizer: Any, count: int) -> list[rendering.Row]:
    """Rows from all over the part."""
    c, count = part.columns, min(count, len(part.columns))
    chosen = [round(i * (len(c) - 1) / max(count - 1, 1)) for i in range(count)]
    spans = [slice(int(c.starts[i]), int(c.starts[i + 1])) for i in chosen]
    sides = [f" ({c.sides[i % len(c.sides)]})" if c.sides else "" for i in chosen]
    return [
        rendering.row(part.place(i) + side, c.ids[span].tolist(), c.trained[span].tolist(), tokenizer)
        for i, span, side in zip(chosen, spans, sides, strict=True)
    ]
