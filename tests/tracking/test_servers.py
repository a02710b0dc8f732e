"""Real servers on loopback: MLflow's, TensorBoard's and Trackio's."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import httpx
import pytest
from tests.tracking import reading, servers
from tests.tracking.conftest import Made, log

from llmbench import tracking
from llmbench.errors import LlmbenchError
from llmbench.recipe import TrackingSpec
from llmbench.runs import Run

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' readers, which run in this process to look at the result


def known(run: Run, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((run.folder / "tracking.json").read_text())[name]["known"]
    return found


def wait_until_sent(run: Run, name: str, step: int) -> None:
    end = time.monotonic() + servers.SECONDS
    while json.loads((run.folder / "tracking.json").read_text())[name].get("sent", {}).get("train", 0) < step:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_server_that_goes_away_stops_no_training_and_is_told_the_rest_later(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = servers.free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:s3cret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    run, spec = made(steps=0, state="stopped"), TrackingSpec(to=["mlflow"])
    with servers.mlflow(tmp_path, port), tracking.follow(run, spec) as followed, run.writing():
        followed.begin()
        followed.opened()
        log(run, 1)
        wait_until_sent(run, "mlflow", 1)
    assert known(run, "mlflow")["uri"] == f"http://127.0.0.1:{port}"
    log(run, 2)
    with pytest.raises(LlmbenchError, match=r"tracking: mlflow: .*Mend it and use --resume"):
        tracking.send(run, ["mlflow"], spec)
    assert known(run, "mlflow")["uri"] == f"http://127.0.0.1:{port}"
    with servers.mlflow(tmp_path, port):
        shown, left = tracking.send(run, ["mlflow"], spec)
        assert left == {}
        found = reading.mlflow(f"http://127.0.0.1:{port}", known(run, "mlflow")["run_id"])
        assert found["train/loss"] == [(1, 1.0), (2, 0.5)]
        assert httpx.get(shown["mlflow"].partition("#")[0]).status_code == 200
    said = capsys.readouterr()
    kept = (run.folder / "tracking.log").read_text() + (run.folder / "tracking.json").read_text() + said.err
    assert "s3cret" not in kept


def test_what_could_not_be_sent_is_said_at_the_end_with_the_command_that_sends_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = servers.free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    run = made(steps=0, state="stopped")
    with tracking.follow(run, TrackingSpec(to=["mlflow"])) as followed, run.writing():
        with servers.mlflow(tmp_path, port):
            followed.begin()
            followed.opened()
        log(run, 1)
        log(run, 2)
    said = capsys.readouterr().err
    assert "Tracking: mlflow was not told everything (" in said
    assert "Send it later: llmbench runs track one --to mlflow" in said
    assert run.state == "finished"
    with servers.mlflow(tmp_path, port):
        assert tracking.send(run, ["mlflow"], TrackingSpec())[1] == {}
        found = reading.mlflow(f"http://127.0.0.1:{port}", known(run, "mlflow")["run_id"])
    assert found["train/loss"] == [(1, 1.0), (2, 0.5)]


def test_tensorboard_draws_what_was_kept(made: Made, home: Path, tmp_path: Path) -> None:
    run = made()
    tracking.send(run, ["tensorboard"], TrackingSpec())
    port, folder = servers.free_port(), home / "tracking" / "tensorboard"
    arguments = ["-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with servers.started(arguments, url, tmp_path / "server.log"):
        end = time.monotonic() + servers.SECONDS
        while not (found := httpx.get(f"{url}/data/runs").json()):
            assert time.monotonic() < end
            time.sleep(0.2)
        assert found == ["llmbench/one"]
        points = httpx.get(f"{url}/data/plugin/scalars/scalars", params={"run": "llmbench/one", "tag": "train/loss"}).json()
    assert [(step, round(value, 4)) for _, step, value in points] == [(1, 1.0), (2, 0.5), (3, 0.3333)]


TRACKIO = """
import sys, trackio
app, url, share, full = trackio.show(open_browser=False, block_thread=False, host="127.0.0.1", server_port=int(sys.argv[1]))
print("URL", full, flush=True)
import time
time.sleep(3600)
"""


def test_a_trackio_server_is_told_over_http(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, port, kept = made(), servers.free_port(), tmp_path / "kept"
    script = tmp_path / "serve.py"
    script.write_text(TRACKIO)
    log_file = tmp_path / "server.log"
    with servers.started(
        [str(script), str(port)], f"http://127.0.0.1:{port}", log_file, os.environ | {"TRACKIO_DIR": str(kept)}
    ):
        end = time.monotonic() + servers.SECONDS
        while "URL " not in log_file.read_text():
            assert time.monotonic() < end
            time.sleep(0.2)
        url = log_file.read_text().partition("URL ")[2].split()[0]
        monkeypatch.setenv("TRACKIO_SERVER_URL", url)
        shown, left = tracking.send(run, ["trackio"], TrackingSpec())
        assert left == {}
    token = url.partition("write_token=")[2]
    assert token
    assert (
        token not in shown["trackio"] + (run.folder / "tracking.json").read_text() + (run.folder / "tracking.log").read_text()
    )
    assert reading.trackio(kept / "llmbench.db", known(run, "trackio")["id"])["train/loss"] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.333333),
    ]
