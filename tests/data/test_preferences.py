"""Files of judged answers: what each form becomes, what is refused, and which tokens an answer has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench.data import Rows, preferences
from llmbench.data.examples import Example
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec

ASK = {"role": "user", "content": "How tall is it?"}
GOOD, BAD = "It is 40 centimetres tall.", "It is not stated."
PAIR = {"prompt": "How tall is it?", "chosen": GOOD, "rejected": BAD}
BOS = "{{ '<|endoftext|>' }}"


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture
def with_bos(tiny: Path) -> Any:
    """A tokenizer that begins every text with BOS, and a template that does so too."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    made: Any = AutoTokenizer.from_pretrained(tiny, bos_token="<|endoftext|>")
    made.chat_template = BOS + made.chat_template
    number = made.convert_tokens_to_ids("<|endoftext|>")
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", number)]
    )
    assert made("x")["input_ids"][0] == number
    return made


def load(method: str, rows: list[dict[str, Any]], tokenizer: Any, folder: Path, **spec: Any) -> Rows:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"path": str(path), "columns": spec.pop("columns", {})}
    return preferences.load(method, DataSpec.model_validate({"train": [source], **spec}), tokenizer, seed=1)


def texts(rows: Rows, tokenizer: Any) -> dict[str, str]:
    """The first row's columns as text."""
    return {name: tokenizer.decode(ids) for name, ids in rows.train[0].items() if isinstance(ids, list)}


TURNS = [ASK, {"role": "assistant", "content": GOOD}]
SPOKEN = "\n\nHuman: How tall is it?\n\nAssistant:"
SHARED = {
    "conversations": [{"from": "human", "value": ASK["content"]}],
    "chosen": {"from": "gpt", "value": GOOD},
    "rejected": {"from": "gpt", "value": BAD},
}


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"prompt": [ASK], "chosen": [TURNS[1]], "rejected": [{"role": "assistant", "content": BAD}]},
        {"chosen": TURNS, "rejected": [ASK, {"role": "assistant", "content": BAD}]},
        SHARED,
        {"messages": [ASK], "chosen": GOOD, "rejected": BAD},
        {"chosen": f"{SPOKEN} {GOOD}", "rejected": f"{SPOKEN} {BAD}"},
        {"prompt": SPOKEN, "chosen": f" {GOOD}", "rejected": f" {BAD}"},
        {
            "prompt": [ASK],
            "chosen": [{"role": "assistant", "content": [{"type": "output_text", "text": GOOD}]}],
            "rejected": BAD,
        },
    ],
)
def test_every_form_of_a_pair_becomes_the_same_tokens(row: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    assert texts(load("dpo", [row], tokenizer, tmp_path), tokenizer) == {
        "prompt_ids": "<|im_start|>user\nHow tall is it?<|im_end|>\n<|im_start|>assistant\n",
        "chosen_ids": f"{GOOD}<|im_end|>",
        "rejected_ids": f"{BAD}<|im_end|>",
    }


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "How tall is it?", "completion": GOOD, "label": True},
        {"prompt": "How tall is it?", "completion": GOOD, "label": "true"},
        {"messages": TURNS, "label": True},
        {"messages": TURNS, "kto_tag": 1},
        {"conversations": [{"from": "human", "value": ASK["content"]}, {"from": "gpt", "value": GOOD}], "kto_tag": True},
    ],
)
def test_every_form_of_a_marked_answer_becomes_the_same_tokens(row: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    bad = {"prompt": "Why?", "completion": BAD, "label": False}
    rows = load(
        "kto",
        [row, bad] if "completion" in row else [row, {**row, "label": False, "kto_tag": False}],
        tokenizer,
        tmp_path,
        shuffle=False,
    )
    assert rows.train[0]["label"] is True and rows.train[1]["label"] is False
    assert texts(rows, tokenizer)["completion_ids"] == f"{GOOD}<|im_end|>"


def test_a_dialogue_as_text_has_all_its_turns(tokenizer: Any, tmp_path: Path) -> None:
    """One learned text with `Human:` in it would teach the assistant to speak for the user."""
    talk = "\n\nHuman: Hello.\n\nAssistant: Good day.\n\nHuman: How tall is it?\n\nAssistant:"
    found = texts(load("dpo", [{"chosen": f"{talk} {GOOD}", "rejected": f"{talk} {BAD}"}], tokenizer, tmp_path), tokenizer)
    turns = "user\nHello.", "assistant\nGood day.", "user\nHow tall is it?"
    assert found["prompt_ids"] == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns) + "<|im_start|>assistant\n"
    assert found["chosen_ids"] == f"{GOOD}<|im_end|>"


