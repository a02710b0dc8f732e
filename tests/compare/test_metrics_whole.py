"""Metrics of all questions together, against the packages that define them, and metrics that run what an answer is."""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compare.test_metrics_texts import BOMB, about, judged, recipe

from llmbench.compare import metrics
from llmbench.compare.answers import Answer
from llmbench.compare.metrics import Tools
from llmbench.errors import DataError
from llmbench.questions import Question
from llmbench.sandbox import SandboxProcess

RIGHT = [
    "The cat sat on the mat.",
    "It costs 1,250.50 euros - or less!",
    'Ja, natürlich: "gut" & schön',
    "犬が好きです。",
    "one two",
]
SAID = ["A cat sat on the mat", "it cost 1,250.50 euros-or more!", "Ja natürlich: 'gut' &amp; schön", "猫が好きです。", ""]
BLEU = 22.591389760166717
CHRF = 60.48794798468127
ROUGE = {
    "rouge1": [0.833333333333, 0.75, 0.923076923077, 0.0, 0.0],
    "rouge2": [0.8, 0.571428571429, 0.727272727273, 0.0, 0.0],
    "rougeL": [0.833333333333, 0.75, 0.923076923077, 0.0, 0.0],
}
LABELS = ["card_arrival", "card lost", "exchange-rate"]


def whole(asked: Any, pairs: list[tuple[Question, str]]) -> float:
    (metric,) = metrics.chosen(recipe(asked))
    given = [(question, Answer(question.id, "v", "", text=text)) for question, text in pairs]
    with SandboxProcess() as sandbox:
        made = metrics.addends(metric, given, Tools("x", sandbox, tuple(question for question, _ in pairs)))["v"]
    return float(made.value(made.rows.sum(axis=0)))


def texts(right: list[Any], said: list[str], column: str = "right") -> list[tuple[Question, str]]:
    return [(Question(str(i), "?", columns={column: one}), text) for i, (one, text) in enumerate(zip(right, said, strict=True))]


def test_bleu_and_chrf_are_those_of_sacrebleu() -> None:
    """The figures are sacrebleu 2.6.0's; where it is installed, random texts are held against it too."""
    assert whole({"bleu": {"expected": "right"}}, texts(RIGHT, SAID)) == pytest.approx(BLEU / 100, abs=1e-10)
    assert whole({"chrf": {"expected": "right"}}, texts(RIGHT, SAID)) == pytest.approx(CHRF / 100, abs=1e-10)
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = random.Random(1)
    for _ in range(20):
        words = [
            " ".join(rng.choices(["a", "b", "c,", "d.", "e-1", "2.5", "f!", "(g)", "&quot;h"], k=rng.randint(0, 12)))
            for _ in range(12)
        ]
        said, one, two = words[:4], words[4:8], [text or "x" for text in words[8:]]
        pairs = texts([[a or "y", b] for a, b in zip(one, two, strict=True)], said)
        references = [[a or "y" for a in one], two]
        assert whole({"bleu": {"expected": "right"}}, pairs) * 100 == pytest.approx(
            sacrebleu.corpus_bleu(said, references).score
        )
        assert whole({"chrf": {"expected": "right"}}, pairs) * 100 == pytest.approx(
            sacrebleu.corpus_chrf(said, references).score
        )


def test_rouge_is_that_of_rouge_score() -> None:
    """The figures are rouge-score 0.1.2's; where it is installed, random texts are held against it too."""
    cases = [(about(answer=right), said) for right, said in zip(RIGHT, SAID, strict=True)]
    for kind, expected in ROUGE.items():
        assert judged({"rouge": {"type": kind}}, *cases) == pytest.approx(expected, abs=1e-10)
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    rng = random.Random(2)
    for _ in range(30):
        said, right = (" ".join(rng.choices(["a", "b", "c", "d", "e", "f"], k=rng.randint(1, 15))) for _ in range(2))
        for kind, found in scorer.score(right, said).items():
            assert judged({"rouge": {"type": kind}}, (about(answer=right), said)) == [pytest.approx(found.fmeasure)]


