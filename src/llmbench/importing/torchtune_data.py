"""torchtune's `dataset`: builders of its library, as sources of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbench.importing.draft import Draft
from llmbench.importing.sources import add, origin, renamed

__all__ = ["rows"]

_BUILT: dict[str, tuple[str, dict[str, Any], bool]] = {
    "alpaca_dataset": ("tatsu-lab/alpaca", {"format": "alpaca"}, True),
    "alpaca_cleaned_dataset": ("yahma/alpaca-cleaned", {"format": "alpaca"}, True),
    "slimorca_dataset": ("Open-Orca/SlimOrca-Dedup", {"format": "sharegpt"}, False),
    "grammar_dataset": ("liweili/c4_200m", {"format": "prompt_completion", "columns": {"prompt": "input",
    "completion": "output"}}, False),
    "samsum_dataset": ("Samsung/samsum", {"format": "prompt_completion", "columns": {"prompt": "dialogue",
    "completion": "summary"}}, False),
    "stack_exchange_paired_dataset": (
        "lvwerra/stack-exchange-paired", {"columns": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}},
        False),
    "hh_rlhf_helpful_dataset": ("RLHFlow/HH-RLHF-Helpful-standard", {}, False),
}  # fmt: skip
"""Builder -> the hub's data set, what its columns mean, and whether torchtune learns the prompt too unless told otherwise."""
_GENERAL = ("instruct_dataset", "chat_dataset", "preference_dataset", "text_completion_dataset")
_LOOSE = 4096
"""`data.max_length` where torchtune has no limit; a longer row is an error that names the length that fits."""


def rows(made: Draft) -> None:
    """Takes `dataset` and `tokenizer.max_seq_len` into the recipe's data."""
    listed = made.get("dataset")
    if isinstance(listed, list):
        entries = [(f"dataset[{i}]", one) for i, one in enumerate(listed) if isinstance(one, dict)]
    else:
        whole = {key.removeprefix("dataset."): value for key, value in made.values.items() if key.startswith("dataset.")}
        entries = [("dataset", _nested(whole))]
    masks = []
    for key, entry in entries:
        masks.append(_source(made, key, entry))
    learned = {mask for mask in masks if mask is not None}
    if len(learned) > 1:
        made.refuse("dataset", "some of its data sets learn the prompt and some do not; a recipe has one data.train_on")
    if True in learned and made.recipe["method"] == "sft":
        made.put("data.train_on", "all")
        made.comments["data.train_on"] = "torchtune learns the prompt of this data set too"
    _length(made)
    if made.has("shuffle"):
        made.keep("shuffle", "data.shuffle", made.flag("shuffle"))
    else:
        made.default("shuffle", False, "data.shuffle")
    if isinstance(listed, list):
        made.tell("dataset", "data.train", made.set_to("data.train"))


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """`column_map.input: question` -> {column_map: {input: question}}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        first, dot, rest = key.partition(".")
        if dot:
            found.setdefault(first, {})[rest] = value
        else:
            found[key] = value
    return found


def _source(made: Draft, key: str, entry: Mapping[str, Any]) -> bool | None:
    """Adds one data set; whether its prompts are learned."""
    builder = str(entry.get("_component_", "")).rpartition(".")[2]
    masked: bool | None
    if builder in _BUILT:
        name, columns, masked = _BUILT[builder]
        source = origin(made, str(entry.get("source", name)), entry.get("data_files")) | columns
    elif builder in _GENERAL and entry.get("source"):
        source = origin(made, str(entry["source"]), entry.get("data_files")) | _columns(made, key, builder, entry)
        masked = False
        if builder == "text_completion_dataset":
            made.put("method", "pretrain")
    else:
        made.fail(
            f"{key}._component_" if made.has(f"{key}._component_") else "dataset",
            f"llmbench has no data set {builder or 'of this kind'}",
        )
        return None
    if entry.get("split", "train") != "train":
        source["split"] = str(entry["split"])
    if entry.get("new_system_prompt"):
        made.note(f"{key}.new_system_prompt", entry["new_system_prompt"], "write it into the rows as a system message")
    if "train_on_input" in entry:
        masked = entry["train_on_input"] is True
    add(made, source)
    for word in entry:
        if made.has(f"{key}.{word}") and word not in ("packed", "max_seq_len", "new_system_prompt"):
            made.tell(
                f"{key}.{word}",
                "data.train_on" if word == "train_on_input" else "data.train",
                source if word == "_component_" else entry[word],
            )
    if builder.startswith("alpaca"):
        why = "torchtune writes Alpaca's own prompt text around instruction and output; llmbench writes them as turns"
        made.note(f"{key}._component_", builder, why)
    for inner in [one for one in made.values if one.startswith(f"{key}.column_map.")]:
        made.tell(inner, "data.train[].columns", made.get(inner))
    if entry.get("packed") is True:
        made.put("training.packing", True)
        made.tell(f"{key}.packed", "training.packing", True)
    else:
        made.drop(f"{key}.packed", "is off")
    return masked


def _columns(made: Draft, key: str, builder: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    names = entry.get("column_map")
    names = names if isinstance(names, dict) else {}
    match builder:
        case "instruct_dataset":
            pair = {"prompt": str(names.get("input", "input")), "completion": str(names.get("output", "output"))}
            return {"format": "prompt_completion"} | renamed(pair)
        case "chat_dataset":
            column = str(entry.get("conversation_column", "conversations"))
            if entry.get("conversation_style") == "openai":
                return {"format": "messages"} | renamed({"messages": column})
            return {"format": "sharegpt"} | renamed({"conversations": column})
        case "preference_dataset":
            return renamed({word: str(names.get(word, word)) for word in ("chosen", "rejected")})
    return {"format": "text"} | renamed({"text": str(entry.get("column", "text"))})


def _length(made: Draft) -> None:
    for key in ("tokenizer.max_seq_len", "dataset.max_seq_len"):
        limit = made.whole(key)
        if limit:
            made.keep(key, "data.max_length", limit)
            over = "split" if made.recipe["method"] == "pretrain" else "truncate"
            made.default("rows over max_seq_len", "cut", "data.over_length", over, "torchtune cuts rows that are longer")
            return
    why = "torchtune has no limit; a longer row stops the run and says which length fits"
    made.default("tokenizer.max_seq_len", None, "data.max_length", _LOOSE, why)