def test_a_prompt_keeps_the_columns_that_rewards_read(tokenizer: Any, tmp_path: Path) -> None:
    rows = load("grpo", [{"question": "2 + 2?", "answer": "4"}], tokenizer, tmp_path, columns={"prompt": "question"})
    assert rows.train[0] == {"prompt": [{"role": "user", "content": "2 + 2?"}], "answer": "4"}


def test_the_answer_s_end_is_learned_and_nothing_stands_before_it(with_bos: Any, tmp_path: Path) -> None:
    """The template's BOS begins the row once; the tokenizer's own would stand before chosen and rejected as well."""
    first = load("dpo", [PAIR], with_bos, tmp_path).train[0]
    bos = with_bos.bos_token_id
    assert first["prompt_ids"][0] == bos and first["prompt_ids"].count(bos) == 1
    for side in ("chosen_ids", "rejected_ids"):
        assert bos not in first[side] and first[side][-1] == with_bos.eos_token_id
        whole = with_bos.decode(first["prompt_ids"] + first[side])
        answer = {"role": "assistant", "content": GOOD if side == "chosen_ids" else BAD}
        assert with_bos.apply_chat_template([ASK, answer], tokenize=False).startswith(whole)
    judged = load("reward", [PAIR], with_bos, tmp_path).train[0]
    assert judged["chosen_ids"] == first["prompt_ids"] + first["chosen_ids"]