def test_macro_f1_and_kappa_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    for classes, n in ((2, 30), (3, 60), (7, 200)):
        names = [f"class {i}" for i in range(classes)]
        gold = rng.integers(0, classes, n)
        told = np.where(rng.random(n) < 0.6, gold, rng.integers(0, classes + 1, n))
        said = [f"It is Class-{i}." if i < classes else "no idea" for i in told]
        pairs = texts([names[i] for i in gold], said)
        settings = {"expected": "right", "labels": names}
        expected = sklearn.f1_score(gold, told, labels=range(classes), average="macro", zero_division=0)
        assert whole({"macro_f1": settings}, pairs) == pytest.approx(expected)
        assert whole({"cohen_kappa": settings}, pairs) == pytest.approx(sklearn.cohen_kappa_score(gold, told))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("card_arrival", 1), ("Card arrival.", 1), ("I think: `card-arrival`", 1), ("card_arrival or card lost", 0), ("", 0),
     ("card_arrivals", 0), ("CARD_ARRIVAL card arrival", 1)],
)  # fmt: skip
def test_labels_in_answers(text: str, expected: float) -> None:
    assert judged({"label": {"labels": LABELS}}, (about(answer="card_arrival"), text)) == [expected]


def test_labels_are_those_expected_anywhere_and_strange_ones_are_told() -> None:
    cases = [(about(answer="yes"), "Yes, no doubt"), (about(answer="no"), "maybe not, no"), (about(answer="maybe"), "maybe")]
    assert judged("label", *cases) == [0, 0, 1], "two labels in one answer are none"
    assert judged({"label": {"whole": True}}, (about(answer="yes"), "Yes!"), (about(answer="no"), "I say no")) == [1, 0]
    with pytest.raises(DataError, match=r"questions.jsonl:1: label: the right answer 'perhaps' is none of the labels"):
        judged({"label": {"labels": ["yes", "no"]}}, (about(answer="perhaps"), "yes"))


