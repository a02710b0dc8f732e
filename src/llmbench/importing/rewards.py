"""GRPO's settings as TRL names them, and its reward functions: a recipe names a file of the user's, never code of a package."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from llmbench.importing.draft import Draft
from llmbench.importing.places import found, seen_from

__all__ = ["FIELDS", "functions"]

FIELDS = (
    "beta", "num_generations", "num_generations_eval", "max_completion_length", "temperature", "top_p", "top_k", "min_p",
    "repetition_penalty", "num_iterations", "steps_per_generation", "epsilon", "epsilon_high", "loss_type", "scale_rewards",
    "importance_sampling_level", "mask_truncated_completions", "use_vllm", "vllm_gpu_memory_utilization",
    "vllm_max_model_length",
)  # fmt: skip
"""TRL's fields that `grpo` has under the same name."""


def functions(made: Draft, place: str, given: Any) -> None:
    """Takes a section of GRPO's settings, or with an empty place the file's own keys.

    Args:
        made: the draft.
        place: the section, such as `trl`; empty for the top.
        given: its values.
    """
    values = given if isinstance(given, dict) else {}
    before = f"{place}." if place else ""
    if place and values:
        made.tell(place, "grpo", "its fields")
    for key in FIELDS:
        if values.get(key) is None:
            continue
        value = values[key]
        if key == "scale_rewards" and isinstance(value, bool):
            value = "group" if value else "none"
        if place:
            made.put(f"grpo.{key}", value)
        else:
            made.keep(key, f"grpo.{key}", value)
    weights = values.get("reward_weights") or []
    if not isinstance(weights, list) or not all(isinstance(one, int | float) for one in weights):
        made.fault(f"{before}reward_weights", "should be a list of numbers")
        weights = []
    names = values.get("reward_funcs") or []
    listed = names if isinstance(names, list) else [names]
    if not place:
        made.has("reward_weights")
    rewards: list[dict[str, Any]] = []
    for i, name in enumerate(listed):
        function = _file_of(str(name), made)
        if function is None:
            made.fail(
                f"{before}reward_funcs",
                f"{name}: llmbench takes a function of a file on this machine, or its own "
                "(regex, exact_match, json_schema, length)",
            )
            continue
        rewards.append({"function": function} | ({"weight": float(weights[i])} if i < len(weights) else {}))
    if not listed:
        made.fail(f"{before}reward_funcs", "is missing: GRPO needs a function that judges answers")
    made.put("grpo.reward_functions", rewards)
    if not place and listed:
        made.tell("reward_funcs", "grpo.reward_functions", rewards)
        if weights:
            made.tell("reward_weights", "grpo.reward_functions[].weight", weights)


def _file_of(name: str, made: Draft) -> str | None:
    """`my_lib.rewards.score` -> my_lib/rewards.py:score, where such a file with such a function is near."""
    module, _, function = name.rpartition(".")
    if not module:
        return None
    path = found(f"{module.replace('.', '/')}.py", made.foreign.path.absolute().parent)
    if path is None or not _defines(path, function):
        return None
    return f"{seen_from(path, made.into)}:{function}"


def _defines(path: Path, function: str) -> bool:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body)
