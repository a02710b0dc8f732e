"""What a rollout leaves in files."""

from __future__ import annotations

from pathlib import Path

from llmbench.gateway.traffic.audit import Record


def test_a_line_that_was_cut_off_loses_nothing_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "0001"
    folder.mkdir()
    record = Record(folder)
    record.note(0, "new", "a", {"errors": 0.0})
    record.write()
    path = folder / "observations.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 0, "var')
    record.note(0, "new", "b", {"errors": 1.0})
    record.write()
    assert [line["unit"] for line in record._observations()] == ["a", "b"]
