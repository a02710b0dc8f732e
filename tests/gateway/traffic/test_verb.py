"""`llmbench rollout` against the admin socket of a server, and what it draws."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.gateway.conftest import Bench
from typer.testing import CliRunner

from llmbench.cli import completion
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError
from llmbench.gateway import Gateway, admin
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import Feedback, RememberedRequest
from llmbench.gateway.traffic import Control
from llmbench.gateway.traffic.drawing import bounds, strip

ROUTES = [
    {
        "name": "support",
        "variants": {"base": 1, "first": 0},
        "rollout": {"plan": [50, 100], "least": 10},
        "guardrails": {"errors": 0.1, "first_token": None, "abstention": None, "citations": None},
    }
]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A server with a route, its rollouts, and a thread that attends to it."""
    bench = Bench(routes=ROUTES)
    found = Control(bench.deployment.routes, lambda: bench.catalogue.now.known, tmp_path / "rollouts", say=bench.said.append)
    keeper = SimpleNamespace(restarting=False, look=lambda: None)
    gateway = Gateway("http://127.0.0.1:8/v1", cast(Any, bench.engine), bench.deployment, cast(Any, keeper), control=found)
    done = threading.Event()

    def attend() -> None:
        while not done.is_set():
            gateway.attend(0.01)

    thread = threading.Thread(target=attend)
    thread.start()
    try:
        with found.running(), admin.offered(gateway, bench.recipe):
            yield found
    finally:
        done.set()
        thread.join()


def llmbench(*words: str) -> tuple[int, str]:
    """Exit code and output; an error is its text with code 2, as `main` prints it."""
    done = CliRunner().invoke(cli, ["rollout", *words])
    if isinstance(done.exception, LlmbenchError):
        return 2, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def answered(control: Control, arm: str, number: int, text: str) -> None:
    exchange = Exchange("/v1/chat/completions", asked="support", arm=arm, unit=f"{number:016x}", status=200)
    exchange.body = [json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()]
    control.told(exchange)


def test_a_rollout_is_begun_watched_and_ended(control: Control, tmp_path: Path) -> None:
    code, printed = llmbench("list")
    assert code == 0 and printed.splitlines()[1].split() == ["support", "base", "100", "%", "user", "-", "-"]
    code, printed = llmbench("start", "support", "--to", "first", "--plan", "20,50,100", "--guardrail", "length=off")
    assert code == 0 and printed.startswith("support: first against base, running at 20 %\nstep 1 of 3, units: first 0, base 0")
    assert "rollout and guardrails other than the document's" in printed
    for number in range(40):
        answered(control, "first" if number % 5 == 0 else "base", number, "Red." if number else "")
    control.look()
    page = tmp_path / "rollout.html"
    code, printed = llmbench("status", "support", "--html", str(page))
    assert code == 0 and re.search(r"^errors +undecided +12\.5 % +0\.0 % +\+12\.5", printed, re.MULTILINE)
    assert "length" not in printed
    html = page.read_text()
    assert "first on support: running, 20 %" in html and "<script" not in html and "12.5 % against 0.0 %" in html
    assert llmbench("pause", "support")[1].startswith("support: first against base, paused")
    assert llmbench("resume", "support")[1].startswith("support: first against base, running")
    told = json.loads(llmbench("abort", "support", "--json")[1])
    assert told["state"] == "aborted" and [line["action"] for line in told["audit"]] == ["start", "pause", "resume", "abort"]
    assert llmbench("list")[1].splitlines()[1].split()[-3:] == ["1:", "first", "aborted"]


def test_what_became_of_the_questions_for_a_shadow_is_shown_where_routes_and_variants_are(control: Control) -> None:
    row = {"route": "support", "variant": "first", "answered": 1200, "failed": 2, "cut_off": 3, "busy": 40, "full": 5}
    control.routes.shadowed = lambda: [row, row | {"route": "sales"}]
    control.start("support", "first")
    for words in (("rollout", "list"), ("rollout", "status", "support"), ("variants", "list")):
        shown = CliRunner().invoke(cli, [*words]).stdout
        assert re.search(r"^shadow +route +answered +failed +cut off +not asked *$", shown, re.MULTILINE)
        assert re.search(r"^first +support +1,200 +2 +3 +45 *$", shown, re.MULTILINE)
        assert ("sales" in shown) == (words[1] == "list")
        told = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
        assert row in told["shadows"]


