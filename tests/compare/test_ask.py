from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbench.compare.answers import Answer, AnswerLog, key_of, scored
from llmbench.compare.ask import Tally, Tallying, ask, entries
from llmbench.compare.jobs import Way, jobs
from llmbench.errors import EndpointError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe

QUESTIONS = [Question(f"q{i}", f"How heavy is kettle {i}?") for i in range(8)]
URL = "http://127.0.0.1:8000/v1"


def put(fake: Any, log: AnswerLog, questions: Sequence[Question] = QUESTIONS, **options: Any) -> list[Tally]:
    """Asks base and adapter; returns what the progress was told."""
    told: list[Tally] = []
    given: dict[str, Any] = {"max_tokens": 64, "concurrency": 3, "seed": 0, "enough": None} | options
    document = CompareRecipe.model_validate(
        {"name": "x", "questions": {"path": __file__}, "variants": ["base", "adapter"], "endpoint": {"base_url": URL}}
        | {"max_tokens": given["max_tokens"], "statistics": {"seed": given["seed"]}}
    )

    async def work() -> None:
        listed = await entries(fake, ["base", "adapter"])
        ways = [Way(one, one.name, listed[one.name]) for one in document.variants]
        todo = jobs(document, questions, ways, drawn=given["enough"] is None)
        tallying = Tallying(todo, log, told.append)
        await ask(fake, todo, log, tallying, concurrency=given["concurrency"], enough=given["enough"])

    asyncio.run(work())
    return told


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def test_every_question_is_put_to_every_variant_once(fake: Any, path: Path) -> None:
    told = put(fake, AnswerLog(path))
    assert sorted(fake.asked) == sorted((v, q.question) for v in ("base", "adapter") for q in QUESTIONS)
    assert told[0] == Tally(done=0, wanted=16, kept=0, failed=0)
    assert told[-1] == Tally(done=16, wanted=16, kept=0, failed=0)
    row = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert row["text"] == "It weighs 9 grams [1]."
    assert (row["latency"], row["first_token"], row["prompt_tokens"], row["completion_tokens"]) == (0.5, 0.1, 9, 4)


def test_the_turns_before_a_question_are_asked_with_it(fake: Any, path: Path) -> None:
    turns = (("system", "Be short."), ("user", "A kettle?"), ("assistant", "Yes."), ("user", "How heavy is it?"))
    put(fake, AnswerLog(path), [Question("q", "How heavy is it?", turns=turns)])
    assert fake.conversations == [[{"role": role, "content": text} for role, text in turns]] * 2


def test_no_more_than_the_wanted_number_runs_at_once(fake: Any, path: Path) -> None:
    put(fake, AnswerLog(path), concurrency=3)
    assert fake.most == 3


def test_variants_take_turns_in_an_order_that_the_seed_gives(fake: Any, tmp_path: Path) -> None:
    orders = []
    for i, seed in enumerate((1, 1, 2)):
        fake.asked.clear()
        put(fake, AnswerLog(tmp_path / f"{i}.jsonl"), concurrency=1, seed=seed)
        orders.append(list(fake.asked))
    assert orders[0] == orders[1] != orders[2]
    assert all(orders[0][i][1] == orders[0][i + 1][1] for i in range(0, 16, 2))
    assert {variant for variant, _ in orders[0][::2]} == {"base", "adapter"}


def test_asking_ends_before_a_question_once_it_is_enough(fake: Any, path: Path) -> None:
    log = AnswerLog(path)

    def enough(settled: Callable[[tuple[str, str]], bool]) -> bool:
        return all(settled((id, variant)) for id in ("q0", "q1", "q2") for variant in ("base", "adapter"))

    told = put(fake, log, concurrency=1, enough=enough)
    assert {question for _, question in fake.asked} == {q.question for q in QUESTIONS[:3]}, "in the order given"
    assert told[-1] == Tally(done=6, wanted=16, kept=0, failed=0)
    fake.asked.clear()
    put(fake, log, concurrency=3, enough=enough)
    assert fake.asked == []
    put(fake, log, concurrency=3, enough=lambda settled: len(fake.asked) > 2)
    assert sorted(fake.asked).count(("base", QUESTIONS[3].question)) == 1
    assert all((other, question) in fake.asked for _, question in fake.asked for other in ("base", "adapter"))


