"""An exported folder sent to a model hub by the hub's own client, which alone sees the token."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.exporting import card, proof
from llmbench.exporting.proof import Proof

__all__ = ["Parcel", "parcel", "repository", "send"]

_SCHEME = "hub://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Parcel:
    """What would be sent."""

    folder: Path
    proof: Proof
    files: dict[str, int]
    """Bytes of each file, by its path in the folder."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def repository(to: str) -> str:
    """`hub://org/name` -> `org/name`.

    Raises:
        LlmbenchError: it is not of that form.
    """
    name = to.removeprefix(_SCHEME)
    if not to.startswith(_SCHEME) or not _REPOSITORY.fullmatch(name):
        raise LlmbenchError(f"--to {to}: write hub://ORGANISATION/NAME, such as hub://acme/support-bot")
    return name


def parcel(reference: str) -> Parcel:
    """An exported folder, or a run's only export, looked through.

    Raises:
        LlmbenchError: there is none, its proof failed or is missing, or its files changed since.
    """
    folder = _folder(reference)
    if folder.name.endswith(proof.FAILED):
        raise LlmbenchError(f"{folder}: its proof failed, so it is not what was trained. Nothing was sent")
    found = proof.read(folder)
    if not found.holds:
        failed = ", ".join(check.name for check in found.failed)
        raise LlmbenchError(f"{folder}: its proof failed ({failed}), so it is not what was trained. Nothing was sent")
    changed = proof.changed(found, folder)
    if changed:
        raise LlmbenchError(
            f"{folder}: {', '.join(changed[:3])} changed since it was proven. Export it again, or move your own files elsewhere"
        )
    if not (folder / card.CARD).is_file():
        raise LlmbenchError(f"{folder} has no {card.CARD}. Export it again")
    paths = [path for path in sorted(folder.rglob("*")) if not path.is_dir() and path.name != ".llmbench.json"]
    link = next((path for path in paths if path.is_symlink()), None)
    if link is not None:
        raise LlmbenchError(f"{link} is a link, which may lead out of the folder. Nothing was sent")
    return Parcel(folder, found, {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths})


def send(sent: Parcel, name: str, *, public: bool = False, revision: str | None = None) -> str:
    """Sends a parcel in one commit and returns its address; the repository is made where it is not there.

    Args:
        sent: what `parcel` found.
        name: `org/name`.
        public: whether a repository that is made is for everybody to see.
        revision: the branch; the hub's main one if not given.

    Raises:
        LlmbenchError: the hub cannot be reached, knows no token, or refuses it.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    hub, api = constants.ENDPOINT, HfApi()
    try:
        api.create_repo(name, private=not public, exist_ok=True)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        done: Any = api.upload_folder(
            repo_id=name,
            folder_path=sent.folder,
            allow_patterns=list(sent.files),
            ignore_patterns=[".llmbench.json"],
            commit_message=f"{sent.proof.source['run']} as {sent.proof.format} ({sent.proof.precision})",
            revision=revision,
        )
    except OfflineModeIsEnabled as error:
        raise LlmbenchError("HF_HUB_OFFLINE is set, so nothing is sent. Unset it, or look at it with --dry-run") from error
    except HfHubHTTPError as error:
        raise LlmbenchError(_refused(error, hub, name)) from error
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise LlmbenchError(
            f"{hub} cannot be reached ({type(error).__name__}), so nothing was sent. Check the network (HF_ENDPOINT names "
            "another hub), or look at what would be sent with --dry-run"
        ) from error
    return str(getattr(done, "commit_url", None) or f"{hub}/{name}")


def _is_of_the_network(error: Exception) -> bool:
    """Whether no answer came. The client's HTTP package is httpx or its successor, by version."""
    return isinstance(error, OSError) or any(kind.__name__ in ("TransportError", "HTTPError") for kind in type(error).__mro__)


def _refused(error: Any, hub: str, name: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    match status:
        case 401:
            return f"{hub} did not accept a token. Log in with its own client (hf auth login), or set HF_TOKEN"
        case 403:
            return f"{hub}: your token may not write to {name}. Give it the right to, or choose another name"
    return f"{hub} refused {name} (HTTP {status}). What was sent before that is not in any commit. Try again"


def _folder(reference: str) -> Path:
    """The folder that is meant: a path, an export's name, or the only export of a run."""
    if not reference.strip():
        raise LlmbenchError("EXPORT is empty. Name an exported folder, or a run that was exported")
    for path in (Path(os.path.expanduser(reference)), workspace.exports() / reference):  # noqa: PTH111 - leaves ~nobody as it is
        if (path / proof.FILE).is_file():
            return path.absolute()
    if Path(reference).is_dir():
        raise LlmbenchError(f"{reference} has no {proof.FILE}, so it is not known whether it is what was trained. Export it")
    found = [path.parent for path in sorted(workspace.exports().glob(f"*/{proof.FILE}")) if _run_of(path.parent) == reference]
    found = [folder for folder in found if not folder.name.endswith(proof.FAILED)]
    if len(found) == 1:
        return found[0]
    if found:
        raise LlmbenchError(f"run {reference} has several exports. Name one: {', '.join(folder.name for folder in found)}")
    raise LlmbenchError(f"{reference} is neither an exported folder nor a run that was exported. Make one: llmbench export RUN")


def _run_of(folder: Path) -> str | None:
    try:
        return str(proof.read(folder).source.get("run"))
    except LlmbenchError:
        return None
