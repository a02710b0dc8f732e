"""People's labels of what judges judged: read from a file or from votes, and kept beside the comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbench import rows, workspace
from llmbench.compare.judging.judgements import answer_hash
from llmbench.compare.judging.verdicts import Case
from llmbench.compare.result import Comparison
from llmbench.errors import DataError

__all__ = ["FILE", "Label", "current", "kept", "read", "write"]

FILE = "labels.jsonl"
_SHOWN = 10
_FORMS = {
    "pairwise": '{"question": ID, "a": VARIANT, "b": VARIANT, "winner": "a", "b" or "tie"}',
    "rubric": '{"question": ID, "variant": VARIANT, "label": 1 to 5}',
    "checklist": '{"question": ID, "variant": VARIANT, "label": [true, false, ...]}',
}


@dataclass(frozen=True)
class Label:
    """What one person said of one answer, or of two. `value` and `label` as judges' verdicts have them, for the variants in the
    order of the comparison; `answers` are hashes of what was answered, by which it is known whether that is still so."""

    id: str
    variants: tuple[str, ...]
    value: float
    label: str
    rater: str = "person"
    answers: tuple[str, ...] = ()

    @property
    def case(self) -> Case:
        """Which verdict it stands beside: of the first repeat."""
        return self.id, self.variants, 0


def read(path: Path, comparison: Comparison) -> list[Label]:
    """The labels of a JSONL file, one object a line.

    Raises:
        DataError: every fault of the file, each with file and line (ten are shown); or no label in it.
    """
    assert comparison.judges is not None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"{path} cannot be read ({reason}).") from error
    found, faults = [], []
    for number, line in rows.lines(text.split("\n")):
        try:
            found.append(_label(json.loads(line), comparison))
        except (json.JSONDecodeError, RecursionError):
            faults.append(f"{path}:{number}: not valid JSON")
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more faults"] if len(faults) > _SHOWN else []
        raise DataError("\n".join(faults[:_SHOWN] + more))
    if not found:
        raise DataError(f"{path}: no labels in it. Write one JSON object a line: {_FORMS[comparison.judges['kind']]}")
    return found


def current(labels: Iterable[Label], comparison: Comparison) -> tuple[list[Label], int]:
    """Those of answers as they are now, with the answers' hashes, and how many were of other answers."""
    texts = {(r.answer.id, r.answer.variant): answer_hash(r.answer.text) for r in comparison.rows if not r.answer.repeat}
    kept, gone = [], 0
    for one in labels:
        now = tuple(texts.get((one.id, variant), "") for variant in one.variants)
        if "" in now or (one.answers and one.answers != now):
            gone += 1
        else:
            kept.append(Label(one.id, one.variants, one.value, one.label, one.rater, now))
    return kept, gone


def write(folder: Path, labels: Sequence[Label]) -> None:
    """Keeps them beside the comparison, for when it is measured again."""
    workspace.write_text(folder / FILE, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in labels))


def kept(folder: Path) -> list[Label]:
    """Those that were kept; none where there were none."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        made = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [Label(**{**row, "variants": tuple(row["variants"]), "answers": tuple(row["answers"])}) for row in made]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}). Calibrate again, or remove it.") from error


def _label(row: Any, comparison: Comparison) -> Label:
    assert comparison.judges is not None
    kind = comparison.judges["kind"]
    if not isinstance(row, dict):
        raise ValueError(f"not an object: {_FORMS[kind]}")
    id = _known(row.get("question", row.get("id")), [q.id for q in comparison.questions], "question")
    rater = str(row.get("rater", "person"))
    if kind == "pairwise":
        a, b = (_known(row.get(name), comparison.variants, name) for name in ("a", "b"))
        return _of_pair(id, a, b, row.get("winner", row.get("label")), comparison, rater)
    variant = _known(row.get("variant"), comparison.variants, "variant")
    value, label = _rated(row.get("label"), kind)
    return Label(id, (variant,), value, label, rater)


def _of_pair(id: str, a: str, b: str, winner: Any, comparison: Comparison, rater: str) -> Label:
    named: Mapping[Any, float] = {"a": 1.0, "b": 0.0, "tie": 0.5, a: 1.0, b: 0.0}
    if a == b:
        raise ValueError(f"a and b are both {a}")
    if not isinstance(winner, str) or winner not in named:
        raise ValueError(f"winner is {winner!r:.40}; write a, b or tie")
    turned = comparison.variants.index(a) > comparison.variants.index(b)
    value = 1 - named[winner] if turned else named[winner]
    return Label(id, (b, a) if turned else (a, b), value, {1.0: "first", 0.0: "second"}.get(value, "tie"), rater)


def _rated(said: Any, kind: str) -> tuple[float, str]:
    if kind == "rubric":
        if type(said) is not int or not 1 <= said <= 5:
            raise ValueError(f"label is {said!r:.40}; write a rating from 1 to 5")
        return (said - 1) / 4, str(said)
    if not isinstance(said, list) or not said or any(type(one) is not bool for one in said):
        raise ValueError(f"label is {said!r:.40}; write a list of true and false, an item each")
    return sum(said) / len(said), "".join("yn"[not one] for one in said)


def _known(said: Any, names: Sequence[str], what: str) -> str:
    if said is None:
        raise ValueError(f"{what} is missing")
    if said not in names:
        shown = ", ".join(names) if len(names) < 8 else f"{len(names):,} of them, such as {names[0]}"
        raise ValueError(f"{what} {said!r:.60} is none of the comparison's ({shown})")
    return str(said)
