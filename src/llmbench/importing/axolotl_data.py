"""axolotl's `datasets`: where rows come from, and what their `type` says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbench.importing.draft import Draft
from llmbench.importing.sources import add, origin, renamed

__all__ = ["rows"]

_PAIRS: dict[str, dict[str, str]] = {
    "argilla": {"prompt": "instruction", "chosen": "chosen_response", "rejected": "rejected_response"},
    "argilla_chat": {}, "ultra": {}, "icr": {"prompt": "input"}, "intel": {"system": "system", "prompt": "question"},
    "prompt_pairs": {}, "load": {},
}  # fmt: skip
"""The column of each, by the end of a preference type's name (`chatml.intel`), where it differs from llmbench's."""
_ALPACA = (
    "axolotl writes Alpaca's own prompt text around instruction and output; llmbench writes turns of the model's chat template"
)
_CHATS = ("chat_template", "chat_template.default", "chat_template.argilla")
_SOURCE_KEYS = {
    "path", "name", "split", "revision", "data_files", "ds_type", "type", "field", "text_column", "field_messages",
    "field_human",
    "field_model", "field_instruction", "field_input", "field_output", "field_system", "field_chosen", "field_rejected",
    "message_property_mappings", "message_field_role", "message_field_content", "roles", "field_thinking",
    "template_thinking_key", "field_tools", "train_on_inputs", "data_dir", "conversation", "chat_template",
}  # fmt: skip


def rows(made: Draft) -> None:
    """Takes `datasets`, `pretraining_dataset` and `test_datasets` into the recipe's data."""
    texts = []
    for key, part in (("datasets", "train"), ("pretraining_dataset", "train"), ("test_datasets", "eval")):
        given = made.get(key)
        if given is None:
            continue
        listed = given if isinstance(given, list) else [given]
        for i, one in enumerate(listed):
            entry = {"path": one} if isinstance(one, str) else one
            if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
                made.fault(f"{key}[{i}]", "should be a section with a path")
                continue
            texts.append(_source(made, f"{key}[{i}]", entry, part, raw=key == "pretraining_dataset"))
        if part in made.recipe.get("data", {}):
            made.tell(key, f"data.{part}", made.recipe["data"][part])
    if not texts:
        made.fail("datasets", "is missing, so there is nothing to train on")
    elif all(texts) and made.recipe["method"] == "sft":
        made.put("method", "pretrain")
    elif any(texts) and made.recipe["method"] == "sft":
        made.refuse(
            "datasets", "raw text next to conversations: llmbench learns the first with method: pretrain, in a run of its own"
        )


def _source(made: Draft, key: str, entry: Mapping[str, Any], part: str, *, raw: bool) -> bool:
    """Adds one source; whether it is raw text."""
    found = origin(made, entry["path"], entry.get("data_files"))
    for word in ("name", "split", "revision"):
        if entry.get(word) is not None and "dataset" in found and not (word == "split" and entry[word] == "train"):
            found[word] = str(entry[word])
    kind = entry.get("type")
    method = made.recipe["method"]
    if isinstance(kind, dict):
        found |= _described(made, key, kind)
    elif raw or str(kind) in ("completion", "pretrain"):
        column = entry.get("field") or entry.get("text_column") or "text"
        add(made, found | {"format": "text"} | renamed({"text": str(column)}), part)
        return True
    elif method in ("dpo", "orpo", "kto", "reward"):
        found |= _preferences(made, key, entry, str(kind), method)
    elif method == "grpo":
        made.refuse(key, "its type is a function of axolotl's user; rows need a column `prompt` (formatting in data.train)")
    else:
        found |= _taught(made, key, entry, str(kind))
    for unknown in sorted(set(entry) - _SOURCE_KEYS):
        made.note(
            f"{key}.{unknown}", entry[unknown], "is not carried over: look up what it does, and set the field that means it"
        )
    if entry.get("field_thinking") or entry.get("template_thinking_key"):
        made.comments["data.reasoning"] = "the rows' thinking is written by the chat template and learned"
        made.put("data.reasoning", "keep")
    add(made, found, part)
    return False


