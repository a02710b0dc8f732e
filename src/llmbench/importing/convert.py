"""One file of another trainer -> one recipe: whose it is, what becomes of its settings, and whether the recipe loads."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbench.errors import RecipeError
from llmbench.importing import (
    axolotl,
    command_line,
    dataset_info,
    interpolation,
    llamafactory,
    python_source,
    torchtune,
    trl,
    unsloth,
)
from llmbench.importing import foreign as foreign_files
from llmbench.importing.detect import peer_of
from llmbench.importing.draft import Draft, Translation
from llmbench.importing.foreign import Foreign
from llmbench.importing.written_recipe import text
from llmbench.recipe import TrainRecipe, load_text

__all__ = ["PEERS", "Imported", "convert"]

PEERS = {
    "llamafactory": llamafactory.PEER, "axolotl": axolotl.PEER, "trl": trl.PEER, "unsloth": unsloth.PEER,
    "torchtune": torchtune.PEER,
}  # fmt: skip
"""The trainers whose configurations are read, by the word for `--from`, with their names."""
_OMEGACONF = ("llamafactory", "torchtune")
"""Those that read `${key}` as a reference."""
_MISSING = re.compile(r"no such file|no file matches|neither a run with an adapter nor|exists in the working directory")
SCHEMA = "llmbench.import/1"


@dataclass(frozen=True)
class Imported:
    """What came of a file."""

    file: Path
    peer: str
    """As `--from` names it."""
    recipe: str | None
    """The document; None where a setting that cannot be left out has no counterpart."""
    translations: tuple[Translation, ...]
    missing: tuple[str, ...] = ()
    """Why the recipe does not load yet: files and folders that it names and that are not on this machine, a line each."""
    unfit: tuple[str, ...] = ()
    """Why no recipe can be made of it, a line each."""

    @property
    def counts(self) -> dict[str, int]:
        """How many settings had each fate."""
        found = Counter(one.fate for one in self.translations)
        return {fate: found[fate] for fate in ("kept", "default", "dropped", "refused")}

    def as_json(self) -> dict[str, Any]:
        """The account as JSON has it."""
        return {
            "schema": SCHEMA,
            "file": str(self.file),
            "from": self.peer,
            "recipe": self.recipe,
            "loads": self.recipe is not None and not self.missing,
            "missing": list(self.missing),
            "unfit": list(self.unfit),
            "counts": self.counts,
            "settings": [_finite(asdict(one)) for one in self.translations],
        }


def _finite(value: Any) -> Any:
    """A value with numbers that JSON does not have as texts."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {key: _finite(one) for key, one in value.items()}
        case list():
            return [_finite(one) for one in value]
    return value


def convert(
    file: Path, peer: str | None = None, *, into: Path | None = None, dataset_info_file: Path | None = None
) -> Imported:
    """Makes a recipe of a configuration.

    Args:
        file: YAML, JSON, a shell script with one training command, a Python script or a notebook.
        peer: whose it is, a key of PEERS; None tells it from the content.
        into: the file that the recipe will be, from whose folder relative paths start; the working directory without it.
        dataset_info_file: LLaMA-Factory's dataset_info.json, or its folder.

    Raises:
        RecipeError: the file cannot be read or is of no trainer that is known, values have the wrong type, or it names other
            files of configuration that are missing.
    """
    target = into if into is not None else Path("imported.yaml")
    folder = target.absolute().parent
    given = _read(file)
    whose = peer_of(given, peer)
    given = interpolation.resolved(given) if whose in _OMEGACONF else interpolation.plain(given)
    draft = _draft(given, whose, folder, dataset_info_file)
    _two_rows(draft)
    fatal = [one for one in draft.translations if one.fatal]
    if fatal:
        unfit = [f"{draft.where(one.theirs)}: {one.theirs}{_equal(one.value)}: {one.why}" for one in fatal]
        return Imported(file, whose, None, tuple(draft.translations), unfit=tuple(unfit))
    document = text(draft.recipe, draft.comments, _head(draft, file, target if into is not None else None))
    missing, unfit = _trial(document, target, draft)
    return Imported(file, whose, None if unfit else document, tuple(draft.translations), tuple(missing), tuple(unfit))


