"""An export from end to end: found, checked, asked, written, read back, judged, and given its name or kept apart."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmbench import parity, workspace, written
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.exporting import card, formats, judging, proof, source
from llmbench.exporting.card import Subject
from llmbench.exporting.formats import FormatEntry
from llmbench.exporting.material import Material
from llmbench.exporting.proof import Proof
from llmbench.exporting.protocol import Format
from llmbench.exporting.source import Exportable
from llmbench.runs import Run
from llmbench.training import quiet, save
from llmbench.training.loop.checkpoint import sync

__all__ = ["Exported", "export", "target_of"]

_SPARE = 1.1
"""How much more than the estimate must be free."""


@dataclass(frozen=True)
class Exported:
    """What an export left."""

    folder: Path
    """Under its name where the proof holds, else under the name with `.failed-proof`."""
    proof: Proof


def export(
    run: Run,
    name: str,
    *,
    precision: str | None = None,
    checkpoint: str | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    settings: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Writes a run's result in a format, and proves it.

    Args:
        run: a finished one, or with `checkpoint` any.
        name: the format's.
        precision: one of the format's; its first if not given.
        checkpoint: `best`, `last` or a step.
        output: the folder to write; `exports/RUN-FORMAT-PRECISION` of the workspace if not given.
        overwrite: replace a folder that llmbench exported there.
        settings: what the format is told, by the names of `formats.SETTINGS`.
        say: told of each step, a few words.

    Raises:
        LlmbenchError: it cannot be exported, and nothing was written. A failed proof raises nothing.
    """
    entry = formats.named(name)
    chosen = formats.precision_of(entry, precision)
    for package, extra in entry.packages:
        if find_spec(package) is None:
            raise MissingPackage(f"export --format {name}", package, extra)
    made = formats.get(entry, settings)
    found = source.find(run, checkpoint)
    target = Path(os.path.expanduser(output or target_of(found, name, chosen))).absolute()  # noqa: PTH111 - leaves ~nobody
    _check_target(target, overwrite)
    made.refuse(found, chosen)
    _check_disk(found, made, chosen, target)
    quiet.libraries()
    part, work = (target.parent / f".{target.name}.{end}" for end in ("part", "work"))
    try:
        with save.whole(part, target):
            written.begin(part)
            material = Material(found, written.begin(work), say, certify=entry.served)
            done = _written(made, chosen, material, part, say)
            say("Writing the card")
            if material.certificate is not None:
                parity.write(material.certificate, part)
            card.write(_subject(found, entry, made, target.name, chosen), done, part)
            done = replace(done, beside=proof.beside_of(part))
            proof.write(done, part)
            sync(part)
            folder = target if done.holds else target.with_name(target.name + proof.FAILED)
            written.publish(part, folder)
    finally:
        written.drop(work)
    return Exported(folder, done)


def target_of(found: Exportable, name: str, precision: str) -> Path:
    """Where an export goes that is not told where."""
    return workspace.exports() / f"{found.label}-{name}-{precision}"


def _written(made: Format, precision: str, material: Material, part: Path, say: Callable[[str], None]) -> Proof:
    """Writes the files and gives their proof."""
    material.reference()
    say(f"Writing {made.name} ({precision})")
    made.write(material, part, precision)
    say("Reading it back")
    try:
        heard = made.read_back(material, part, material.reference().probes, precision)
    except LlmbenchError as error:
        return judging.unreadable(made, precision, material, part, str(error))
    return judging.judge(made, precision, material, part, heard)


def _subject(found: Exportable, entry: FormatEntry, made: Format, name: str, precision: str) -> Subject:
    """What the card is about."""
    own = found.folder if found.adapts and found.step is None else None
    base = None if found.spec.config is not None else found.spec.model_name_or_path
    return Subject(found.run, found.step, found.base, base, own, entry.title, made.usage(name, precision))


def _check_target(target: Path, overwrite: bool) -> None:
    """Raises LlmbenchError where the folder, or that of a failed proof, is somebody's."""
    if target.exists() and not overwrite:
        raise LlmbenchError(f"{target} already exists. Replace it with --overwrite, or choose another folder with --output")
    if target.exists() and not (target / proof.FILE).is_file() and any(target.iterdir() if target.is_dir() else [target]):
        raise LlmbenchError(f"{target} is not an export of llmbench. Nothing was changed. Choose another folder with --output")
    written.refuse(target)
    written.refuse(target.with_name(target.name + proof.FAILED))
    if found := workspace.in_the_way(target.parent):
        raise LlmbenchError(f"{found}. Choose another folder with --output")


def _check_disk(found: Exportable, made: Format, precision: str, target: Path) -> None:
    """Raises LlmbenchError where the disk has no room for the export and what it is made from."""
    material = 0 if made.name in ("merged", "adapter") else 4 * found.parameters
    needed = _SPARE * (made.room(found, precision) + material)
    there = next(path for path in (target, *target.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise LlmbenchError(
            f"{target}: the export needs about {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free on that disk. "
            "Free some space, or choose another disk with --output"
        )