def test_a_second_time_asks_nothing(fake: Any, path: Path) -> None:
    put(fake, AnswerLog(path))
    fake.asked.clear()
    assert put(fake, AnswerLog(path)) == [Tally(done=16, wanted=16, kept=16, failed=0)]
    assert fake.asked == []


def test_a_changed_question_is_asked_again_and_only_that(fake: Any, path: Path) -> None:
    put(fake, AnswerLog(path))
    fake.asked.clear()
    put(fake, AnswerLog(path), [Question("q0", "How tall is kettle 0?"), *QUESTIONS[1:]])
    assert sorted(fake.asked) == [("adapter", "How tall is kettle 0?"), ("base", "How tall is kettle 0?")]


def test_another_expected_answer_asks_nothing_again(fake: Any, path: Path) -> None:
    put(fake, AnswerLog(path))
    fake.asked.clear()
    put(fake, AnswerLog(path), [Question(q.id, q.question, answer="It weighs 9 grams.") for q in QUESTIONS])
    assert fake.asked == []


def test_a_variant_with_another_adapter_is_asked_again(fake: Any, path: Path) -> None:
    put(fake, AnswerLog(path))
    fake.asked.clear()
    fake.entries[2]["adapter"] = {"name": "handbook", "id": "a2"}
    put(fake, AnswerLog(path))
    assert {variant for variant, _ in fake.asked} == {"adapter"}
    assert len(fake.asked) == len(QUESTIONS)


def test_more_tokens_ask_again(fake: Any, path: Path) -> None:
    put(fake, AnswerLog(path))
    fake.asked.clear()
    put(fake, AnswerLog(path), max_tokens=128)
    assert len(fake.asked) == 16


def test_a_server_that_only_restarted_is_the_same() -> None:
    entry = {"id": "base", "adapter": None, "rag": None, "created": 1}
    other = entry | {"created": 2, "permission": ["new"]}
    assert key_of(QUESTIONS[0], entry, 64, URL) == key_of(QUESTIONS[0], other, 64, "http://127.0.0.1:9000/v1")


def test_a_server_that_tells_only_names_is_known_by_its_url() -> None:
    entry = {"id": "gpt", "object": "model"}
    assert key_of(QUESTIONS[0], entry, 64, URL) != key_of(QUESTIONS[0], entry, 64, "http://127.0.0.1:9000/v1")


def test_a_variant_that_is_not_served_names_the_nearest(fake: Any) -> None:
    with pytest.raises(EndpointError, match=r"no variant adapter-rga\. Did you mean adapter-rag\? It lists: base, base-rag"):
        asyncio.run(entries(fake, ["base", "adapter-rga"]))


def test_one_bad_question_is_recorded_and_asked_again_next_time(fake: Any, flaky: Any, path: Path) -> None:
    told = put(flaky("kettle 3"), AnswerLog(path))
    assert told[-1] == Tally(done=14, wanted=16, kept=0, failed=2)
    failed = AnswerLog(path).answer(("q3", "base"))
    assert failed is not None
    assert failed.error == "http://127.0.0.1:1/v1 answered 500: out of memory"
    assert put(fake, AnswerLog(path))[-1] == Tally(done=16, wanted=16, kept=14, failed=0)
    assert sorted(fake.asked) == [("adapter", "How heavy is kettle 3?"), ("base", "How heavy is kettle 3?")]


