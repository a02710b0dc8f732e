"""What two trainings were made of, place by place, as their locks record it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["CONTENT", "SHOWN", "Ingredient", "compare"]

Part = Literal[
    "data", "rows", "base", "tokenizer", "template", "seed", "questions", "method", "history", "packages", "hardware",
    "numerics", "settled",
]  # fmt: skip
CONTENT: tuple[Part, ...] = ("data", "rows", "base", "tokenizer", "template", "seed", "questions", "method", "history")
"""What a training is; the other parts are where and with what it was computed."""
SHOWN = {f"training.{name}" for name in ("logging_steps", "save_steps", "save_total_limit", "per_device_eval_batch_size")} | {
    "evaluation.samples_shown"
}
"""Settings that change what is seen and kept, and no step."""
_HARDWARE = ("device", "dtype", "processor", "threads", "gpu", "cuda", "cudnn")
"""What of the hardware decides about bits; its memory and its other cores do not."""


@dataclass(frozen=True)
class Ingredient:
    """One thing that a result depends on, in two trainings. None stands for what a lock does not record."""

    part: Part
    name: str
    old: str | None
    new: str | None

    @property
    def state(self) -> Literal["same", "differs", "not recorded"]:
        """Whether it is the same in both."""
        if self.old is None or self.new is None:
            return "not recorded"
        return "same" if self.old == self.new else "differs"

    def __str__(self) -> str:
        return f"{self.part}: {self.name}: {_short(self.old)} -> {_short(self.new)}"

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"part": self.part, "name": self.name, "old": self.old, "new": self.new, "state": self.state}


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Ingredient]:
    """Every ingredient that at least one of two locks records. Locks of earlier versions record fewer."""
    found = [*_data(old, new), *_rows(old, new), *_model(old, new)]
    found += _plain("seed", {"seed": old.get("seed")}, {"seed": new.get("seed")})
    found += _questions(old, new)
    found += _plain("history", *({"resumed with another recipe": _history(lock)} for lock in (old, new)), absent="none")
    if "method" in old and "method" in new:
        found += _plain("method", _flat(old["method"]), _flat(new["method"]), absent="none")
    found += _plain("packages", old.get("versions"), new.get("versions"), absent="not installed", unless=("llmbench_code",))
    hardware = [{k: v for k, v in lock.get("hardware", {}).items() if k in _HARDWARE} for lock in (old, new)]
    found += _plain("hardware", hardware[0], hardware[1])
    found += _plain("numerics", _environment(old), _environment(new), absent="not set")
    return found + _plain("settled", old.get("settled"), new.get("settled"))


def _plain(
    part: Part,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
    *,
    absent: str | None = None,
    unless: tuple[str, ...] = (),
) -> list[Ingredient]:
    """Values by name. `absent` is what a missing name means where the rest is recorded, but for the names in `unless`."""
    found = []
    for name in dict.fromkeys([*(old or {}), *(new or {})]):
        pair = []
        for side in (old, new):
            missing = None if side is None or name in unless else absent
            pair.append(missing if side is None or side.get(name) is None else _text(side[name]))
        if pair != [None, None]:
            found.append(Ingredient(part, name, pair[0], pair[1]))
    return found


def _data(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Ingredient]:
    for part in ("train", "eval"):
        sides = [lock.get("data", {}).get(part) for lock in (old, new)]
        for i in range(max(len(side or []) for side in sides)):
            a, b = (None if side is None else side[i] if i < len(side) else {} for side in sides)
            if a is not None or b is not None:
                yield from _source(f"{part}[{i}]", a, b)


def _source(place: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Iterator[Ingredient]:
    """A source of rows: by its content where it has one, else by what it is drawn from; then its files, one by one."""
    name = f"{place} {_title(old) or _title(new)}"
    yield Ingredient("data", name, _identity(old), _identity(new))
    files = [{one["name"]: one["sha256"] for one in side.get("files", [])} if side else {} for side in (old, new)]
    if all(files) and max(map(len, files)) > 1:
        yield from _plain("data", *({f"{name}/{k}": v for k, v in side.items()} for side in files), absent="none")
    for key in ("query", "formatting_sha256"):
        values = [side.get(key) if side else None for side in (old, new)]
        if any(values):
            yield Ingredient("data", f"{name} {key.partition('_')[0]}", *(str(value or "none") for value in values))


def _identity(source: dict[str, Any] | None) -> str | None:
    if source is None:
        return None
    if not source:
        return "none"
    return str(source["sha256"]) if "sha256" in source else _text({k: v for k, v in source.items() if "formatting" not in k})


def _title(source: dict[str, Any] | None) -> str:
    if not source:
        return ""
    lessons = source.get("lessons")
    return f"lessons {lessons['stage']}" if lessons else str(source.get("url") or source.get("dataset") or source.get("path"))


def _rows(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Ingredient]:
    sides = [
        {part: f"{one['rows']:,} rows, {one['sha256']}" for part, one in lock["rows"].items()} if "rows" in lock else None
        for lock in (old, new)
    ]
    return _plain("rows", *sides, absent="none")


def _model(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Ingredient]:
    models = [lock.get("model", {}) for lock in (old, new)]
    prints = [model.get("fingerprint", {}) for model in models]
    name = str(models[0].get("name") or models[1].get("name") or "random weights")
    sides = [
        {name: one.get("weights") or model.get("config")} if model else None for model, one in zip(models, prints, strict=True)
    ]
    yield from _plain("base", *sides, absent="none")
    if any("adapter" in model for model in models):
        yield from _plain("base", *(_flat({"adapter": model.get("adapter", {})}) for model in models), absent="none")
    yield from _plain("tokenizer", *({name: one.get("tokenizer")} for one in prints))
    if "template" in old and "template" in new:
        yield Ingredient("template", "chat template", _text(old["template"]), _text(new["template"]))
    else:
        yield from _plain("template", *({"chat template": one.get("chat_template")} for one in prints))


def _questions(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Ingredient]:
    sides = [lock.get("questions") for lock in (old, new)]
    if any(sides):
        name = str(next(side["path"] for side in sides if side))
        values = [side["sha256"] if side else "none" if "questions" in lock else None
                  for side, lock in zip(sides, (old, new), strict=True)]  # fmt: skip
        yield Ingredient("questions", name, values[0], values[1])


def _history(lock: Mapping[str, Any]) -> str | None:
    """What the recipe said otherwise from a step on, where the run was resumed: a schedule that was made longer, for one."""
    changes = ((entry["step"], line) for entry in lock.get("changed", []) for line in entry["recipe"])
    return "; ".join(f"step {step}: {line}" for step, line in changes if line.partition(": ")[0] not in SHOWN) or None


def _environment(lock: Mapping[str, Any]) -> dict[str, Any] | None:
    return _flat(lock["numerics"]) if "numerics" in lock else None


def _flat(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": value}
    return found


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _short(value: str | None) -> str:
    """A hash by its first 12 digits, anything else as it is."""
    if value is None:
        return "not recorded"
    head, comma, last = value.rpartition(", ")
    is_hash = len(last) == 64 and all(sign in "0123456789abcdef" for sign in last)
    return f"{head}{comma}{last[:12]}" if is_hash else value
