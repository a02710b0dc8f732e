"""The real trackers, without a server: what each one kept of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tracking import reading
from tests.tracking.conftest import Made, log

from llmbench import tracking
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.recipe import Tracker, TrackingSpec
from llmbench.runs import Run

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' readers, which run in this process to look at the result

ALL: list[Tracker] = ["tensorboard", "wandb", "mlflow", "trackio"]
LOSS = [(1, 1.0), (2, 0.5), (3, round(1 / 3, 6))]


def record(run: Run) -> dict[str, Any]:
    """tracking.json."""
    found: dict[str, Any] = json.loads((run.folder / "tracking.json").read_text())
    return found


def curves(run: Run, home: Path, name: str) -> reading.Curves:
    """What a tracker kept of the run."""
    known = record(run)[name]["known"]
    match name:
        case "tensorboard":
            return reading.tensorboard(Path(known["folder"]))
        case "mlflow":
            return reading.mlflow(known["uri"], known["run_id"])
        case "wandb":
            return reading.wandb(home / "tracking" / "wandb", known["id"])
        case _:
            return reading.trackio(home / "tracking" / "trackio" / "llmbench.db", known["id"])


def test_each_tracker_keeps_every_figure_once_though_it_is_told_twice(
    made: Made, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run = made()
    shown, left = tracking.send(run, ALL, TrackingSpec())
    assert list(shown) == ALL
    assert shown["mlflow"] == f"sqlite:///{home}/tracking/mlflow.db"
    assert left == {}
    assert tracking.send(run, ALL, TrackingSpec())[1] == {}
    for name in ALL:
        found = curves(run, home, name)
        assert found["train/loss"] == LOSS, name
        assert found["eval/loss"] == [(2, 1.0)], name
        assert found["final/loss"] == [(3, round(1 / 3, 6))], name


def test_a_run_that_goes_on_goes_on_in_the_same_places(made: Made, home: Path) -> None:
    run = made()
    tracking.send(run, ALL, TrackingSpec())
    before = record(run)
    run.drop_metrics_after(2)  # it is resumed from a checkpoint, and says step 3 again
    log(run, 3)
    log(run, 4)
    run.mark("finished", step=4)
    assert tracking.send(run, ALL, TrackingSpec())[1] == {}
    for name in ALL:
        assert record(run)[name]["known"] == before[name]["known"]
        found = curves(run, home, name)
        assert found["train/loss"] == [*LOSS, (4, 0.25)], name
        assert found["eval/loss"] == [(2, 1.0), (4, 0.5)], name
        assert [step for step, _ in found["final/loss"]] == [3, 4], name


def test_a_run_that_is_made_anew_is_another_one_there(made: Made, home: Path) -> None:
    run = made()
    tracking.send(run, ALL, TrackingSpec())
    before = record(run)
    (run.folder / "tracking.json").unlink()  # as --overwrite does
    tracking.send(run, ALL, TrackingSpec())
    for name in ALL:
        assert record(run)[name]["known"] != before[name]["known"], name
        assert curves(run, home, name)["train/loss"] == LOSS, name


def test_mlflow_keeps_settings_files_and_how_it_ended(made: Made, home: Path) -> None:
    from mlflow.tracking.client import MlflowClient

    run = made(training={"learning_rate": 0.0002, "seed": 42, "note": "x" * 600})
    (run.folder / "adapter").mkdir()
    (run.folder / "adapter" / "weights").write_text("w")
    tracking.send(run, ["mlflow"], TrackingSpec(project="support bot", log_model=True))
    known = record(run)["mlflow"]["known"]
    client = MlflowClient(tracking_uri=known["uri"])
    found = client.get_run(known["run_id"])
    assert found.data.params["training.learning_rate"] == "0.0002"
    assert client.get_experiment(found.info.experiment_id).name == "support bot"
    assert found.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(known["run_id"])} == {"recipe.yaml", "adapter"}


@pytest.mark.parametrize(("state", "status"), [("stopped", "KILLED"), ("failed", "FAILED")])
def test_a_run_that_did_not_finish_is_shown_as_such(made: Made, state: str, status: str) -> None:
    from mlflow.tracking.client import MlflowClient

    run = made(state=state)
    tracking.send(run, ["mlflow"], TrackingSpec())
    known = record(run)["mlflow"]["known"]
    assert MlflowClient(tracking_uri=known["uri"]).get_run(known["run_id"]).info.status == status


def test_a_verdict_is_told_to_those_who_know_the_run(made: Made, home: Path) -> None:
    run, report = made(), home / "report.html"
    report.write_text("<p>better</p>")
    assert tracking.tell(run, {"a/b": 0.5}, {"verdict": "better"}, [report]) == {}
    assert not (run.folder / "tracking.json").exists()  # nobody knows it, and nobody was told
    tracking.send(run, ["tensorboard", "mlflow"], TrackingSpec())
    assert tracking.tell(run, {"a/b": 0.5}, {"verdict": "better"}, [report]) == {}
    for name in ("tensorboard", "mlflow"):
        found = curves(run, home, name)
        assert found["a/b"] == [(3, 0.5)]
        assert found["train/loss"] == LOSS


def test_a_run_that_trains_is_not_sent(made: Made) -> None:
    run = made()
    with run.writing(), pytest.raises(LlmbenchError, match=r"Run one is training\. It can be sent when it has ended"):
        tracking.send(run, ["mlflow"], TrackingSpec())


def test_a_tracker_that_is_not_installed_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["llmbench.tracking.following"], "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"needs wandb, which is not installed\. Run: pip install 'llmbench\[tracking\]'"):
        tracking.check(TrackingSpec(to=["wandb"]))
    tracking.check(TrackingSpec())


def test_another_python_may_have_the_trackers(made: Made, home: Path, tmp_path: Path) -> None:
    with pytest.raises(LlmbenchError, match=r"tracking\.python: there is no .*nowhere"):
        tracking.check(TrackingSpec(to=["mlflow"], python=tmp_path / "nowhere"))
    empty = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", empty], check=True)
    run = made()
    with pytest.raises(LlmbenchError, match=r"tracking: mlflow: ModuleNotFoundError: No module named 'mlflow'\. Mend it"):
        tracking.send(run, ["mlflow"], TrackingSpec(python=empty / "bin" / "python"))
    (empty / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "all.pth").write_text(
        str(Path(pytest.__file__).parent.parent)
    )
    assert tracking.send(run, ["tensorboard"], TrackingSpec(python=empty / "bin" / "python"))[1] == {}


def test_trackers_report_nothing_about_their_own_use() -> None:
    code = (
        "from llmbench.tracking import trackers\n"
        "for name in ('mlflow', 'wandb'): trackers.load(name, '/nowhere')\n"
        "import mlflow.telemetry.utils, wandb\n"
        "assert mlflow.telemetry.utils.is_telemetry_disabled()\n"
        "from wandb import env\n"
        "assert not env.error_reporting_enabled()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
