"""A bomb: bytes that make a folder when somebody unpickles them, and a place to look whether anybody did."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Bomb:
    """`raw` is a plain pickle, `packed` what torch.save makes of one, `code` the same deed as Python."""

    mark: Path
    raw: bytes
    packed: bytes
    code: str

    @property
    def went_off(self) -> bool:
        return self.mark.exists()


class _Deed:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Bomb]:
    """A bomb that must not go off; the test fails when it did."""
    import torch

    mark = tmp_path / "went-off"
    packed = io.BytesIO()
    torch.save(_Deed(mark), packed)
    bomb = Bomb(mark, pickle.dumps(_Deed(mark)), packed.getvalue(), f"import os\nos.mkdir({str(mark)!r})\n")
    yield bomb
    assert not bomb.went_off


@pytest.fixture
def model(tmp_path: Path, tiny: Path) -> Path:
    """A copy of the bundled model to tamper with."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    return folder
