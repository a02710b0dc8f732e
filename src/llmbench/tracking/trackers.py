"""The trackers, each as it wants to be told. Part of the program in feed.py: it imports nothing of llmbench.

What any of them would report about its own use is switched off before it is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbench.tracking.feed import Tracker

__all__ = ["load", "open"]

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password in it
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""No word to their makers, and none of a password to a log."""
IN_TIME = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_SILENT": "true",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""A server that does not answer is told within seconds, not after the minutes that these would try it for."""
BATCH = 100
"""Settings in one request: MLflow takes no more."""


def load(name: str, home: str) -> None:
    """Imports a tracker's library; `home` is the folder of what stays on this machine.

    Raises:
        ImportError: it is not installed here, or does not fit what is.
    """
    os.environ |= QUIET
    for key, value in (IN_TIME | {"TRACKIO_DIR": str(Path(home) / "trackio")}).items():
        os.environ.setdefault(key, value)
    match name:
        case "tensorboard":
            pass
        case "wandb":
            pass
        case "mlflow":
            pass
        case _:
            import trackio  # noqa: F401


def open(name: str, job: dict[str, Any], known: dict[str, Any] | None) -> Tracker:
    """Opens the run in a tracker: a new one, or the one that `known` says.

    Args:
        name: tensorboard, wandb, mlflow or trackio.
        job: `name` of the run, `project`, `settings` (dotted, text), `home`, the folder of what stays on this machine, and
            `pid`, the process that trains.
        known: what `known` of the run's tracker was in an earlier session.
    """
    match name:
        case "tensorboard":
            return _TensorBoard(job, known)
        case "wandb":
            return _WandB(job, known)
        case "mlflow":
            return _MLflow(job, known)
        case _:
            return _Trackio(job, known)


