"""Files of judged answers -> rows for the methods that learn from judgements, each fit for TRL's trainer as it is.

| rows | columns | learned by |
|---|---|---|
| pairs | `prompt`, `chosen`, `rejected` (text or messages) | dpo, orpo, reward |
| pairs | `chosen` and `rejected` as whole conversations, whose common beginning is the prompt | dpo, orpo, reward |
| pairs, hh-rlhf | the same, each one text: `\\n\\nHuman: ...\\n\\nAssistant: ...` | dpo, orpo, reward |
| pairs, ShareGPT | `conversations` (or `messages`) and `chosen`, `rejected` with from/value | dpo, orpo, reward |
| marked answers | `prompt`, `completion` and `label`; or `messages`/`conversations` and `label` or `kto_tag` | kto |
| prompts | `prompt` (text or messages), and whatever columns the reward functions read | grpo |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from llmbench.data import files, sources
from llmbench.data.examples import Conversation, Example, Turn
from llmbench.data.messages import answering, dense, message, messages, shared, text, tools, transcript, without_reasoning
from llmbench.data.values import Report, Rows, Skipped
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec, TokenizerSpec

if TYPE_CHECKING:
    from llmbench.data.answers import Encoded
    from llmbench.data.tokens import Tokenizer

__all__ = ["load", "read"]

_KINDS = {
    "pairs": ("pairs of a chosen and a rejected answer", "dpo, orpo or reward"),
    "marked": ("labelled answers", "kto"),
    "conversations": ("conversations without labels or preferences", "sft"),
    "prompts": ("prompts without an answer", "grpo"),
}
"""What a file is, and the methods that learn from it."""
_READ_BY = {"dpo": "pairs", "orpo": "pairs", "reward": "pairs", "kto": "marked", "grpo": "prompts"}
_COLUMNS = {"pairs": ("chosen", "rejected"), "marked": (), "prompts": ("prompt",)}
"""What every row of a kind has; marked answers come in several forms."""
_NEEDS = {
    "pairs": "`prompt`, `chosen` and `rejected`, or `chosen` and `rejected` as whole conversations",
    "marked": "`prompt`, `completion` and `label`, or `messages` and `label`",
    "prompts": "`prompt`",
}


def load(
    method: str,
    spec: DataSpec,
    tokenizer: Any,
    *,
    seed: int = 0,
    added: TokenizerSpec | None = None,
    stops: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
    as_tokens: bool = False,
) -> Rows:
    """Reads, checks and tokenises the rows of a recipe for dpo, orpo, kto, reward or grpo.

    Columns of the result: dpo and orpo `prompt_ids`, `chosen_ids`, `rejected_ids`; reward the same without the first, which
    stands before both; kto `prompt_ids`, `completion_ids`, `label`; each with `source` and `row`, where it stands; grpo
    `prompt` (messages) and the file's other columns, which its reward functions read, or with `as_tokens` (for a report)
    `prompt_ids`, `source` and `row`. `added` and `stops` are as in `data.load`.

    Raises:
        DataError: a file for another method, a row that cannot be used, rows that are too long while `over_length` is
            `error`, answers of one kind only for kto, or a chat template that does not show what was answered.
    """
    from llmbench.data.tokens import Tokenizer

    own = tuple(added.add_tokens) if added is not None else ()
    known = Tokenizer(tokenizer, stops, own)
    train = _part(method, spec, spec.train, known, seed, progress)
    if spec.eval:
        held_out = _part(method, spec, spec.eval, known, seed, progress)
    elif spec.eval_fraction:
        train, held_out = _hold_out(train, spec.eval_fraction, seed)
    else:
        return Rows(train.dataset(method, as_tokens=as_tokens), _checked(method, train))
    sets = [part.dataset(method, as_tokens=as_tokens) for part in (train, held_out)]
    return Rows(sets[0], _checked(method, train), sets[1], held_out.report())


def _part(
    method: str,
    spec: DataSpec,
    given: list[DataSource],
    tokenizer: Tokenizer,
    seed: int,
    progress: Callable[[int], None] | None,
) -> Encoded:
    from llmbench.data.answers import encode

    found = [one for i, source in enumerate(given) for one in read(source, method, number=i, skip=spec.bad_rows == "skip")]
    if spec.reasoning == "drop":
        found = [_unreasoned(one) if isinstance(one, Example) else one for one in found]
    examples = [one for one in found if isinstance(one, Example)]
    if method == "kto" and spec.shuffle:
        # TRL keeps the order of KTO's rows, since each one's KL is measured on its neighbour.
        Random(f"rows {seed}").shuffle(examples)
    notes = tuple(f"{sources.title(source)}: {note}" for source in given for note in sources.chosen(source).notes)
    return encode(examples, tokenizer, spec, [one for one in found if isinstance(one, Skipped)], progress=progress).noting(
        notes
    )


def _unreasoned(example: Example) -> Example:
    answers = tuple(without_reasoning(list(example.answers)))
    return replace(example, prompt=without_reasoning(example.prompt), answers=answers)


def _hold_out(part: Encoded, fraction: float, seed: int) -> tuple[Encoded, Encoded]:
    """Splits the rows; which ones are held out depends on their number and the seed only."""
    total = len(part.examples)
    count = round(total * fraction)
    if not 0 < count < total:
        raise DataError(
            f"data.eval_fraction: {fraction} of {total} rows leaves {count} for evaluation. Change it, or set it to 0."
        )
    held_out = set(Random(f"held out {seed}").sample(range(total), count))
    kept = [i for i in range(total) if i not in held_out]
    return part.select(kept), part.select(sorted(held_out)).without_losses()


def _checked(method: str, part: Encoded) -> Report:
    labels = {example.label for example in part.examples}
    if method == "kto" and len(labels) == 1:
        kind = "good" if labels == {True} else "bad"
        raise DataError(
            f"data.train: all {len(part.examples):,} answers are labelled {kind}, but kto learns from the difference. Add "
            f"{'bad' if kind == 'good' else 'good'} ones, or use method: sft with good ones."
        )
    return part.report()


def read(source: DataSource, method: str, *, number: int = 0, skip: bool = False) -> Iterator[Example | Skipped]:
    """The rows of one file, the `number`-th source of the recipe; with `skip` those that cannot be used among them.

    Raises:
        DataError: no rows, a file for another method, or a row that cannot be used; the message names the first and counts.
    """
    wanted = _READ_BY[method]
    faults: list[str] = []
    count = 0
    for row in sources.read(source):
        if row.fault is not None:
            if not skip:
                raise DataError(f"{row.place}: {row.fault.detail}")
            yield Skipped(row.place, row.fault.reason, row.fault.detail)
            continue
        if not count:
            _check_kind(row.values, wanted, method, row.place)
        count += 1
        try:
            values = {key: dense(item) for key, item in row.values.items()} if row.filled else row.values
            example = _example(values, wanted, row.place)
        except ValueError as error:
            if skip:
                yield Skipped(row.place, "no answer to train on", str(error))
            else:
                faults.append(f"{row.place}: {error}")
            continue
        if not faults:
            yield replace(example, origin=(number, row.number))
    if faults:
        more = f" ({len(faults) - 1:,} more rows of this file cannot be used)" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    if not count:
        raise DataError(f"{sources.title(source)}: has no rows; method: {method} reads {_NEEDS[wanted]}.")


def _check_kind(row: dict[str, Any], wanted: str, method: str, place: str) -> None:
    """Raises when the first row is of another kind than the method reads, naming what it is and who reads it."""
    found = _kind(row)
    if found == wanted or (wanted == "prompts" and "prompt" in row and found != "pairs"):
        return
    columns = ", ".join(map(str, row)) or "none"
    if found is None:
        raise DataError(
            f"{place}: columns are {columns}; method: {method} reads {_NEEDS[wanted]}. "
            "Name yours with columns: {prompt: ..., chosen: ...}."
        )
    what, methods = _KINDS[found]
    raise DataError(
        f"{place}: these are {what} ({columns}), which fit method: {methods}; method: {method} reads {_NEEDS[wanted]}."
    )


def _kind(row: dict[str, Any]) -> str | None:
    """What a row is by its columns."""
    keys = row.keys()
    talk = "messages" in keys or "conversations" in keys
    if {"chosen", "rejected"} <= keys:
        return "pairs"
    if (talk or {"prompt", "completion"} <= keys) and ("kto_tag" in keys or "label" in keys):
        return "marked"
    if talk or {"prompt", "completion"} <= keys:
        return "conversations"
    return "prompts" if "prompt" in keys else None


def _example(row: dict[str, Any], wanted: str, place: str) -> Example:
    """A row as an example.

    Raises:
        ValueError: what is wrong with it.
    """
    missing = [name for name in _COLUMNS[wanted] if name not in row]
    if missing:
        raise ValueError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    match wanted:
        case "pairs":
            return _pair(row, place)
        case "marked":
            return _marked(row, place)
    prompt = _prompt(_turns(row["prompt"], "prompt", "user"), "prompt", row)
    for i, turn in enumerate(prompt):
        others = sorted(turn.keys() - {"role", "content"})
        if others:
            raise ValueError(f"prompt[{i}] has {', '.join(others)}, which this method cannot train on; remove it")
    rest = {key: value for key, value in row.items() if key not in ("prompt", "completion", "messages")}
    return Example(place, prompt, columns=rest)


def _pair(row: dict[str, Any], place: str) -> Example:
    chosen, rejected = (_turns(answering(row.get("prompt"), row[name]), name, "assistant") for name in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    talk = next((name for name in ("prompt", "conversations", "messages") if row.get(name) is not None), None)
    if talk is not None:
        prompt = _turns(row[talk], talk, "user")
        if shared and _begins(chosen[:shared], prompt):  # the prompt once more, at the head of both
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        prompt = _prompt(prompt, talk, row)
    else:
        if shared == len(chosen) == len(rejected):
            raise ValueError("chosen and rejected are identical")
        if not shared:
            raise ValueError(f"chosen and rejected begin differently, so they have no prompt in common; {_asked(row)}")
        prompt, chosen, rejected = _prompt(chosen[:shared], "chosen", row), chosen[shared:], rejected[shared:]
    answers = (_answer(chosen, "chosen"), _answer(rejected, "rejected"))
    if _said(answers[0]) == _said(answers[1]):
        raise ValueError("chosen and rejected are identical")
    return Example(place, prompt, answers, tools=tools(row.get("tools")))


def _begins(shared: Conversation, prompt: Conversation) -> bool:
    """Whether what the answers begin with is the prompt, be it with a system turn before, or earlier or later turns."""
    said = [_said(turn) for turn in shared if turn["role"] != "system"]
    asked = [_said(turn) for turn in prompt if turn["role"] != "system"]
    return bool(asked) and asked in (said[: len(asked)], said[-len(asked) :])


def _marked(row: dict[str, Any], place: str) -> Example:
    mark = "kto_tag" if row.get("kto_tag") is not None else "label"
    match row.get(mark):
        case bool(label):
            pass
        case 0 | 1 as number:
            label = bool(number)
        case str(text) if text.strip().lower() in ("true", "false"):
            label = text.strip().lower() == "true"
        case other:
            raise ValueError(f"{mark} should be true or false, not {other!r}")
    defined = tools(row.get("tools"))
    if row.get("prompt") is not None and row.get("completion") is not None:
        prompt = _turns(row["prompt"], "prompt", "user")
        completion = _turns(answering(row["prompt"], row["completion"]), "completion", "assistant")
        if len(completion) > 1 and _begins(completion[:-1], prompt):  # the prompt once more, at its head
            prompt, completion = completion[:-1], completion[-1:]
        answer = _answer(completion, "completion")
        return Example(place, _prompt(prompt, "prompt", row), (answer,), label, tools=defined)
    name = "messages" if row.get("messages") is not None else "conversations"
    if row.get(name) is None:
        raise ValueError("prompt and completion, or messages, are missing")
    turns = _turns(row[name], name, "user")
    return Example(place, _prompt(turns[:-1], name, row), (_answer(turns[-1:], name),), label, tools=defined)


def _asked(row: dict[str, Any]) -> str:
    """What to do about a missing prompt: name the column that looks like one."""
    near = next((name for name in ("question", "instruction", "query", "input") if isinstance(row.get(name), str)), None)
    return f"write columns: {{prompt: {near}}} next to its path" if near else "give a `prompt` column"


def _prompt(turns: Conversation, name: str, row: dict[str, Any]) -> Conversation:
    """A prompt that can be answered, behind the row's `system` column where it has one, as sft reads it."""
    if not turns:
        raise ValueError(f"{name} has no turn to answer")
    if turns[-1]["role"] == "assistant":
        raise ValueError(f"{name} ends with the assistant's turn, so there is nothing to answer")
    if not row.get("system"):
        return turns
    system = {"role": "system", "content": text(row["system"], "system")}
    if turns[0]["role"] != "system":
        return [system, *turns]
    if _said(turns[0]) != _said(system):
        raise ValueError(f"the column system and the first turn of {name} are two system prompts that differ; keep one")
    return turns