def _taught(made: Draft, key: str, entry: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Rows of supervised fine-tuning."""
    name = kind.partition(":")[0]
    if name in ("alpaca", "alpaca_w_system"):
        made.note(f"{key}.type", kind, _ALPACA)
        return {"format": "alpaca"}
    if name in ("alpaca_chat.load_qa", "alpaca_chat.load_concise"):
        made.note(f"{key}.type", kind, _ALPACA)
        return {"format": "prompt_completion"} | renamed({"prompt": "question", "completion": "answer"})
    if name in _CHATS:
        return _turns(made, key, entry)
    if name.startswith("sharegpt"):
        return {"format": "sharegpt"}
    made.note(f"{key}.type", kind, "a prompt of axolotl's own: give columns or a function (formatting) that makes messages")
    return {}


def _turns(made: Draft, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Whole conversations, by the names of the column, the role and the text."""
    names = entry.get("message_property_mappings")
    names = names if isinstance(names, dict) else {}
    role = str(entry.get("message_field_role") or names.get("role") or "role")
    content = str(entry.get("message_field_content") or names.get("content") or "content")
    column = str(entry.get("field_messages") or "messages")
    tools = str(entry["field_tools"]) if entry.get("field_tools") else None
    if (role, content) == ("from", "value"):
        return {"format": "sharegpt"} | renamed({"conversations": column, "tools": tools})
    if (role, content) != ("role", "content"):
        made.note(
            f"{key}.message_property_mappings",
            f"{role}, {content}",
            "write a function (formatting) that makes messages of rows",
        )
    return {"format": "messages"} | renamed({"messages": column, "tools": tools})


def _preferences(made: Draft, key: str, entry: Mapping[str, Any], kind: str, method: str) -> dict[str, Any]:
    """Pairs and marked answers, by the end of the type's name."""
    name = kind.rpartition(".")[2]
    chosen, rejected = (str(entry.get(f"field_{word}") or word) for word in ("chosen", "rejected"))
    if method == "kto":
        columns = {"prompt": "instruction"} if name == "argilla" else {"prompt": "question"} if name == "intel" else {}
        return renamed(columns)
    if kind.startswith("bradley_terry"):
        return renamed({"prompt": str(entry.get("field_messages") or "input"), "chosen": chosen, "rejected": rejected})
    if kind == "chat_template.argilla" or method == "orpo":
        return renamed({"chosen": chosen, "rejected": rejected})
    if kind in ("chat_template", "chat_template.default"):
        column = str(entry.get("field_messages") or "messages")
        return renamed({"messages": column, "chosen": chosen, "rejected": rejected})
    if name in _PAIRS:
        columns = _PAIRS[name]
        return renamed({"chosen": chosen, "rejected": rejected} | columns)
    made.note(f"{key}.type", kind, "a prompt of axolotl's own: rows need prompt, chosen and rejected (columns, or formatting)")
    return {}


def _described(made: Draft, key: str, kind: Mapping[str, Any]) -> dict[str, Any]:
    """A type written out as columns and a form."""
    if kind.get("field_prompt"):
        words = ("prompt", "chosen", "rejected", "completion", "label", "system")
        return renamed({word: str(kind[f"field_{word}"]) for word in words if kind.get(f"field_{word}")})
    if kind.get("format") or kind.get("no_input_format") or kind.get("system_prompt"):
        made.note(f"{key}.type", None, "its text around the columns is not carried over: llmbench writes them as turns")
    names = {"instruction": kind.get("field_instruction"), "input": kind.get("field_input"), "output": kind.get("field_output")}
    given = {ours: str(theirs) if theirs else None for ours, theirs in names.items()}
    system = str(kind["field_system"]) if kind.get("field_system") else None
    if given["input"] is None:
        pair = {"prompt": given["instruction"] or "instruction", "completion": given["output"] or "output", "system": system}
        return {"format": "prompt_completion"} | renamed(pair)
    return {"format": "alpaca"} | renamed(given | {"system": system})