def _read(file: Path) -> Foreign:
    match file.suffix.lower():
        case ".py" | ".ipynb":
            return python_source.read(file)
        case ".sh" | ".bash" | ".txt" | ".zsh" | ".md":
            return command_line.read(file)
    return foreign_files.read(file)


def _draft(given: Foreign, whose: str, folder: Path, dataset_info_file: Path | None) -> Draft:
    if dataset_info_file is not None and whose != "llamafactory":
        raise RecipeError(f"--dataset-info is for LLaMA-Factory, and {given.path} is for {PEERS[whose]}")
    match whose:
        case "llamafactory":
            return llamafactory.draft(given, folder, dataset_info.look_up(given, dataset_info_file))
        case "axolotl":
            return axolotl.draft(given, folder)
        case "trl":
            return trl.draft(given, folder)
        case "unsloth":
            return unsloth.draft(given, folder)
        case _:
            return torchtune.draft(given, folder)


def _two_rows(draft: Draft) -> None:
    """KTO measures its KL on the other rows of a batch: a batch of one becomes one of two, with as many rows a step."""
    spec = draft.recipe.get("training", {})
    loss = draft.set_to("kto.loss_type", "kto")
    if draft.recipe.get("method") != "kto" or loss != "kto" or spec.get("per_device_train_batch_size") != 1:
        return
    steps = int(spec.get("gradient_accumulation_steps", 1))
    why = "kto measures its KL on the other rows of a batch, so one row is not enough"
    draft.put("training.per_device_train_batch_size", 2)
    draft.put("training.gradient_accumulation_steps", max(steps // 2, 1))
    draft.comments["training.per_device_train_batch_size"] = f"1 in {draft.peer}; {why}"
    if steps % 2:
        draft.note("rows a step", steps, f"{2 * max(steps // 2, 1)} here: {why}")


def _trial(document: str, target: Path, draft: Draft) -> tuple[list[str], list[str]]:
    """What is missing for the recipe to load, and why it cannot."""
    try:
        load_text(document, target, TrainRecipe)
    except RecipeError as error:
        lines = [re.sub(r"^\S+?:\d+: ", "", line) for line in str(error).splitlines()]
        missing = [line for line in lines if _MISSING.search(line)]
        unfit = [f"{draft.foreign.path}: {line}" for line in lines if not _MISSING.search(line)]
        return missing, unfit
    return [], []


def _head(draft: Draft, file: Path, target: Path | None) -> list[str]:
    """The comment that opens the recipe."""
    spec, method = draft.recipe.get("training", {}), draft.recipe.get("method", "sft")
    model = draft.set_to("model.model_name_or_path", "llmbench/tiny")
    if draft.recipe.get("adapter"):
        what = draft.set_to("adapter.type", "").upper()
    elif "lora" in draft.recipe and draft.recipe["lora"] is None:
        what = "all parameters"
    else:
        what = "QLoRA" if draft.set_to("quantization.load_in_4bit") else "LoRA"
    rows = spec.get("per_device_train_batch_size", 8) * spec.get("gradient_accumulation_steps", 1)
    unit = "bins" if spec.get("packing") else "rows"
    name = target if target is not None else "RECIPE.yaml"
    lines = [
        f"Imported from {draft.peer} ({file.name}): {method}, {what}, {model}.",
        f"{rows} {unit} a step ({spec.get('per_device_train_batch_size', 8)} x {spec.get('gradient_accumulation_steps', 1)}).",
        f"Memory and time: llmbench check {name}",
        f"Run: llmbench train {name}",
    ]
    lines += [f"Not as in {draft.peer}: {one.theirs}{_equal(one.value)}: {one.why}" for one in _told(draft.translations)]
    return lines


def _told(translations: Sequence[Translation]) -> list[Translation]:
    return [one for one in translations if one.fate == "refused"]


def _equal(value: Any) -> str:
    if value is None or isinstance(value, list | dict):
        return ""
    shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    return f"={str(shown).splitlines()[0][:60] if str(shown) else shown}"