def _answer(turns: Conversation, name: str) -> Turn:
    """The one turn that was judged."""
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise ValueError(f"{name} should be one turn of the assistant after the prompt, not {len(turns)} ({_roles(turns)})")
    turn = turns[0]
    if not (turn["content"] or "").strip() and not turn.get("tool_calls") and not turn.get("reasoning_content"):
        raise ValueError(f"{name} is empty")
    return turn


def _said(turn: Turn) -> dict[str, Any]:
    """A turn as it is compared with another: without space at its ends, and whatever its calls' ids are."""
    calls = [call["function"] for call in turn.get("tool_calls", ())]
    return {"role": turn["role"], "content": (turn["content"] or "").strip(), "calls": calls} | {
        key: turn[key] for key in ("reasoning_content",) if turn.get(key)
    }


def _roles(turns: Conversation) -> str:
    return ", ".join(turn["role"] for turn in turns) or "none"


def _turns(value: Any, name: str, role: str) -> Conversation:
    """Text as one turn of `role`, a dialogue as its turns; one message or a list of them, with role/content or from/value."""
    if isinstance(value, str):
        return transcript(value, name) or [{"role": role, "content": text(value, name)}]
    if isinstance(value, list):
        if not value:
            return []
        first = value[0]
        return shared(value, name) if isinstance(first, dict) and "from" in first else messages(value, name)
    if isinstance(value, dict) and "from" in value:
        return shared([value], name)
    if not isinstance(value, dict):
        raise ValueError(f"{name} should be text or {{role, content}}, not {files.kind(value)}")
    return [message({key: item for key, item in value.items() if item is not None}, name)]
