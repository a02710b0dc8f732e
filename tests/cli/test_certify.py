"""`llmbench certify`: a certificate for an adapter that has none, and a server that is compared with it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbench import parity
from llmbench.cli.main import cli
from llmbench.parity import Certificate


@contextmanager
def server(certificate: Certificate, *, deaf: bool = False) -> Iterator[str]:
    """Says what the certificate does, in vLLM's form; a deaf one says as the adapter what its base says."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            probe = next(one for one in certificate.probes if list(one.messages) == body["messages"])
            assert probe.base is not None
            said = probe.base if deaf or body["model"] == "base" else probe.trained
            told = [None, *({str(i): {"logprob": p}} for i, p in zip(said.ids[1:], said.logprobs, strict=True))]
            tops = [{"top_logprobs": [{"logprob": 0.0}, {"logprob": -gap}]} for gap in said.gaps]
            choice = {"token_ids": list(said.greedy), "logprobs": {"content": tops}}
            data = json.dumps({"choices": [choice], "prompt_token_ids": list(said.ids), "prompt_logprobs": told}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
        http.shutdown()


def run(*words: str) -> Any:
    return CliRunner().invoke(cli, ["certify", *words])


def known(folder: Path) -> Certificate:
    found = parity.read(folder)
    assert found is not None
    return found


def test_an_adapter_without_a_certificate_gets_the_same_one_as_before(lora: Path, tmp_path: Path) -> None:
    shutil.copytree(lora, tmp_path / "bare")
    (tmp_path / "bare" / parity.FILE).unlink()
    done = run(str(tmp_path / "bare"))
    assert done.exit_code == 0 and done.output.count("Certificate written: ") == 1
    assert known(tmp_path / "bare").probes == known(lora).probes
    assert "Certificate: " in run(str(tmp_path / "bare")).output, "one that is there is kept"


def test_a_server_that_answers_as_trained_is_proven(lora: Path) -> None:
    with server(known(lora)) as url:
        done = run(str(lora), "--url", url, "--model", "tuned", "--base-model", "base", "--json")
    told = json.loads(done.output)
    assert done.exit_code == 0 and told["parity"]["state"] == "proven" and told["written"] is False


def test_a_server_without_the_adapter_is_named_with_exit_code_1(lora: Path) -> None:
    with server(known(lora), deaf=True) as url:
        done = run(str(lora), "--url", url, "--model", "tuned", "--base-model", "base")
    assert done.exit_code == 1
    assert "Not as trained: it answers as the base: the adapter has no effect" in done.output and "Next: " in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nobody",), "nobody is neither a run nor a folder with adapter_config.json"),
        (("LORA", "--url", "http://127.0.0.1:9/v1"), "--url and --model belong together"),
        (("LORA", "--url", "http://127.0.0.1:9/v1", "--model", "m"), "did not answer a probe of m"),
    ],
)
def test_what_cannot_be_done_is_one_line(lora: Path, words: tuple[str, ...], says: str) -> None:
    done = run(*(str(lora) if word == "LORA" else word for word in words))
    assert done.exception is not None and says in str(done.exception) and "\n" not in str(done.exception)
