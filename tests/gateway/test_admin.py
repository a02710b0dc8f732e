"""The admin socket of a running server and `llmbench variants`, over an engine that only notes what it is asked."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from tests.gateway.conftest import Bench
from typer.testing import CliRunner

from llmbench import recipe
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError
from llmbench.gateway import Gateway, admin
from llmbench.recipe import ServeRecipe


class Server:
    """A document, what is served of it, and a thread that attends to it."""

    def __init__(self, folder: Path, name: str = "serve.yaml") -> None:
        self.bench = Bench()
        self.path = folder / name
        self.write()
        self.bench.deployment.recipe = self.reread()
        self.keeper = SimpleNamespace(restarting=False, look=lambda: None)
        self.gateway = Gateway(
            "http://127.0.0.1:8/v1", cast(Any, self.bench.engine), self.bench.deployment, cast(Any, self.keeper)
        )

    def write(self, **changes: Any) -> None:
        self.path.write_text(json.dumps(self.bench.document | changes), encoding="utf-8")

    def reread(self) -> ServeRecipe:
        return recipe.load(self.path, ServeRecipe)


@contextmanager
def offering(server: Server) -> Iterator[Path]:
    done = threading.Event()

    def attend() -> None:
        while not done.is_set():
            server.gateway.attend(0.01)

    attending = threading.Thread(target=attend)
    attending.start()
    try:
        with admin.offered(server.gateway, server.reread) as path:
            yield path
    finally:
        done.set()
        attending.join()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def llmbench(*words: str) -> tuple[int, str]:
    """Exit code and output; an error is its text with code 2, as `main` prints it."""
    done = CliRunner().invoke(cli, ["variants", *words])
    if isinstance(done.exception, LlmbenchError):
        return 2, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_only_this_user_reaches_the_socket(server: Server, home: Path) -> None:
    with offering(server) as path:
        assert path.parent == home / "serving"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.is_socket()
    assert list(path.parent.iterdir()) == []


def test_the_variants_are_listed_with_what_is_running(server: Server) -> None:
    server.bench.served("first").requests.running = 3
    with offering(server):
        code, printed = llmbench("list")
        assert code == 0
        assert printed.splitlines()[2].split() == ["first", "run-1", "-", "ready", "proven", "3"]
        assert printed.endswith("\nhttp://127.0.0.1:8/v1\n")
        told = json.loads(llmbench("list", "--json")[1])
        assert told["engine"] == "running"
        assert told["variants"][1]["adapter"] == {"name": "run-1", "id": "a1", "rank": 8}
        server.keeper.restarting = True
        assert "(engine: restarting)" in llmbench("list")[1]


def test_a_variant_comes_and_goes_and_the_document_stays(server: Server) -> None:
    text = server.path.read_text()
    with offering(server):
        code, printed = llmbench("add", "mine", "--adapter", "run-2", "--system", "Brief.")
        assert code == 0 and printed.startswith("Serving mine, parity proven. The document is unchanged")
        assert server.bench.served("mine").variant.system == "Brief."
        code, printed = llmbench("remove", "mine", "--drain", "5")
        assert code == 0 and printed.startswith("Removed mine. The document is unchanged")
    assert list(server.bench.catalogue.now.known) == ["base", "first"]
    assert server.path.read_text() == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "first", "--adapter", "run-2"), "first is served already"),
        (("add", "mine", "--adapter", "nobody"), "neither a folder nor a run"),
        (("add", "Mine!"), "'Mine!' is not allowed"),
        (("add", "mine", "--rag", "nowhere.yaml"), "no such file nowhere.yaml"),
        (("remove", "nobody"), "There is no variant nobody"),
        (("list", "--recipe", "other.yaml"), "No server of other.yaml is running. Start one: llmbench serve other.yaml"),
        (("list", "--recipe", "a.yaml", "--socket", "b.sock"), "not with both"),
        (("list", "--socket", "nowhere.sock"), "No server answers at nowhere.sock"),
    ],
)
def test_what_cannot_be_done_is_one_line(server: Server, words: tuple[str, ...], said: str) -> None:
    before = server.bench.state()
    with offering(server):
        code, text = llmbench(*words)
    assert code == 2 and said in text and "\n" not in text
    assert server.bench.state() == before


def test_a_reload_prints_the_difference_first(server: Server) -> None:
    with offering(server):
        assert llmbench("reload") == (0, "The document lists what is served: nothing to add, remove or change.\nDone.\n")
        server.write(variants=[{"name": "first", "adapter": "run-2"}, {"name": "new"}], engine={"dtype": "float32"})
        code, printed = llmbench("reload", "--dry-run")
        expected = ["add     new", "remove  base", "change  first"]
        restart = "restart engine.dtype: not applied, as it needs a new start of the server"
        assert (code, printed.splitlines()) == (1, [*expected, restart])
        assert list(server.bench.catalogue.now.known) == ["base", "first"]
        code, printed = llmbench("reload")
        assert (code, printed.splitlines()) == (1, [*expected, restart, "Done, except for what is named above."])
        assert list(server.bench.catalogue.now.known) == ["first", "new"]
        told = json.loads(llmbench("reload", "--json")[1])
        assert (told["added"], told["restart"], told["complete"]) == ([], ["engine.dtype"], False)


def test_a_document_with_a_fault_changes_nothing(server: Server) -> None:
    before = server.bench.state()
    server.path.write_text('{"variants": [{"name": "a", "adaptor": "x"}]}')
    with offering(server):
        code, text = llmbench("reload")
    assert code == 2 and "variants[0].adaptor is not a field" in text
    assert server.bench.state() == before


def test_one_of_several_servers_is_found_by_its_document(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path, "other.yaml")
    with offering(server) as first, offering(other) as second:
        assert admin.find(str(server.path)) == first
        assert admin.find(str(other.path)) == second
        code, text = llmbench("list")
        assert code == 2 and f"2 servers are running. Name one: --socket PATH, of {second}, {first}" in text
        assert json.loads(llmbench("list", "--socket", str(second), "--json")[1])["variants"]


def test_a_socket_that_nobody_answers_on_is_passed_over_and_removed_by_the_next_server(server: Server, home: Path) -> None:
    (home / "serving").mkdir(parents=True)
    stale = home / "serving" / "serve-00000000-1.sock"
    with socket.socket(socket.AF_UNIX) as dead, admin.reachable(stale) as short:
        dead.bind(short)
    with pytest.raises(LlmbenchError, match="No server with its outputs in"):
        admin.find()
    with offering(server) as path:
        assert admin.find() == path and not stale.exists()


def test_a_folder_of_sockets_with_a_long_path_works(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / ("long" * 30)))
    with offering(server) as path:
        assert len(os.fsencode(path)) > 108
        assert llmbench("list", "--recipe", str(server.path))[0] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("POST", "/variants", b"[1]", "must be a JSON object"),
        ("POST", "/variants", b"{", "not JSON"),
        ("POST", "/variants", b'{"name": "a", "x": 1}', "x: Extra inputs"),
        ("DELETE", "/variants/first?drain=soon", b"", "drain must be seconds"),
    ],
)
def test_requests_that_are_no_change_are_told(server: Server, method: str, path: str, body: bytes, said: str) -> None:
    with offering(server) as at, admin.reachable(at) as short, httpx.Client(transport=httpx.HTTPTransport(uds=short)) as client:
        response = client.request(method, f"http://admin{path}", content=body)
    assert response.status_code == 400 and said in response.json()["error"]["message"]


def test_a_change_that_fails_in_an_unforeseen_way_leaves_the_server_alive(server: Server) -> None:
    def breaks() -> None:
        raise RuntimeError("a mistake of ours")

    failed = server.gateway.ask(breaks)
    server.gateway.attend(0.0)
    assert isinstance(failed.exception(), RuntimeError)


def test_a_signal_while_something_changes_ends_the_server_and_tells_who_asked(server: Server) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    failed: Future[None] = server.gateway.ask(stopped)
    with pytest.raises(KeyboardInterrupt):
        server.gateway.attend(0.0)
    assert str(failed.exception()) == "The server is ending"


def test_a_reload_names_routes(server: Server) -> None:
    with offering(server):
        server.write(routes=[{"name": "support", "variants": {"base": 1, "first": 1}}])
        assert llmbench("reload") == (0, "add     route support\nDone.\n")
        code, text = llmbench("remove", "first")
        assert code == 2 and "first is used by the route support" in text
        server.write()
        assert llmbench("reload") == (0, "remove  route support\nDone.\n")
