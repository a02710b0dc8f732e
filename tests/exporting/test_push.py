"""`llmbench push`: what is proven is sent by the hub's own client to a hub, here one on this machine; nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbench import written
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError
from llmbench.exporting import proof, push
from llmbench.exporting.proof import Compared, Proof

TOKEN = "hf_0123456789secret"


def exported(folder: Path, *, holds: bool = True) -> Path:
    """A folder as an export leaves it, with a few bytes for weights."""
    part = written.begin(folder.parent / f".{folder.name}.part")
    (part / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    (part / "config.json").write_text("{}")
    (part / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# lora\n")
    (part / "LICENSE").write_text("Apache License")
    found = Proof(
        "merged", "bfloat16", {"run": "lora"}, {}, (Compared("logits", holds, "KL 0"),), {}, proof.files_of(part),
        beside=proof.beside_of(part),
    )  # fmt: skip
    proof.write(found, part)
    written.publish(part, folder)
    return folder


@dataclass
class Hub:
    """What a hub on this machine was sent."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refuses: int = 0


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that speaks as much as the client needs: create, preupload, LFS, commit."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("content-length") or 0))

        def _answer(self, value: Any, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_PUT(self) -> None:
            state.stored[self.path.rsplit("/", 1)[1]] = self._body()
            self._answer({})

        def do_POST(self) -> None:
            body = self._body()
            state.tokens.add(self.headers.get("authorization", ""))
            if state.refuses:
                self._answer({"error": "no"}, state.refuses)
            elif self.path == "/api/repos/create":
                state.created.append(json.loads(body))
                self._answer({"url": f"{state.url}/acme/bot", "name": "acme/bot"})
            elif self.path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = [
                    {"path": one["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                    for one in json.loads(body)["files"]
                ]  # fmt: skip
                self._answer({"files": files})
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {"oid": one["oid"], "size": one["size"],
                     "actions": {"upload": {"href": f"{state.url}/store/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]  # fmt: skip
                self._answer({"transfer": "basic", "objects": objects})
            elif "/commit/" in self.path:
                self._commit(body)
            else:
                self._answer({"error": self.path}, 404)

        def _commit(self, body: bytes) -> None:
            import base64

            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    state.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    state.files[value["path"]] = state.stored[value["oid"]]
            self._answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{state.url}/acme/bot/commit/{'0' * 40}"})

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def pushed(*arguments: str, url: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, whose client reads the hub's address and the token when it is imported."""
    settings = {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "llmbench", "push", *arguments], env={**os.environ, **settings, **env}, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_proven_folder_arrives_whole_and_the_token_is_seen_by_the_hub_alone(hub: Hub, tmp_path: Path) -> None:
    folder = exported(tmp_path / "out")
    done = pushed(str(folder), "--to", "hub://acme/bot", "--json", url=hub.url)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sent"] and found["address"] == f"{hub.url}/acme/bot/commit/{'0' * 40}"
    sent = ("model.safetensors", "config.json", "LICENSE", "README.md", "proof.json")
    wanted = {name: (folder / name).read_bytes() for name in sent}
    assert hub.files == wanted
    assert hub.created[0]["name"] == "bot" and hub.created[0].get("private", hub.created[0].get("visibility")) in (
        True,
        "private",
    )
    assert hub.tokens == {f"Bearer {TOKEN}"} and TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("status", "said"), [(401, "did not accept a token. Log in"), (403, "your token may not write to acme/bot")]
)
def test_a_hub_that_refuses_is_one_line(hub: Hub, tmp_path: Path, status: int, said: str) -> None:
    hub.refuses = status
    done = pushed(str(exported(tmp_path / "out")), "--to", "hub://acme/bot", url=hub.url)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_without_a_network_it_is_one_line(tmp_path: Path) -> None:
    done = pushed(str(exported(tmp_path / "out")), "--to", "hub://acme/bot", url="http://127.0.0.1:9")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("http://127.0.0.1:9 cannot be reached") and "--dry-run" in done.stderr


def test_a_dry_run_lists_files_sizes_and_card(tmp_path: Path) -> None:
    folder = exported(tmp_path / "out")
    seen = CliRunner().invoke(cli, ["push", str(folder), "--to", "hub://acme/bot", "--dry-run"])
    assert seen.exit_code == 0, seen.output
    lines = seen.stdout.splitlines()
    assert lines[0] == "Would be sent to acme/bot (private if it is made); nothing was sent"
    assert "  2,048  model.safetensors" in lines and "  license: apache-2.0" in lines and ".llmbench.json" not in seen.stdout
    assert (
        json.loads(CliRunner().invoke(cli, ["push", str(folder), "--to", "hub://a/b", "--dry-run", "--json"]).stdout)["sent"]
        is False
    )


def test_what_is_not_proven_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "outputs"))
    exports = tmp_path / "outputs" / "exports"
    exports.mkdir(parents=True)
    with pytest.raises(LlmbenchError, match=r"its proof failed \(logits\)"):
        push.parcel(str(exported(tmp_path / "bad", holds=False)))
    with pytest.raises(LlmbenchError, match="neither an exported folder nor a run that was exported"):
        push.parcel("lora")
    exported(exports / "lora-merged-bfloat16.failed-proof", holds=False)
    with pytest.raises(LlmbenchError, match="neither an exported folder"):
        push.parcel("lora")
    folder = exported(exports / "lora-merged-bfloat16")
    assert push.parcel("lora").folder == folder == push.parcel(folder.name).folder
    exported(exports / "lora-other")
    with pytest.raises(LlmbenchError, match=r"several exports. Name one: lora-merged-bfloat16, lora-other"):
        push.parcel("lora")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# lora\n\nOf our own words.\n")
    assert push.parcel("lora-other").folder == exports / "lora-other" and push.parcel(folder.name).folder == folder
    (folder / "config.json").write_text('{"changed": true}')
    with pytest.raises(LlmbenchError, match=r"config\.json changed since it was proven"):
        push.parcel(str(folder))
    (tmp_path / "plain").mkdir()
    with pytest.raises(LlmbenchError, match=r"has no proof\.json"):
        push.parcel(str(tmp_path / "plain"))
    for to in ("acme/bot", "hub://acme", "hub://acme/bot/x", "hub://../x"):
        with pytest.raises(LlmbenchError, match="write hub://ORGANISATION/NAME"):
            push.repository(to)


def test_a_card_that_its_owner_rewrote_is_shown_as_it_is(tmp_path: Path) -> None:
    folder = exported(tmp_path / "out")
    (folder / "README.md").write_text("My own words.\n")
    done = CliRunner().invoke(cli, ["push", str(folder), "--to", "hub://acme/bot", "--dry-run"])
    assert done.exit_code == 0 and "  My own words." in done.stdout


def test_a_damaged_proof_is_one_line(tmp_path: Path) -> None:
    folder = exported(tmp_path / "out")
    values = json.loads((folder / "proof.json").read_text())
    (folder / "proof.json").write_text(json.dumps(values | {"files": []}))
    with pytest.raises(LlmbenchError, match=r"proof\.json cannot be read \(files is not an object\)\. Export again"):
        push.parcel(str(folder))


@pytest.mark.parametrize(("name", "said"), [("", "EXPORT is empty"), (" ", "EXPORT is empty"), ("~nobody/x", "is neither")])
def test_a_name_that_is_no_folder_s_is_one_line(home: Path, name: str, said: str) -> None:
    with pytest.raises(LlmbenchError, match=said):
        push.parcel(name)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("LICENSE", "MIT License", "LICENSE"),
        ("LICENSE", None, "LICENSE"),
        ("NOTICE.txt", "of somebody's", "NOTICE.txt"),
        ("README.md", "---\nlicense: mit\n---\n\n# lora\n", r"README\.md \(its head\)"),
    ],
)
def test_another_licence_than_that_of_the_export_is_not_sent(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    folder = exported(tmp_path / "mine")
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    with pytest.raises(LlmbenchError, match=rf"{said} changed since it was proven"):
        push.parcel(str(folder))


def test_an_export_of_an_earlier_version_is_sent_as_before(tmp_path: Path) -> None:
    folder = exported(tmp_path / "mine")
    path = folder / proof.FILE
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "beside"}))
    (folder / "LICENSE").write_text("MIT License")
    assert push.parcel(str(folder)).proof.beside == {}
