"""Published configurations with values exchanged for odd ones: a recipe, a reason why none, or lines that say what is wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.importing import test_axolotl, test_llamafactory, test_torchtune, test_unsloth

from llmbench.errors import LlmbenchError
from llmbench.importing import convert

ODD: list[Any] = [
    None, "", [], {}, -1, 0, 2.5, 1e30, float("inf"), float("nan"), True, "x", "a,b", [1], [{}], [[1]], {"a": 1}, "../..", "/",
    "a" * 300, "é\u2028", "${x}", "\x07", 10**40, "torch.float32", {"path": 3}, [None], [{"path": "x", "type": {"format": 1}}],
]  # fmt: skip
CASES = [
    case
    for module in (test_axolotl, test_llamafactory, test_torchtune, test_unsloth)
    for case in module.CASES
    if case.file.endswith(".yaml")
]


def exchanged(values: Any, chance: random.Random) -> None:
    """Puts an odd value somewhere into a configuration."""
    here = values
    while True:
        key: Any = chance.choice(list(here)) if isinstance(here, dict) else chance.randrange(len(here))
        inner = here[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.6:
            here = inner
            continue
        here[key] = chance.choice(ODD)
        return


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_odd_values_end_in_a_recipe_or_in_lines(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chance = random.Random(case.name)
    for _ in range(3):
        values = yaml.safe_load(case.text)
        exchanged(values, chance)
        (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
        try:
            result = convert(tmp_path / "theirs.yaml", into=tmp_path / "mine.yaml")
        except LlmbenchError as error:
            assert str(error) and len(str(error)) < 1000
        else:
            assert (result.recipe is None) == bool(result.unfit)
            json.dumps(result.as_json(), allow_nan=False)