def test_votes_and_scores_stand_beside_the_other_guard_rails(control: Control, tmp_path: Path) -> None:
    llmbench("start", "support", "--to", "first", "--guardrail", "votes=0.1", "--guardrail", "judge=0.05")
    for number in range(80):
        arm = "first" if number % 2 else "base"
        answered(control, arm, number, "Red.")
        request = RememberedRequest(str(number), "", "support", arm, arm, f"{number:016x}", time.monotonic())
        if arm == "first" or number % 8 == 0:
            control.told_feedback(Feedback(request, "vote", float(number % 4 > 1)))
        if number < 4:
            control.told_feedback(Feedback(request, "judge", 0.625))
    control.look()
    page = tmp_path / "rollout.html"
    code, printed = llmbench("status", "support", "--html", str(page))
    assert code == 0 and re.search(r"^up-votes +undecided +50\.0 % +0\.0 % +\+50\.0 +\S+ to \S+ +-10\.0", printed, re.MULTILINE)
    assert re.search(r"^judge's score, mean +undecided +0\.625 +0\.625 +\+0\.000 +\S+ to \S+ +-0\.050", printed, re.MULTILINE)
    told = "Voted on: 100.0 % of the units of first, 25.0 % of base's. These differ (+"
    assert told in printed and told in page.read_text().replace("&#x27;", "'")
    assert "Judged: 5.0 % of the units of first, 5.0 % of base's\n" in printed
    assert "50.0 % against 0.0 %" in page.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start", "other", "--to", "first"), "There is no route other. Available: support"),
        (("start", "other", "--to", "first", "--least", "5"), "There is no route other. Available: support"),
        (("start", "support", "--to", "nobody"), "There is no variant nobody"),
        (("start", "support", "--to", "first", "--plan", "5,x"), "--plan must be percents"),
        (("start", "support", "--to", "first", "--plan", "50,5"), "rollout: plan must climb to 100"),
        (("start", "support", "--to", "first", "--alpha", "2"), "rollout.alpha: Input should be less than 1"),
        (("start", "support", "--to", "first", "--guardrail", "errors"), "--guardrail must be NAME=MARGIN"),
        (("start", "support", "--to", "first", "--guardrail", "speed=1"), "guardrails.speed: Extra inputs"),
        (("status", "support"), "support has had no rollout. Start one: llmbench rollout start support --to VARIANT"),
        (("pause", "support"), "support has no rollout"),
    ],
)
def test_what_cannot_be_done_is_one_line(control: Control, words: tuple[str, ...], said: str) -> None:
    code, text = llmbench(*words)
    assert code == 2 and said in text and "\n" not in text
    assert control.listing() == []


def test_a_page_is_not_written_over_another_file(control: Control, tmp_path: Path) -> None:
    path = tmp_path / "mine.html"
    path.write_text("mine")
    control.start("support", "first")
    code, text = llmbench("status", "support", "--html", str(path))
    assert code == 2 and "was not written by llmbench" in text and path.read_text() == "mine"


def test_routes_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [{"id": "base"}, {"id": "support", "sticky": "user"}, {"id": "sales", "sticky": "none"}]
    monkeypatch.setattr(completion, "_cards", lambda: cards)
    assert completion.routes("s") == ["support", "sales"] and completion.routes("sup") == ["support"]
    assert completion.variants("b") == ["base"]


@pytest.mark.parametrize(
    ("rail", "low", "difference", "high", "margin", "drawn"),
    [
        ("errors", -0.05, 0.0, 0.05, 0.1, "          ──●──  |       "),
        ("errors", -1.0, 0.2, 1.0, 0.1, "◂───────────·────|────●─▸"),
        ("length", -0.5, 0.0, 1.0, 1.0, "       |────●────|       "),
        ("errors", None, None, None, 0.1, "                         "),
        ("votes", -0.05, 0.0, 0.05, 0.1, "       |  ──●──          "),
    ],
)
def test_bounds_are_drawn_against_the_margin(
    rail: str, low: float | None, difference: float | None, high: float | None, margin: float, drawn: str
) -> None:
    one = {"rail": rail, "low": low, "difference": difference, "high": high, "margin": margin}
    assert strip(one, 25).rstrip() == drawn.rstrip()


def test_what_is_not_ruled_out_is_said_in_points_or_percent() -> None:
    assert bounds({"rail": "errors", "difference": 0.0, "low": -0.05, "high": 0.125}) == "-5.0 to +12.5"
    assert bounds({"rail": "length", "difference": 0.0, "low": None, "high": None}) == "-∞ to ∞"
    assert bounds({"rail": "length", "difference": None, "low": None, "high": None}) == "-"