def test_a_template_without_an_end_of_turn_is_counted(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made: Any = AutoTokenizer.from_pretrained(tiny)
    made.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    made.chat_template += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    assert load("dpo", [PAIR], made, tmp_path).train_report.unstopped == 2


def test_a_template_that_rewrites_the_prompt_gives_it_as_the_model_meets_it(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made: Any = AutoTokenizer.from_pretrained(tiny)
    made.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    assert texts(load("dpo", [PAIR], made, tmp_path), made) == {
        "prompt_ids": "1How tall is it?<|im_end|>",
        "chosen_ids": f"{GOOD}<|im_end|>",
        "rejected_ids": f"{BAD}<|im_end|>",
    }


CALLS = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
TEMPLATE = (
    "{{ tools | tojson if tools else '' }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.reasoning_content %}{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}" + CALLS + "<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "height", "parameters": {}}}]


def called(**arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"name": "height", "arguments": arguments}]}


@pytest.mark.parametrize("method", ["dpo", "orpo", "kto", "reward"])
def test_judged_answers_may_call_tools_and_think(tokenizer: Any, tmp_path: Path, method: str) -> None:
    before = [ASK, called(of="it"), {"role": "tool", "content": "40"}]
    good = {"role": "assistant", "content": "Short.", "reasoning": "It is 40"}
    row: dict[str, Any] = {"prompt": before, "chosen": [good], "rejected": [called(of="that")], "tools": TOOLS}
    rows = [row]
    if method == "kto":
        rows = [
            {"prompt": before, "completion": [turn], "label": label, "tools": TOOLS}
            for turn, label in ((good, True), (called(of="that"), False))
        ]
    found = load(method, rows, tokenizer, tmp_path, chat_template=TEMPLATE, shuffle=False)
    said = [
        tokenizer.decode(ids)
        for one in found.train
        for key, ids in one.items()
        if key in ("chosen_ids", "rejected_ids", "completion_ids")
    ]
    assert said[0].endswith("It is 40</think>Short.<|im_end|>")
    assert said[1].endswith('<call>height {"of": "that"}</call><|im_end|>')
    prompt = tokenizer.decode(found.train[0]["prompt_ids"]) if "prompt_ids" in found.train[0] else said[0]
    assert '<call>height {"of": "it"}</call><|im_end|>' in prompt and prompt.startswith('[{"type": "function"')
    assert found.train_report.turn_ends == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    lost = TEMPLATE.replace(CALLS, "")
    with pytest.raises(DataError, match=r"rows\.jsonl:[12]: the chat template renders no tool calls \(height\)"):
        load(method, rows, tokenizer, tmp_path, chat_template=lost)


def test_a_prompt_that_chosen_and_rejected_begin_with_once_more_is_the_prompt(tokenizer: Any, tmp_path: Path) -> None:
    bad = {"role": "assistant", "content": BAD}
    system = {"role": "system", "content": "Be short."}
    plain = texts(load("dpo", [PAIR], tokenizer, tmp_path), tokenizer)
    row = {"prompt": ASK["content"], "chosen": TURNS, "rejected": [ASK, bad]}
    assert texts(load("dpo", [row], tokenizer, tmp_path), tokenizer) == plain
    row = {"prompt": ASK["content"], "chosen": [system, *TURNS], "rejected": [system, ASK, bad]}
    assert "Be short." in texts(load("dpo", [row], tokenizer, tmp_path), tokenizer)["prompt_ids"]
    with pytest.raises(DataError, match="chosen should be one turn of the assistant after the prompt, not 3"):
        load("dpo", [{**row, "prompt": "Another question?"}], tokenizer, tmp_path)


def test_prompts_alone_know_the_token_that_will_end_their_answers(tokenizer: Any, tmp_path: Path) -> None:
    report = load("grpo", [{"prompt": "Hi"}], tokenizer, tmp_path).train_report
    assert report.turn_ends == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_counts_are_of_both_answers_with_their_prompts(tokenizer: Any, tmp_path: Path) -> None:
    rows = load("dpo", [PAIR, {**PAIR, "chosen": "Tall."}], tokenizer, tmp_path)
    first, second = rows.train[0], rows.train[1]
    lengths = [[len(row["prompt_ids"]) + len(row[side]) for side in ("chosen_ids", "rejected_ids")] for row in (first, second)]
    report = rows.train_report
    assert report.tokens == sum(map(sum, lengths)) and report.longest == max(map(max, lengths)) and report.rows == 2
    assert report.trained_tokens == sum(len(row[side]) for row in (first, second) for side in ("chosen_ids", "rejected_ids"))


LONG = {**PAIR, "chosen": GOOD * 12}


def test_a_long_row_is_an_error_until_the_recipe_says_what_to_do(tokenizer: Any, tmp_path: Path) -> None:
    length = load("dpo", [LONG], tokenizer, tmp_path).train_report.longest
    with pytest.raises(DataError, match=rf"1 of 2 rows are longer than 64 tokens .*Set data\.max_length={length}, or"):
        load("dpo", [PAIR, LONG], tokenizer, tmp_path, max_length=64)
    dropped = load("dpo", [PAIR, LONG], tokenizer, tmp_path, max_length=64, over_length="drop")
    assert (dropped.train_report.rows, dropped.train_report.dropped) == (1, 1)
    cut = load("dpo", [PAIR, LONG], tokenizer, tmp_path, max_length=64, over_length="truncate")
    assert (cut.train_report.rows, cut.train_report.truncated, cut.train_report.longest) == (2, 1, 64)
    assert cut.train[1]["prompt_ids"] == cut.train[0]["prompt_ids"]  # the prompt is kept whole


def test_a_row_of_which_truncation_leaves_no_difference_is_dropped(tokenizer: Any, tmp_path: Path) -> None:
    alike = {**PAIR, "chosen": GOOD * 12 + " Yes.", "rejected": GOOD * 12 + " No."}
    rows = load("dpo", [PAIR, alike], tokenizer, tmp_path, max_length=64, over_length="truncate")
    assert (rows.train_report.rows, rows.train_report.dropped, rows.train_report.truncated) == (1, 1, 0)
    with pytest.raises(DataError, match=r"data\.max_length: no row fits into 10 tokens"):
        load("dpo", [PAIR], tokenizer, tmp_path, max_length=10, over_length="truncate")


def test_rows_are_held_out_by_the_seed_and_shuffled_for_kto_alone(tokenizer: Any, tmp_path: Path) -> None:
    many = [{**PAIR, "prompt": f"How tall is {i}?"} for i in range(10)]
    rows = load("dpo", many, tokenizer, tmp_path, eval_fraction=0.2)
    assert rows.eval is not None and (len(rows.train), len(rows.eval)) == (8, 2)
    again = load("dpo", many, tokenizer, tmp_path, eval_fraction=0.2)
    assert again.train["prompt_ids"][:] == rows.train["prompt_ids"][:]
    marked = [{"prompt": f"{i}?", "completion": GOOD, "label": i < 5} for i in range(10)]
    ordered = load("kto", marked, tokenizer, tmp_path, shuffle=False).train["label"][:]
    assert ordered == [i < 5 for i in range(10)] != load("kto", marked, tokenizer, tmp_path).train["label"][:]


@pytest.mark.parametrize(
    ("method", "rows", "says"),
    [
        ("dpo", [{**PAIR, "rejected": GOOD}], r"rows\.jsonl:1: chosen and rejected are identical"),
        ("dpo", [PAIR, {"chosen": TURNS, "rejected": TURNS}], r"rows\.jsonl:2: chosen and rejected are identical"),
        ("dpo", [{"chosen": GOOD, "rejected": BAD}], r"rows\.jsonl:1: chosen and rejected begin differently"),
        ("dpo", [PAIR, {"prompt": "x", "chosen": GOOD}], r"rows\.jsonl:2: rejected is missing"),
        ("grpo", [{"prompt": "x"}, {"text": "x"}], r"rows\.jsonl:2: prompt is missing"),
        ("dpo", [{**PAIR, "chosen": ""}], r"rows\.jsonl:1: chosen is empty"),
        ("dpo", [{**PAIR, "chosen": None}], r"rows\.jsonl:1: chosen should be text or \{role, content\}, not null"),
        ("dpo", [{**PAIR, "prompt": TURNS}], r"rows\.jsonl:1: prompt ends with the assistant's turn"),
        ("dpo", [{**PAIR, "chosen": [*TURNS, *TURNS]}], r"chosen should be one turn of the assistant after the prompt, not 4"),
        ("dpo", [{**PAIR, "chosen": f"{GOOD}<|im_end|>"}], r"rows\.jsonl:1: the text contains the control token <\|im_end\|>"),
        ("dpo", [{**PAIR, "chosen": {"role": "robot", "content": "x"}}], r"chosen\.role should be one of .* not 'robot'"),
        (
            "dpo",
            [PAIR, {**PAIR, "chosen": 3}, {**PAIR, "chosen": 4}],
            r"rows\.jsonl:2: .*not a number \(1 more rows of this file",
        ),
        ("dpo", [], r"rows\.jsonl: has no rows; method: dpo reads `prompt`, `chosen` and `rejected`"),
        (
            "dpo",
            [{"messages": TURNS}],
            r"these are conversations without labels or preferences \(messages\), which fit method: sft",
        ),
        ("dpo", [{"prompt": "x", "answer": "y"}], r"these are prompts without an answer .* fit method: grpo"),
        (
            "kto",
            [PAIR],
            r"these are pairs of a chosen and a rejected answer .* fit method: dpo, orpo or reward; method: kto reads",
        ),
        ("kto", [{"prompt": "x", "completion": "y", "label": "good"}], r"label should be true or false, not 'good'"),
        ("kto", [{"prompt": "x", "completion": "y", "label": True}] * 3, r"all 3 answers are labelled good.* method: sft"),
        ("grpo", [PAIR], r"these are pairs .* method: grpo reads `prompt`"),
        ("grpo", [{"question": "x"}], r"columns are question; method: grpo reads `prompt`\. Name yours with columns"),
        (
            "grpo",
            [{"prompt": "x", "a": 1}, {"prompt": "y", "a": "b"}],
            r"the columns a have mixed types .* Use one type per column",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_reason(
    method: str, rows: list[dict[str, Any]], says: str, tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        load(method, rows, tokenizer, tmp_path)
    assert "\n" not in str(caught.value)


def test_rows_that_cannot_be_used_are_skipped_where_the_recipe_says_so_and_counted(tokenizer: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {**PAIR, "chosen": 3},
        PAIR,
        {**PAIR, "rejected": f"{BAD}<|im_end|>"},
        {**PAIR, "chosen": GOOD * 200},
    ]
    report = load("dpo", rows, tokenizer, tmp_path, bad_rows="skip", over_length="drop", max_length=200).train_report
    assert (report.rows_in, report.rows) == (4, 1)
    assert [(row.place.rpartition(":")[2], row.reason) for row in report.skipped] == [
        ("1", "no answer to train on"), ("3", "a control token in the text"), ("4", "longer than max_length"),
    ]  # fmt: skip


def test_the_bundled_judgements_are_written_by_their_seed(tmp_path: Path) -> None:
    from llmbench import assets
    from llmbench.tiny import judgements

    judgements.write(tmp_path)
    for name in ("pairs.jsonl", "marked.jsonl", "prompts.jsonl"):
        written = (tmp_path / name).read_bytes()
        assert written == assets.bundled(f"recipes/data/{name}").read_bytes() and written.count(b"\n") >= 40


@pytest.mark.parametrize(
    ("method", "row"),
    [
        ("dpo", PAIR),
        ("dpo", {"chosen": TURNS, "rejected": [ASK, {"role": "assistant", "content": BAD}]}),
        ("kto", {"prompt": [ASK], "completion": GOOD, "label": True}),
        ("kto", {"messages": TURNS, "label": True}),
        ("grpo", {"prompt": [ASK]}),
    ],
)
def test_a_system_column_stands_before_the_prompt_as_in_sft(method: str, row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rules = {"role": "system", "content": "Be short."}
    path.write_text(json.dumps({**row, "system": "Be short."}), encoding="utf-8")
    [example] = preferences.read(DataSource(path=path), method)
    assert isinstance(example, Example)
    assert example.prompt == [rules, ASK]
    path.write_text(
        json.dumps({"prompt": [rules, ASK], "chosen": GOOD, "rejected": BAD, "system": "Be long."}), encoding="utf-8"
    )
    with pytest.raises(DataError, match="two system prompts that differ"):
        list(preferences.read(DataSource(path=path), "dpo"))


def test_a_question_column_is_named_when_there_is_no_prompt(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "Who?", "chosen": GOOD, "rejected": BAD}), encoding="utf-8")
    with pytest.raises(DataError, match=r"write columns: \{prompt: question\} next to its path"):
        list(preferences.read(DataSource(path=path), "dpo"))
