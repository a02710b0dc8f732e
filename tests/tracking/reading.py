"""Reads back what each tracker kept: of a run, each figure's values by step, in the order in which they came."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

Curves = dict[str, list[tuple[int, float]]]


def tensorboard(folder: Path) -> Curves:
    """Of a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, round(event.value, 6)) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def mlflow(uri: str, run_id: str) -> Curves:
    """Of a run on a server or in a database file."""
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return {
        key: [(metric.step, round(metric.value, 6)) for metric in client.get_metric_history(run_id, key)]
        for key in client.get_run(run_id).data.metrics
    }


def trackio(database: Path, run_id: str) -> Curves:
    """Of a run in a project's database file."""
    found: Curves = defaultdict(list)
    with sqlite3.connect(database) as connection:
        for step, metrics in connection.execute("SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY id", [run_id]):
            for key, value in json.loads(metrics).items():
                if isinstance(value, (int, float)):
                    found[key].append((step, round(value, 6)))
    connection.close()
    return dict(found)


def wandb(folder: Path, run_id: str) -> Curves:
    """Of a run's files that were not sent yet, over all sessions."""
    found: Curves = defaultdict(list)
    for path in sorted(folder.glob(f"wandb/offline-run-*-{run_id}/*.wandb")):
        for record in _records(path.read_bytes()):
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                for key, value in items.items():
                    if "/" in key:
                        found[key].append((items["step"], round(value, 6)))
    return dict(found)


def _records(data: bytes) -> list[Any]:
    """The records of LevelDB's log format: blocks of 32 KiB, each piece with checksum, length and type before it."""
    from wandb.proto import wandb_internal_pb2

    record: Any = vars(wandb_internal_pb2)["Record"]  # which its types do not know
    found, at, whole = [], 7, b""  # W&B's own header
    while at + 7 <= len(data):
        if (1 << 15) - at % (1 << 15) < 7:
            at += (1 << 15) - at % (1 << 15)
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(record.FromString(whole))
            whole = b""
    return found