class _TensorBoard:
    """Event files, as TensorBoard reads them, and the table of settings of its HPARAMS page."""

    def __init__(self, job: dict[str, Any], known: dict[str, Any] | None) -> None:
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        home = os.environ.get("TENSORBOARD_LOGDIR") or str(Path(job["home"]) / "tensorboard")
        folder = known["folder"] if known else str(_free(Path(home) / job["project"] / job["name"]))
        self.known, self.shown = {"folder": folder}, folder
        self.events = EventFileWriter(folder)
        if not known:
            self._add(summary_v2.hparams_pb(job["settings"], trial_id=folder))
            self.note({"recipe": "\n".join(f"    {key}: {value}" for key, value in job["settings"].items())})

    def _add(self, summary: Any, step: int = 0, when: float | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.events.add_event(Event(wall_time=when or time.time(), step=step, summary=summary))

    def log(self, step: int, values: dict[str, float], when: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(Summary(value=[Summary.Value(tag=key, simple_value=value) for key, value in values.items()]), step, when)
        self.events.flush()

    def note(self, values: dict[str, str]) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        for key, value in values.items():
            if value:
                self._add(text_pb(key, value))

    def keep(self, paths: list[Path]) -> None:
        """TensorBoard shows figures alone; the files are in the run's folder."""

    def close(self, state: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        status = {"finished": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}.get(state, api_pb2.STATUS_UNKNOWN)
        ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=described, tensor=metadata.NULL_TENSOR)
        self._add(Summary(value=[value]))
        self.events.close()


class _WandB:
    """Weights & Biases: online where it has a key, otherwise files that `wandb sync` sends."""

    def __init__(self, job: dict[str, Any], known: dict[str, Any] | None) -> None:
        import wandb

        keyed = os.environ.get("WANDB_API_KEY") or _has_login(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if keyed else "offline")
        folder = Path(os.environ.get("WANDB_DIR") or Path(job["home"]) / "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        self.known = {"id": known["id"] if known else uuid.uuid4().hex[:12]}
        self.run = wandb.init(
            project=job["project"],
            name=job["name"],
            id=self.known["id"],
            resume="allow",
            dir=folder,
            mode=mode,
            config=_nested(job["settings"]),
            allow_val_change=True,
            save_code=False,
            settings=wandb.Settings(console="off", disable_code=True, x_stats_pid=job["pid"]),
        )
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        self.shown = self.run.url or str(Path(self.run.dir).parent)

    def log(self, step: int, values: dict[str, float], when: float) -> None:
        self.run.log({**values, "step": step, "time": when})

    def note(self, values: dict[str, str]) -> None:
        self.run.summary.update(values)

    def keep(self, paths: list[Path]) -> None:
        import wandb

        kind = "model" if any(path.is_dir() for path in paths) else "run"
        artifact = wandb.Artifact(f"{self.run.name}-{kind}", type=kind)
        for path in paths:
            (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path), name=path.name)
        self.run.log_artifact(artifact)

    def close(self, state: str) -> None:
        self.run.finish(exit_code=0 if state == "finished" else 1)


class _MLflow:
    """MLflow: the server of MLFLOW_TRACKING_URI, or a database file."""

    def __init__(self, job: dict[str, Any], known: dict[str, Any] | None) -> None:
        from mlflow.tracking.client import MlflowClient

        home = Path(job["home"])
        here = f"sqlite:///{home / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or here
        if uri == here:
            home.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(tracking_uri=uri)
        if known:
            self.id = str(known["run_id"])
            self.client.update_run(self.id, status="RUNNING")
            for key, value in job["settings"].items():  # a setting is for ever; what it was changed to is a tag
                if self.client.get_run(self.id).data.params.get(key, value) != value:
                    self.client.set_tag(self.id, f"resumed.{key}", value)
        else:
            self.id = self._begin(job, home / "mlflow-artifacts" if uri.startswith("sqlite:") else None)
        experiment = self.client.get_run(self.id).info.experiment_id
        self.known = {"run_id": self.id, "uri": _without_password(uri)}
        self.shown = f"{_without_password(uri)}/#/experiments/{experiment}/runs/{self.id}" if uri.startswith("http") else uri

    def _begin(self, job: dict[str, Any], artifacts: Path | None) -> str:
        from mlflow.entities import Param

        found = self.client.get_experiment_by_name(job["project"])
        place = artifacts.as_uri() if artifacts is not None else None
        experiment = found.experiment_id if found is not None else self.client.create_experiment(job["project"], place)
        tags = {"mlflow.source.name": "llmbench train", "mlflow.user": os.environ.get("USER", "")}
        run = str(self.client.create_run(experiment, run_name=job["name"], tags=tags).info.run_id)
        params = [Param(_mlflow_name(key), value) for key, value in job["settings"].items()]
        for start in range(0, len(params), BATCH):
            self.client.log_batch(run, params=params[start : start + BATCH])
        return run

    def log(self, step: int, values: dict[str, float], when: float) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(_mlflow_name(key), value, int(when * 1000), step) for key, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def note(self, values: dict[str, str]) -> None:
        for key, value in values.items():
            self.client.set_tag(self.id, _mlflow_name(key), value)

    def keep(self, paths: list[Path]) -> None:
        for path in paths:
            if path.is_dir():
                self.client.log_artifacts(self.id, str(path), path.name)
            else:
                self.client.log_artifact(self.id, str(path))

    def close(self, state: str) -> None:
        status = {"finished": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
        self.client.set_terminated(self.id, status)


class _Trackio:
    """Trackio: the server of TRACKIO_SERVER_URL or the Space of TRACKIO_SPACE_ID, or a database file."""

    def __init__(self, job: dict[str, Any], known: dict[str, Any] | None) -> None:
        import trackio

        self.run: Any = trackio.init(
            project=job["project"],
            name=job["name"],
            config=_nested(job["settings"]),
            resume="must" if known else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.known = {"id": self.run.id}
        remote = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")
        self.shown = _without_password(remote.partition("?")[0]) if remote else os.environ["TRACKIO_DIR"]

    def log(self, step: int, values: dict[str, float], when: float) -> None:
        self.run.log(dict(values), step=step)

    def note(self, values: dict[str, str]) -> None:
        self.run.log({f"note/{key}": value for key, value in values.items() if value})

    def keep(self, paths: list[Path]) -> None:
        """Trackio shows figures; the files are in the run's folder."""

    def close(self, state: str) -> None:
        self.run.finish()


def _free(folder: Path) -> Path:
    """The folder, or the first of `folder-2`, `folder-3`, ... that is not there, so that two runs are not mixed."""
    tried, number = folder, 1
    while tried.exists():
        number += 1
        tried = folder.with_name(f"{folder.name}-{number}")
    return tried


def _has_login(url: str) -> bool:
    """Whether ~/.netrc knows the host, as `wandb login` leaves it."""
    import netrc
    from urllib.parse import urlsplit

    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc().authenticators(urlsplit(url).hostname or "") is not None
    return False


def _nested(settings: dict[str, str]) -> dict[str, Any]:
    """Dotted settings as dictionaries, which W&B and Trackio unfold themselves; numbers are numbers."""
    found: dict[str, Any] = {}
    for key, text in settings.items():
        *path, last = key.split(".")
        at = found
        for part in path:
            at = at.setdefault(part, {})
        try:
            at[last] = json.loads(text)
        except ValueError:
            at[last] = text
    return found


def _mlflow_name(key: str) -> str:
    """A name that MLflow takes: letters, digits, `_`, `-`, `.`, `/`, spaces and colons."""
    return "".join(char if char.isalnum() or char in "_-./ :" else "_" for char in key)


def _without_password(url: str) -> str:
    """An address without the user and password in it."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url
