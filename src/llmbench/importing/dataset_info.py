"""LLaMA-Factory's dataset_info.json: what the names in `dataset` stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbench.errors import RecipeError
from llmbench.importing import foreign
from llmbench.importing.draft import Draft
from llmbench.importing.foreign import Foreign
from llmbench.importing.places import seen_from
from llmbench.importing.sources import renamed

__all__ = ["Registry", "look_up", "source"]

_NAME = "dataset_info.json"
_OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
_SHAREGPT = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
_PICTURES = ("images", "videos", "audios")


@dataclass(frozen=True)
class Registry:
    """The file, or where it was looked for."""

    path: Path | None = None
    entries: Mapping[str, Any] = field(default_factory=dict)
    looked_in: tuple[Path, ...] = ()


def look_up(file: Foreign, named: Path | None) -> Registry:
    """Reads dataset_info.json: the one that is named, else the one of `dataset_dir`, of the file's folder, or of `data` above.

    Raises:
        RecipeError: it is no JSON, or the named one is missing.
    """
    if named is not None:
        path = named / _NAME if named.is_dir() else named
        return Registry(path, foreign.read(path).values)
    here = file.path.absolute().parent
    folder = str(file.values.get("dataset_dir") or "data")
    starts = [Path.cwd(), here, *list(here.parents)[:4]]
    places = tuple(dict.fromkeys([here, *(start / folder for start in starts)]))
    for place in places:
        path = place / _NAME
        if path.is_file():
            return Registry(path, foreign.read(path).values)
    return Registry(looked_in=places)


def source(draft: Draft, registry: Registry, key: str, name: str, method: str) -> dict[str, Any]:
    """One source of the recipe's data.

    Args:
        draft: what is reported to.
        registry: where the name is looked up.
        key: `dataset` or `eval_dataset`, for messages.
        name: the data set's name.
        method: the recipe's.

    Raises:
        RecipeError: the entry is not a section.
    """
    entry = registry.entries.get(name)
    if entry is None:
        draft.note(f"{key}: {name}", None, _missing(registry, name))
        return {"path": f"{name}.json"}
    if not isinstance(entry, dict):
        raise RecipeError(f"{registry.path}: {name} should be a section of `key: value` lines")
    found = _origin(draft, registry, key, name, entry)
    columns = entry.get("columns") if isinstance(entry.get("columns"), dict) else None
    if any(kind in (columns or {}) for kind in _PICTURES):
        draft.fail(key, f"{name} has pictures or sound, and llmbench trains text models")
    return found | _rows(draft, key, name, entry, columns, method)


def _missing(registry: Registry, name: str) -> str:
    if registry.path is not None:
        return f"{registry.path} has no {name}. Write the path of its file, or its name on the hub, in data"
    return f"stands in {_NAME}, which was not found. Name that file: --dataset-info PATH"


def _origin(draft: Draft, registry: Registry, key: str, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    assert registry.path is not None
    found: dict[str, Any]
    if "file_name" in entry:
        path = registry.path.absolute().parent / str(entry["file_name"])
        found = {"path": seen_from(path.resolve(), draft.into)}
    elif "hf_hub_url" in entry:
        found = {"dataset": str(entry["hf_hub_url"])}
        if entry.get("subset"):
            found["name"] = str(entry["subset"])
        if entry.get("split", "train") != "train":
            found["split"] = str(entry["split"])
    else:
        kinds = ", ".join(sorted(set(entry) & {"ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"})) or "nothing"
        draft.note(f"{key}: {name}", None, f"dataset_info.json has {kinds} for it: download it, and write its path in data")
        found = {"path": f"{name}.json"}
    if entry.get("num_samples"):
        if not isinstance(entry["num_samples"], int):
            raise RecipeError(f"{registry.path}: num_samples of {name} should be a whole number")
        found["limit"] = entry["num_samples"]
    return found


def _rows(
    draft: Draft, key: str, name: str, entry: Mapping[str, Any], columns: Mapping[str, str] | None, method: str
) -> dict[str, Any]:
    """What the columns mean."""
    given = dict(columns or {})
    if str(entry.get("formatting", "alpaca")) == "alpaca":
        return _alpaca(given, columns is not None, method)
    given_tags = entry.get("tags")
    tags = _SHAREGPT | (given_tags if isinstance(given_tags, dict) else {})
    openai = entry.get("formatting") == "openai" or {k: tags[k] for k in _OPENAI} == _OPENAI
    if not openai and {k: tags[k] for k in _SHAREGPT} != _SHAREGPT:
        draft.note(f"{key}: {name}", None, "its tags are neither ShareGPT's nor OpenAI's: write a function as formatting")
    turns = "messages" if openai else "conversations"
    names = {turns: given.get("messages", "conversations")}
    names |= {ours: given[ours] for ours in ("system", "tools", "chosen", "rejected") if ours in given}
    if method == "kto":
        names["label"] = given.get("kto_tag", "label")
    kind = {} if method not in ("sft", "pretrain") else {"format": "messages" if openai else "sharegpt"}
    return kind | renamed(names)


def _alpaca(given: Mapping[str, str], named: bool, method: str) -> dict[str, Any]:
    """Alpaca's columns: where some are named, those that are not named are not read."""
    prompt, response = given.get("prompt", "instruction"), given.get("response", "output")
    match method:
        case "pretrain":
            return {"format": "text"} | renamed({"text": prompt})
        case "dpo" | "orpo" | "reward":
            chosen, rejected = given.get("chosen", "chosen"), given.get("rejected", "rejected")
            return renamed({"prompt": prompt, "chosen": chosen, "rejected": rejected, "system": given.get("system")})
        case "kto":
            return renamed({"prompt": prompt, "completion": response, "label": given.get("kto_tag", "label")})
    system = given.get("system")
    if named and not {"query", "history"} & given.keys():
        return {"format": "prompt_completion"} | renamed({"prompt": prompt, "completion": response, "system": system})
    names = {"instruction": prompt, "input": given.get("query"), "output": response, "system": system}
    return {"format": "alpaca"} | renamed(names | {"history": given.get("history")})
