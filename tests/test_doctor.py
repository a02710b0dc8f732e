"""What the doctor finds: on this machine, which has everything, and on machines that lack something."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llmbench import doctor
from llmbench.doctor import Finding


def only(findings: list[Finding], name: str) -> Finding:
    (found,) = (finding for finding in findings if finding.name == name)
    return found


@pytest.mark.slow
def test_a_whole_installation_is_green(tmp_path: Path) -> None:
    env = {**os.environ, "LLMBENCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "llmbench", "doctor", "--json"], env=env, capture_output=True, text=True, check=False
    )
    report = json.loads(done.stdout)
    assert [finding for finding in report["findings"] if finding["state"] == "missing"] == []
    assert (done.returncode, report["ok"]) == (0, True)
    names = {finding["name"] for finding in report["findings"]}
    assert names >= {"Python", "CPU", "memory", "disk", "bundled model", "PyTorch", "bitsandbytes", "vLLM", "embedder", "FAISS"}
    assert names >= {"transformers, TRL, PEFT", "Gradio", "model hub", "browser for tests", "gateway's port", "app's port"}


def empty_interpreter(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def test_an_interpreter_without_vllm_is_told_with_the_command_that_mends_it(tmp_path: Path) -> None:
    python = empty_interpreter(tmp_path / "empty")
    found = only(doctor.CHECKS["vLLM"](python), "vLLM")
    assert found.state == "missing"
    assert "has no vLLM" in found.found
    assert found.mend.startswith(f"{python} -m pip install 'vllm")


def test_the_environment_of_llm_compressor_is_named_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLMBENCH_COMPRESSOR", raising=False)
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "outputs"))
    found = only(doctor.CHECKS["llm-compressor"](Path(sys.executable)), "llm-compressor")
    assert found.state == "note" and "only int8, w4a16, awq and fp8 need it" in found.found
    assert found.mend.startswith(f"{sys.executable} -m venv {tmp_path / '.venv-compress'} && ")
    assert "llmcompressor==" in found.mend
    monkeypatch.setenv("LLMBENCH_COMPRESSOR", str(empty_interpreter(tmp_path / "empty")))
    found = only(doctor.CHECKS["llm-compressor"](Path(sys.executable)), "llm-compressor")
    assert found.state == "note" and "has no llm-compressor" in found.found
    assert found.mend.startswith(f"{tmp_path / 'empty' / 'bin' / 'python'} -m pip install llmcompressor==")


def test_an_interpreter_that_is_not_there_is_told(tmp_path: Path) -> None:
    found = only(doctor.CHECKS["vLLM"](tmp_path / "python"), "vLLM")
    assert found.state == "missing"
    assert "No such file" in found.found


def fake_package(site: Path, name: str, version: str, requires: list[str], code: str = "") -> None:
    """An installed package as pip leaves it: a module and its metadata."""
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(code)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def other(tmp_path: Path) -> tuple[Path, Path]:
    """An interpreter of its own with `packaging`, and its folder of packages."""
    import packaging

    python = empty_interpreter(tmp_path / "other")
    site = next((tmp_path / "other" / "lib").glob("python*")) / "site-packages"
    assert packaging.__file__ is not None
    (site / "packaging").symlink_to(Path(packaging.__file__).parent)
    return python, site


def test_a_torch_that_vllm_was_not_built_for_is_told(other: tuple[Path, Path]) -> None:
    python, site = other
    fake_package(site, "vllm", "0.32.0", ["torch==2.13.0", "transformers<5.20,>=5.16"])
    fake_package(site, "torch", "2.14.1", [])
    fake_package(site, "transformers", "5.19.0", [])
    found = only(doctor.CHECKS["vLLM"](python), "vLLM")
    assert (found.state, found.found) == ("missing", "vLLM 0.32.0 for CUDA needs torch==2.13.0 (there is 2.14.1)")


def test_a_torchvision_that_does_not_load_is_told_with_its_removal(other: tuple[Path, Path]) -> None:
    python, site = other
    fake_package(site, "vllm", "0.32.0", [])
    fake_package(site, "torchvision", "0.28.0", [], "raise RuntimeError('operator torchvision::nms does not exist')")
    found = only(doctor.CHECKS["vLLM"](python), "vLLM")
    assert found.state == "missing"
    assert "torchvision does not load with this PyTorch" in found.found
    assert found.mend == f"{python} -m pip uninstall -y torchvision"


def test_a_vllm_that_fits_is_shown_with_the_command_that_starts_it(other: tuple[Path, Path]) -> None:
    python, site = other
    fake_package(site, "vllm", "0.32.0", ["torch==2.13.0"])
    fake_package(site, "torch", "2.13.0+cpu", [])
    found = only(doctor.CHECKS["vLLM"](python), "vLLM")
    assert (found.state, found.found) == ("ok", f"vLLM 0.32.0 for CUDA, run as a separate process by {python}")


def test_a_taken_port_is_a_note_not_a_fault() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = doctor._port("serving", "gateway's port", port, "gateway.port")
    assert found.state == "note"
    assert found.found.startswith(f"{port} is taken")
    assert "gateway.port" in found.mend


def test_a_hub_that_is_switched_off_is_a_note_that_says_what_works_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = only(doctor.CHECKS["model hub"](Path(sys.executable)), "model hub")
    assert found.state == "note"
    assert "the bundled model, handbook and embedder work without it" in found.found


def test_a_hub_that_nobody_answers_at_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = only(doctor.CHECKS["model hub"](Path(sys.executable)), "model hub")
    assert found.state == "note"
    assert found.found.startswith("http://127.0.0.1:9 cannot be reached (ConnectError)")


def test_a_workspace_that_cannot_be_written_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "file" / "outputs"))
    found = only(doctor.CHECKS["machine"](Path(sys.executable)), "disk")
    assert (found.state, found.mend) == ("missing", "export LLMBENCH_HOME=~/llmbench-outputs")


def test_a_package_that_crashes_takes_nothing_along() -> None:
    assert doctor._probe("import os; os.abort()") == {"failed": "the process ended with -6"}


def test_a_package_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.5)
    assert doctor._probe("import time; time.sleep(60)") == {"failed": "no answer within 0 seconds"}


def test_a_package_that_is_not_there_is_told_from_one_that_is_broken() -> None:
    absent = doctor._broken("app", "Gradio", doctor._probe("import no_such_package"), "mend")
    broken = doctor._broken("app", "Gradio", doctor._probe("raise ImportError('symbol missing')"), "mend")
    assert absent.found == "not installed (no module 'no_such_package')"
    assert broken.found == "does not work: ImportError: symbol missing"


def test_something_missing_gives_exit_code_1_and_the_mending_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from llmbench.cli.main import cli

    def found(python: Path | None) -> list[tuple[str, list[Finding]]]:
        return [(title, [Finding("app", "Gradio", "missing", "not installed", "mend it so")]) for title in ("Gradio",)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "examine", found)
        patch.setattr(doctor, "CHECKS", {"Gradio": None})
        result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert "✗ Gradio" in result.stdout and "→ mend it so" in result.stdout and "1 missing" in result.stdout