def test_calibration_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bins of 0.1: confidences .95 (right), .95 (wrong), .55 (right); accuracy 1/2 and 1 against .95 and .55."""
    said = ["yes, confidence: 95%", "no (Confidence 0.95)", "yes, confidence = 55 %", "yes"]
    pairs = texts(["yes"] * 3 + ["no"], said)
    settings = {"expected": "right", "labels": ["yes", "no"]}
    assert whole({"ece": settings}, pairs) == pytest.approx((2 * 0.45 + 0.45) / 3)
    cases = [(about(answer=str(q.columns["right"])), text) for q, text in pairs]
    found = judged({"brier": {"labels": ["yes", "no"]}}, *cases)
    assert found == [pytest.approx(0.0025), pytest.approx(0.9025), pytest.approx(0.2025), None]
    monkeypatch.setattr("llmbench.compare.metrics.labels.SECONDS", 0.3)
    hostile = judged(
        {"brier": {"labels": ["yes", "no"], "confidence": f"({BOMB[:-1]})$"}}, (about(answer="yes"), "a" * 40 + "b")
    )
    assert hostile == [None]


DATABASE = (
    "create table city (name text, people int, mayor text); insert into city values ('Rome', 3, null), ('Bath', 1, 'Al');"
)


@pytest.mark.parametrize(
    ("right", "text", "expected"),
    [
        ("select name from city", "SELECT name FROM city ORDER BY name DESC;", 1),
        ("select name from city order by name", "select name from city order by name desc", 0),
        ("select name from city order by name", "```sql\nselect name from city order by 1\n```\nThat is it.", 1),
        ("select mayor from city", "select mayor from city where 1", 1),
        ("select people from city", "select people * 1.0 from city", 1),
        ("select name from city", "select name from city union all select name from city", 0),
        ("select name from city where people > 5", "select name from city where people > 6", 1),
        ("select count(*) from city", "drop table city", 0),
        ("select count(*) from city", "delete from city returning 2", 0),
        ("select count(*) from city", "attach 'x.db' as x", 0),
        ("select count(*) from city", "select load_extension('x')", 0),
        ("select count(*) from city", "pragma writable_schema=1", 0),
        ("select count(*) from city", "select 2; select 3", 0),
        (
            "select count(*) from city",
            "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n",
            0,
        ),
        ("select count(*) from city", "select hex(zeroblob(900000000))", 0),
        ("select count(*) from city", "select a.name from city a, city b, city c, city d where 0", 0),
        ("select count(*) from city", "There are two.", 0),
        ("select count(*) from city", "", 0),
        ("select count(*) from city", "select 2 -- order by", 1),
    ],
)
def test_sql_by_what_it_returns(right: str, text: str, expected: float) -> None:
    settings = {"expected": "sql", "column": "script", "seconds": 1}
    assert judged({"sql": settings}, (about(sql=right, script=DATABASE), text)) == [expected]


def test_sql_on_a_database_file_that_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "cities.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(DATABASE)
    before = path.read_bytes()
    cases = [
        (about(sql="select 2", db="cities"), "select count(*) from city"),
        (about(sql="select 2", db="cities"), "delete from city"),
    ]
    assert judged({"sql": {"expected": "sql", "database": "cities.sqlite"}}, *cases, folder=tmp_path) == [1, 0]
    assert judged({"sql": {"expected": "sql", "column": "db", "folder": "."}}, *cases, folder=tmp_path) == [1, 0]
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["cities.sqlite"]
    with pytest.raises(DataError, match=r"sql: no database ../cities in "):
        judged(
            {"sql": {"expected": "sql", "column": "db", "folder": "."}}, (about(sql="x", db="../cities"), ""), folder=tmp_path
        )
    with pytest.raises(DataError, match=r"questions.jsonl:1: sql: the right query fails \(no such table: town\)"):
        judged(
            {"sql": {"expected": "sql", "database": "cities.sqlite"}}, (about(sql="select * from town"), ""), folder=tmp_path
        )


TEST = "def check(f):\n    assert f(2) == 4\n    assert f(-1) == -2\n"
PROMPT = 'from math import inf\n\ndef double(x: int) -> int:\n    """Twice x."""\n'


def programs(*answers: str, seconds: float = 1.0) -> list[float | None]:
    question = Question(
        "q", PROMPT.strip(), turns=(("user", PROMPT),), columns={"test": TEST, "entry_point": "double"}, place="q:1"
    )
    asked = {"code": {"prefix": "question", "seconds": seconds, "memory_mib": 256}}
    return judged(asked, *((question, text) for text in answers), allow_code=True)


def test_code_that_completes_or_is_written_anew() -> None:
    assert programs(
        "    return 2 * x\n",
        "```python\ndef double(x):\n    return x + x\n```\nDone.",
        "    return x * x\n",
        "",
        "no idea",
        "    return 2 * x\n\nraise SystemExit",
        "    return 2 * x\n\nimport os; os._exit(0)",
    ) == [1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "evil",
    [
        "open('{file}', 'w')", "import os; os.open('{file}', os.O_CREAT | os.O_WRONLY)", "import os; os.mkdir('{file}')",
        "import os; os.remove('{there}')", "import os; os.rename('{there}', '{file}')", "import os; os.truncate('{there}', 0)",
        "import os; os.chmod('{there}', 0)", "import os; os.symlink('/', '{file}')", "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])", "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.socket(socket.AF_UNIX)", "import os; os.kill({pid}, 9)", "import os; os.kill(os.getppid(), 9)",
        "import ctypes; assert ctypes.CDLL(None).fork() >= 0",
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)",
        "import multiprocessing as m; m.Process(target=print).start()", "x = 'a' * 2**30",
        "import sqlite3; sqlite3.connect('{file}').execute('create table a(b)')",
    ],
)  # fmt: skip
def test_a_program_can_do_nothing_but_compute(tmp_path: Path, evil: str) -> None:
    there = tmp_path / "there"
    there.write_text("kept")
    made = evil.format(file=tmp_path / "made", there=there, pid=os.getpid())
    # Were it allowed, the program would come to its end, and pass.
    wrapped = f"    return 2 * x\n\n{made}\n"
    assert programs("    return 2 * x\n", wrapped) == [1, 0]
    assert there.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [there]


def test_programs_without_end_are_ended_and_the_next_one_is_judged() -> None:
    began = time.monotonic()
    good = "    return 2 * x\n"
    assert programs(f"{good}\nwhile True: pass", f"{good}\nimport time; time.sleep(60)", good, seconds=1) == [0, 0, 1]
    assert time.monotonic() - began < 30


def test_code_runs_only_where_the_recipe_says_so() -> None:
    from llmbench.errors import RecipeError

    with pytest.raises(RecipeError, match=r"code runs what models write. Say `allow_code: true` in the recipe"):
        recipe("code")
    assert recipe("code", allow_code=True).metric_names == ["code"]


def test_language() -> None:
    pytest.importorskip("py3langid")
    english, german = "The kettle is on the table in the kitchen.", "Der Kessel steht auf dem Tisch in der Küche."
    question = Question("q", "Where is the kettle at the moment?", columns={"wanted": "de"}, place="q:1")
    assert judged("language", (question, english), (question, german), (question, "Yes.")) == [1, 0, None]
    assert judged({"language": "de"}, (question, german)) == [1]
    assert judged({"language": {"column": "wanted"}}, (question, english)) == [0]


def test_a_language_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.errors import MissingPackage

    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(
        MissingPackage, match=r"needs py3langid, which is not installed. Run: pip install 'llmbench\[compare\]'"
    ):
        judged("language", (about(), "Yes."))
