"""What becomes of each setting of another trainer, and the recipe that comes of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from llmbench.errors import RecipeError
from llmbench.importing.foreign import Foreign, Place, Unread
from llmbench.recipe import TrainRecipe

__all__ = ["Draft", "Fate", "Translation"]

Fate = Literal["kept", "default", "dropped", "refused"]
"""kept: a field of the recipe means it; default: the peer's own default, written out because ours differs; dropped: without
effect on what is trained; refused: it would change the training, and no field means it."""
_GONE = object()


@dataclass(frozen=True)
class Translation:
    """One setting of the peer, and what became of it."""

    theirs: str
    """The peer's key, dotted where it is nested."""
    value: Any
    """What the file gives it; of a default, what the peer takes."""
    fate: Fate
    ours: str | None = None
    """The recipe's field, where one means it."""
    becomes: Any = None
    """The value of that field."""
    why: str = ""
    fatal: bool = False
    """Refused, and without it there is no faithful recipe at all."""
    line: int | None = None


class Draft:
    """A recipe in the making: settings are taken one by one, and whatever nobody takes is reported.

    An empty value counts as absent, as it does for every peer.
    """

    def __init__(self, peer: str, foreign: Foreign, into: Path, values: Mapping[str, Any] | None = None) -> None:
        """Starts with no field set.

        Args:
            peer: the trainer's name, for messages.
            foreign: the file.
            into: the folder that the recipe's relative paths start from.
            values: its settings by their keys; those of the file where none are given.
        """
        self.peer, self.foreign, self.into = peer, foreign, into
        given = foreign.values if values is None else values
        self._unread = {key: value for key, value in given.items() if isinstance(value, Unread)}
        self.values = {key: value for key, value in given.items() if not _empty(value) and key not in self._unread}
        self.recipe: dict[str, Any] = {}
        self.comments: dict[str, str] = {}
        self.translations: list[Translation] = []
        self._faults: list[str] = []
        self._known: set[str] = set()

    # What the file says

    def has(self, key: str) -> bool:
        """Whether the file gives a value."""
        self._known.add(key)
        return key in self.values

    def get(self, key: str, default: Any = None) -> Any:
        """The value that the file gives, unjudged."""
        self._known.add(key)
        return self.values.get(key, default)

    def number(self, key: str, default: Any = None) -> Any:
        """The value, which must be a number; where it is none, 1, and `finish` says so."""
        value = self.get(key, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fault(key, f"should be a number, not {_short(value)}")
            return 1 if default is None else default
        return value

    def whole(self, key: str, default: Any = None) -> Any:
        """The value, which must be a whole number, as `2.0` is; where it is none, 1, and `finish` says so."""
        value = self.number(key, default)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if value is not default and not isinstance(value, int):
            self.fault(key, f"should be a whole number, not {_short(value)}")
            return 1 if default is None else default
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """The value, which must be true or false."""
        value = self.get(key, default)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if value in (0, 1) and not isinstance(value, str):
            return bool(value)
        if not isinstance(value, bool):
            self.fault(key, f"should be true or false, not {_short(value)}")
            return default
        return value

    def text(self, key: str, default: str | None = None) -> str | None:
        """The value, which must be one text or number."""
        value = self.get(key, default)
        if value is not default and isinstance(value, list | dict):
            self.fault(key, f"should be text, not {_short(value)}")
            return default
        return value if value is None else str(value)

    def words(self, key: str) -> list[str]:
        """The value as a list of texts: a list, or one text with commas; empty where the file has none."""
        value = self.get(key)
        if value is None:
            return []
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
            return [str(part) for part in value]
        self.fault(key, f"should be a list of words, not {_short(value)}")
        return []

    def fault(self, key: str, what: str) -> None:
        """Notes a value that the peer itself would not take."""
        self._faults.append(f"{self.where(key)}: {key} {what}")

    def where(self, key: str) -> str:
        """File and line of a key, for a message."""
        line = self.line(key)
        return f"{self.foreign.path}:{line}" if line else str(self.foreign.path)

    def line(self, key: str) -> int | None:
        """The line of a key, or of what it is in."""
        parts: list[str | int] = []
        for part in key.replace("[", ".").replace("]", "").split("."):
            parts.append(int(part) if part.isdecimal() else part)
        place: Place = tuple(parts)
        while place and place not in self.foreign.lines:
            place = place[:-1]
        return self.foreign.lines.get(place) if place else None

    # What becomes of it

    def keep(self, key: str, ours: str, value: Any = _GONE, why: str = "") -> None:
        """A field of the recipe means this setting; `value` where the words differ."""
        given = self.get(key)
        becomes = given if value is _GONE else value
        self.put(ours, becomes)
        if why:
            self.comments[ours] = why
        self._note(key, given, "kept", ours, becomes, why)

    def tell(self, key: str, ours: str, becomes: Any, why: str = "") -> None:
        """As `keep`, of a field that is set already."""
        self._note(key, self.get(key), "kept", ours, becomes, why)

    def drop(self, key: str, why: str) -> None:
        """It has no effect on what is trained. What is kept or refused already stays so."""
        if self.has(key) and not any(one.theirs == key and one.fate in ("kept", "refused") for one in self.translations):
            self._note(key, self.get(key), "dropped", why=why)

    def refuse(self, key: str, why: str, ours: str | None = None, value: Any = None) -> None:
        """It would change the training and no field means it; the nearest value may stand in `ours`."""
        if ours is not None:
            self.put(ours, value)
            self.comments[ours] = f"{self.peer}: {key}: {_short(self.get(key))}"
        self._note(key, self.get(key), "refused", ours, value, why)

    def fail(self, key: str, why: str) -> None:
        """It cannot be left out, and no recipe means it."""
        self._known.add(key)
        self.translations.append(Translation(key, self.values.get(key), "refused", why=why, fatal=True, line=self.line(key)))

    def default(self, key: str, theirs: Any, ours: str, value: Any = _GONE, why: str = "") -> None:
        """What the peer takes where its file says nothing, written out if llmbench would take something else."""
        becomes = theirs if value is _GONE else value
        if self.at(ours) is not _GONE or not self._in_use(ours):
            return
        own = _default(ours)
        if own == becomes and type(own) is type(becomes):
            return
        said = f"llmbench's: {_short(own)}"
        if own is _GONE:
            said = "llmbench's depends on the method"
        elif own is None:
            said = "llmbench chooses"
        self.write_out(key, theirs, ours, becomes, why or f"{self.peer}'s default; {said}")

    def write_out(self, key: str, theirs: Any, ours: str, becomes: Any, why: str) -> None:
        """As `default`, also where llmbench would take the same."""
        self.put(ours, becomes)
        self.comments[ours] = why
        self.translations.append(Translation(key, theirs, "default", ours, becomes, why))

    def note(self, key: str, value: Any, why: str) -> None:
        """Something that the file does not say and a reader should know."""
        self.translations.append(Translation(key, value, "refused", why=why))

    def _note(self, key: str, given: Any, fate: Fate, ours: str | None = None, becomes: Any = None, why: str = "") -> None:
        self._known.add(key)
        if any(one.theirs == key and one.fatal for one in self.translations):
            return  # what cannot be left out stays so, whatever else the key says
        self.translations = [one for one in self.translations if one.theirs != key or one.fate == "default"]
        self.translations.append(Translation(key, given, fate, ours, becomes, why, line=self.line(key)))

    # The recipe

    def put(self, ours: str, value: Any) -> None:
        """Sets a field by its dotted name."""
        *path, last = ours.split(".")
        here = self.recipe
        for part in path:
            if not isinstance(here.get(part), dict):
                here[part] = {}
            here = here[part]
        here[last] = value

    def at(self, ours: str) -> Any:
        """The value of a field that is set; a mark of its own where it is not."""
        here: Any = self.recipe
        for part in ours.split("."):
            if not isinstance(here, dict) or part not in here:
                return _GONE
            here = here[part]
        return here

    def set_to(self, ours: str, otherwise: Any = None) -> Any:
        """The value of a field, or another where it is not set."""
        found = self.at(ours)
        return otherwise if found is _GONE else found

    def _in_use(self, ours: str) -> bool:
        """Whether the section of a field is one that this recipe has: `lora.r` is not with `lora: null`."""
        section = ours.split(".")[0]
        return section in ("training", "data", "model") or isinstance(self.recipe.get(section), dict)

    def finish(self, dropped: Mapping[str, str], known: Iterable[str] = ()) -> None:
        """Reports what nobody took: keys without effect with their reason, and keys that are unknown.

        Args:
            dropped: the peer's keys that change nothing, each with the reason.
            known: more keys that the peer has, for telling a misspelt one.

        Raises:
            RecipeError: values of a wrong type, a line each.
        """
        if self._faults:
            raise RecipeError("\n".join(self._faults))
        told = {one.theirs for one in self.translations}
        names = sorted({*self._known, *dropped, *known})
        for key, one in self._unread.items():
            if key in dropped:
                self._note(key, one.source, "dropped", why=dropped[key])
            elif key in self._known:
                self._note(
                    key,
                    one.source,
                    "refused",
                    why="computed by the script, of which nothing is executed: set the field that means it",
                )
        for key in self.values:
            if key in told or any(other.startswith((f"{key}.", f"{key}[")) for other in told):
                continue
            if key in dropped:
                self._note(key, self.values[key], "dropped", why=dropped[key])
            elif key in self._known:
                self._note(key, self.values[key], "dropped", why="has no effect with these settings")
            else:
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.8)
                hint = f"did you mean {near[0]}?" if near else "look up what it does there, and set the field that means it"
                self._note(key, self.values[key], "refused", why=f"not a setting of {self.peer} that llmbench knows: {hint}")


def _default(ours: str) -> Any:
    """What llmbench takes for a field that a recipe leaves out; a mark where that depends on the method."""
    if ours == "training.learning_rate":
        return _GONE
    model: Any = TrainRecipe
    *path, last = ours.split(".")
    for part in path:
        annotation = model.model_fields[part].annotation
        inner = [kind for kind in getattr(annotation, "__args__", (annotation,)) if isinstance(kind, type)]
        model = next((kind for kind in inner if issubclass(kind, BaseModel)), None)
        if model is None:
            return _GONE
    field = model.model_fields[last]
    return _GONE if field.is_required() else field.get_default(call_default_factory=True)


def _empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def _short(value: Any) -> str:
    """A value as YAML has it, cut where it is long."""
    text = {True: "true", False: "false", None: "none"}[value] if isinstance(value, bool | None) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
