"""`llmbench export --format onnx-genai`: onnxruntime-genai's own builder, read by its own runtime."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbench.errors import LlmbenchError, MissingPackage

from .conftest import Make

real = pytest.mark.skipif(find_spec("onnxruntime_genai") is None, reason="needs the extra `onnx-genai`")


@real
@pytest.mark.parametrize(("name", "precision"), [("lora", "float32"), ("full", "int8"), ("whole", "int4")])
def test_its_graph_is_proven_by_its_runtime(made: Make, tmp_path: Path, name: str, precision: str) -> None:
    from llmbench.exporting import job, proof

    done = job.export(made(name), "onnx-genai", precision=precision, output=tmp_path / "out")
    assert done.proof.holds, proof.lines(done.proof)
    assert (done.proof.figures["lost"]["kl"] < 1e-8) == (precision == "float32")
    assert {"genai_config.json", "model.onnx", "model.onnx.data", "README.md"} <= {one.name for one in done.folder.iterdir()}


@pytest.mark.skipif(find_spec("onnxruntime_genai") is not None, reason="it is installed")
def test_without_the_package_its_extra_is_named(made: Make, tmp_path: Path) -> None:
    from llmbench.exporting import job

    with pytest.raises(MissingPackage, match=r"pip install 'llmbench\[onnx-genai\]'"):
        job.export(made("lora"), "onnx-genai", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_builder_said_last_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A builder that stands in for its own: it loads what it loads, and ends with an error."""
    (tmp_path / "stands_in.py").write_text("raise NotImplementedError('The MambaForCausalLM model is not supported')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from llmbench.exporting import genai_format
    from llmbench.exporting.genai_format import GenaiFormat

    monkeypatch.setattr(genai_format, "_BUILDER", "stands_in")
    material: Any = SimpleNamespace(work=tmp_path, model=lambda dtype: tmp_path)
    with pytest.raises(LlmbenchError, match=r"failed \(NotImplementedError: The Mamba.*\)\. Its log: .*Use --format onnx"):
        GenaiFormat().write(material, tmp_path, "float32")
    assert len(list((home / "logs").glob("genai-*.log"))) == 1
