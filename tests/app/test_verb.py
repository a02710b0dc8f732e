"""`llmbench app`: what it refuses before anything is started, and what it opens."""

from __future__ import annotations

import inspect
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from llmbench.cli import app
from llmbench.errors import LlmbenchError


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, program: ModuleType) -> Iterator[list[dict[str, Any]]]:
    """What the program was opened with; it is not opened."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(program, "launch", lambda settings, **options: calls.append({"settings": settings} | options))
    before = signal.getsignal(signal.SIGTERM)
    yield calls
    signal.signal(signal.SIGTERM, before)


def run(*arguments: str) -> Result:
    cli = typer.Typer()
    app.register(cli)
    return CliRunner().invoke(cli, arguments)


def test_the_app_opens_on_the_usual_endpoint(launched: list[dict[str, Any]]) -> None:
    assert run().exit_code == 0
    assert launched[0]["settings"].url == "http://127.0.0.1:8000/v1"
    assert launched[0]["port"] == 7860


def test_url_port_and_pipeline_are_handed_on(launched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert run("--url", "http://127.0.0.1:9/v1", "--port", "0", "--pipeline", "rag/handbook.yaml").exit_code == 0
    settings = launched[0]["settings"]
    assert (settings.url, settings.api_key, settings.pipeline.name) == ("http://127.0.0.1:9/v1", "secret", "handbook.yaml")


def test_a_url_and_a_recipe_exclude_each_other(launched: list[dict[str, Any]]) -> None:
    result = run("--url", "http://127.0.0.1:9/v1", "--serve", "recipes/serve.yaml")
    assert isinstance(result.exception, LlmbenchError)
    assert "not both" in str(result.exception)
    assert not launched


def test_overrides_are_of_a_serving_recipe(launched: list[dict[str, Any]], tmp_path: Path) -> None:
    assert "Name the recipe" in str(run("gateway.port=1").exception)
    (tmp_path / "serve.yaml").write_text("name: s\nmodel: {}\nvariants: [{name: base}]\n", encoding="utf-8")
    result = run("gateway.prot=1", "--serve", str(tmp_path / "serve.yaml"))
    assert isinstance(result.exception, LlmbenchError) and "gateway.prot" in str(result.exception)
    assert not launched


def test_a_pipeline_that_is_not_there_is_one_line(launched: list[dict[str, Any]]) -> None:
    result = run("--pipeline", "rag/gone.yaml")
    assert str(result.exception) == "--pipeline rag/gone.yaml: no such file. List the bundled pipelines: llmbench new"
    assert not launched


def test_a_taken_port_is_one_line_before_anything_starts(launched: list[dict[str, Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--port", str(port))
    assert f"Port {port} cannot be used" in str(result.exception)
    assert "llmbench app --port 0" in str(result.exception)
    assert not launched


def test_a_recipe_that_cannot_be_served_ends_before_the_app(launched: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("variants: []\n", encoding="utf-8")
    result = run("--serve", str(tmp_path / "serve.yaml"))
    assert isinstance(result.exception, LlmbenchError)
    assert not launched


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(LlmbenchError, match=r"pip install 'llmbench\[app\]'"):
        app.program()


def test_gradios_queue_waits_as_long_as_the_app_tells_it() -> None:
    from gradio.queueing import Queue

    assert "sleep(self.sleep_when_free)" in inspect.getsource(Queue.start_processing)
    assert "sleep(self.progress_update_sleep_when_free)" in inspect.getsource(Queue.start_progress_updates)
