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
    from llmbench.data import Report, Rows
    from llmbench.recipe import DataSource, TrainRecipe

__all__ = ["examine"]

_PLACES = 5
_TEXT = 160
_GROUPS = 20


def examine(
    recipe: TrainRecipe,
    rows: Rows,
    tokenizer: Any,
    hashes: Hashes,
    *,
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
        shown: rows to render token by token.
        threshold: the Jaccard similarity from which rows are near duplicates.
        refused: why training would not start, where the rows were prepared without `max_length` to be able to show them.
    """
    parts = [_Looked(columns(rows.train), rows.train_report, recipe.data.train)]
    if rows.eval is not None and rows.eval_report is not None:
        parts.append(_Looked(columns(rows.eval), rows.eval_report, recipe.data.eval or recipe.data.train))
    report = DataReport(
        recipe=str(recipe.source),
        name=recipe.name,
        method=recipe.method,
        model=recipe.model.model_name_or_path,
        hashes=hashes,
        train=_part(parts[0], recipe),
        eval=_part(parts[1], recipe) if len(parts) > 1 else None,
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

    def place(self, row: int) -> str:
        """`train.jsonl:17`, or `train.json: row 17`."""
        source = self.sources[self.columns.source[row]]
        number = int(self.columns.row[row])
        name = _name(source, self.sources)
        return f"{name}:{number}" if name.endswith((".jsonl", ".ndjson", ".csv", ".tsv")) else f"{name}: row {number}"

    def texts(self, tokenizer: Any, *, roles: tuple[int, ...] | None) -> list[str]:
        """What the rows say: all of it, special tokens as they are written; or what some roles wrote."""
        c = self.columns
        chosen, starts = c.ids, c.starts
        if roles is not None:
            mine = np.isin(c.roles, roles)
            chosen, starts = c.ids[mine], np.concatenate([[0], np.cumsum(c.per_row(mine))])
        ids = [chosen[a:b].tolist() for a, b in pairwise(starts)]
        texts: list[str] = tokenizer.decode_batch(ids, skip_special_tokens=roles is not None)
        return texts


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


def _part(part: _Looked, recipe: TrainRecipe) -> Part:
    c, spec, training = part.columns, recipe.data, recipe.training
    before = np.asarray(part.report.length_before)
    trained = c.per_row(c.trained)
    untrained = np.flatnonzero(trained == 0)
    begins = np.count_nonzero(np.diff(c.trained.astype(np.int8), prepend=0) == 1)
    within = c.lengths > 0
    cut = (c.lengths == spec.max_length) & within & (part.report.truncated > 0)
    kept = np.minimum(before, spec.max_length) if spec.over_length == "truncate" else before[before <= spec.max_length]
    return Part(
        rows_in=part.report.rows_in,
        rows=part.report.rows,
        skipped=tuple(_skips(part.report)),
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
        ),
        roles=tuple(_roles(c)),
        turns=int(begins),
        turns_ended=int(begins) - min(part.report.unstopped, int(begins)),
        cut_turns=int(np.count_nonzero(c.trained[c.starts[1:][cut] - 1])),
        untrained_rows=len(untrained),
        untrained_places=tuple(part.place(int(i)) for i in untrained[:_PLACES]),
        double_bos=part.report.double_bos,
    )


def _skips(report: Report) -> list[Skips]:
    reasons = Counter(skip.reason for skip in report.skipped)
    return [
        Skips(reason, count, tuple([skip.place for skip in report.skipped if skip.reason == reason][:_PLACES]))
        for reason, count in reasons.most_common()
    ]


def _shares(part: _Looked) -> list[SourceShare]:
    c = part.columns
    rows = np.bincount(c.source, minlength=len(part.sources))
    tokens = np.bincount(c.source, weights=c.lengths, minlength=len(part.sources)).astype(np.int64)
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
    return [RoleTokens(name, int(all_[i]), int(learned[i])) for i, name in enumerate(ROLES) if all_[i]]


def _duplicates(parts: list[_Looked], tokenizer: Any, threshold: float) -> Duplicates:
    """Groups over all parts together; rows are told apart by what they say, without template and system prompt."""
    import pyarrow as pa  # type: ignore[import-untyped]

    said = (ROLES.index("user"), ROLES.index("assistant"), ROLES.index("tool"))
    texts = [text for part in parts for text in part.texts(tokenizer, roles=said)]
    whole, prompts = [], []
    for part in parts:
        c, starts = part.columns, part.columns.starts
        whole.append(duplicates.digests(c.ids, starts[:-1], starts[1:]))
        prompts.append(duplicates.digests(c.ids, starts[:-1], np.maximum(c.prompt_ends(), starts[:-1])))
    first = len(parts[0].columns)

    def place(row: int) -> str:
        return parts[0].place(row) if row < first else f"eval {parts[1].place(row - first)}"

    found = duplicates.groups(pa.array(texts, pa.large_string()), [key for keys in whole for key in keys], threshold)
    exact, near = _surplus(found, [key for keys in whole for key in keys], first)
    held_out = set(whole[1]) if len(parts) > 1 else set()
    same = {row for row in range(first) if whole[0][row] in held_out}
    across = {row for group in found if group.rows[-1] >= first for row in group.rows if row < first}
    asked = _same_prompts(parts, prompts)
    return Duplicates(
        threshold=threshold,
        exact_rows=exact,
        near_rows=near,
        contaminated_exact=len(same),
        contaminated_near=len(across - same),
        contaminated_prompts=len(asked - same),
        contaminated_places=tuple(place(row) for row in sorted(same | across | asked)[:_PLACES]),
        groups=tuple(
            Group(
                "exact" if group.exact else "near",
                round(group.similarity, 3),
                sum(row < first for row in group.rows),
                sum(row >= first for row in group.rows),
                tuple(place(row) for row in _mixed(group.rows, first)),
                _short(texts[group.rows[0]]),
            )
            for group in sorted(found, key=lambda group: group.rows[0] >= first or group.rows[-1] < first)[:_GROUPS]
        ),
    )


def _surplus(found: list[duplicates.Group], keys: list[bytes], first: int) -> tuple[int, int]:
    """Training rows that are equal to an earlier one, and those that are only nearly so."""
    exact = near = 0
    for group in found:
        mine = [row for row in group.rows if row < first]
        different = len({keys[row] for row in mine})
        exact += len(mine) - different
        near += max(different - 1, 0)
    return exact, near


def _same_prompts(parts: list[_Looked], prompts: list[list[bytes]]) -> set[int]:
    """Training rows that ask what a held-out row asks. A prompt of one token at most is none."""
    if len(parts) < 2:
        return set()
    long = [part.columns.prompt_ends() - part.columns.starts[:-1] > 1 for part in parts]
    asked = {key for key, is_one in zip(prompts[1], long[1], strict=True) if is_one}
    return {row for row, key in enumerate(prompts[0]) if long[0][row] and key in asked}


def _mixed(rows: Sequence[int], first: int) -> list[int]:
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
    c = part.columns
    chosen = sorted({round(i * (len(c) - 1) / max(count - 1, 1)) for i in range(min(count, len(c)))})
    spans = [slice(int(c.starts[i]), int(c.starts[i + 1])) for i in chosen]
    return [
        rendering.row(part.place(i), c.ids[span].tolist(), c.trained[span].tolist(), tokenizer)
        for i, span in zip(chosen, spans, strict=True)
    ]
