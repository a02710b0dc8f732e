"""Hashes of a model's files: what they cover, and when they are taken from the cache."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from llmbench.retrieval.embedding import fingerprint


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_known", {})


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x" * 1_500_000)
    return path


def test_a_large_file_is_read_once_and_again_when_it_changes(large: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_YOUNG_NS", -1)
    first = fingerprint.of_file(large)
    assert first == hashlib.sha256(large.read_bytes()).hexdigest()
    kept = json.loads((home / "cache" / "hashes.json").read_text())
    kept[str(large.resolve())][1] = "from the cache"
    (home / "cache" / "hashes.json").write_text(json.dumps(kept))
    monkeypatch.setattr(fingerprint, "_known", {})
    assert fingerprint.of_file(large) == "from the cache"
    stat = large.stat()
    large.write_bytes(b"y" * 1_500_000)
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time of change, as cp -p would make it
    assert fingerprint.of_file(large) == hashlib.sha256(b"y" * 1_500_000).hexdigest()


def test_a_file_just_written_is_not_kept(large: Path, home: Path) -> None:
    fingerprint.of_file(large)
    assert not (home / "cache" / "hashes.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "{", '{"/x": ["a"]}'])
def test_a_broken_cache_costs_time_only(large: Path, home: Path, content: str) -> None:
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "hashes.json").write_text(content)
    assert fingerprint.of_file(large) == hashlib.sha256(large.read_bytes()).hexdigest()


def test_other_formats_and_lists_of_training_sets_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = fingerprint.of_folder(tmp_path)
    for name in ("onnx/config.json", "openvino/model.json", "data_config.json", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("changed")
    assert fingerprint.of_folder(tmp_path) == before
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    assert fingerprint.of_folder(tmp_path) != before