def test_an_endpoint_that_is_gone_is_not_asked_to_the_end(flaky: Any, path: Path) -> None:
    gone = flaky("kettle")
    many = [Question(f"q{i}", f"Which kettle is {i}?") for i in range(100)]
    with pytest.raises(EndpointError, match=r"out of memory \(10 questions in a row failed; 0 of 200 answers are saved"):
        put(gone, AnswerLog(path), many, concurrency=2)
    assert len(gone.asked) <= 12


def test_ctrl_c_keeps_what_was_answered(fake: Any, path: Path) -> None:
    calm = fake.answer
    given = iter(range(100))

    def answer(variant: str, question: str) -> str:
        if next(given) == 5:
            raise KeyboardInterrupt
        return str(calm(variant, question))

    fake.answer = answer
    with pytest.raises(KeyboardInterrupt):
        put(fake, AnswerLog(path), concurrency=1)
    fake.answer = calm
    fake.asked.clear()
    assert put(fake, AnswerLog(path))[0].kept == 5
    assert len(fake.asked) == 11


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_cut_off_by_a_kill_costs_one_answer(fake: Any, path: Path, cut: int) -> None:
    put(fake, AnswerLog(path), concurrency=1)
    path.write_bytes(path.read_bytes()[:-cut])
    fake.asked.clear()
    put(fake, AnswerLog(path))
    assert len(fake.asked) == (0 if cut == 1 else 1)  # without its newline the last line is still whole
    assert len({row.cell for row in all_of(path)}) == 16


def all_of(path: Path) -> list[Answer]:
    log = AnswerLog(path)
    found = [log.answer((q.id, variant)) for q in QUESTIONS for variant in ("base", "adapter")]
    return [one for one in found if one is not None]


def test_a_finished_log_has_one_line_a_cell_and_keeps_what_is_not_asked_this_time(flaky: Any, fake: Any, path: Path) -> None:
    put(flaky("kettle 3"), AnswerLog(path))
    log = AnswerLog(path)
    put(fake, log)
    log.finish({("q1", "base", 0): {"grounded": 1.0}})
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 16
    assert rows[0]["id"] == "q1"
    assert rows[0]["scores"] == {"grounded": 1.0}
    assert [(answer.cell, scores) for answer, scores in scored(path)] == [(("q1", "base"), {"grounded": 1.0})]
    log.finish({("q2", "base", 0): {"grounded": 0.0}})
    assert [answer.cell for answer, _ in scored(path)] == [("q2", "base")]


def test_a_variant_that_fails_at_once_does_not_pass_for_an_endpoint_that_is_gone(fake: Any, path: Path) -> None:
    async def slow(messages: Any, model: str, *, max_tokens: int | None = None) -> Any:
        if model == "base":
            raise EndpointError("gone")
        await asyncio.sleep(0.05)  # base has failed on all its questions before the first answer is there
        async for delta in calm(messages, model, max_tokens=max_tokens):
            yield delta

    calm, fake.stream = fake.stream, slow
    many = [Question(f"q{i}", f"How heavy is kettle {i}?") for i in range(30)]
    told = put(fake, AnswerLog(path), many, concurrency=60)
    assert told[-1] == Tally(done=30, wanted=60, kept=0, failed=30)


def test_halves_of_characters_are_kept_as_replacement_characters(fake: Any, path: Path) -> None:
    fake.answer = lambda variant, question: "cut \ud83d here"
    put(fake, AnswerLog(path))
    assert AnswerLog(path).answer(("q0", "base")) == AnswerLog(path).answer(("q0", "base"))
    assert '"cut \ufffd here"' in path.read_text(encoding="utf-8")


def test_lines_of_the_log_that_are_no_answers_are_passed_over(fake: Any, path: Path) -> None:
    path.write_text(
        '{"id": "q0", "variant": "base"}\n{"id": ["q1"], "variant": "base", "key": "x"}\n[]\n' + "[" * 100_000 + "\n"
    )
    assert put(fake, AnswerLog(path))[-1].done == 16
