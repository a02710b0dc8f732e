"""From votes to a variant that wins the next blind comparison: real trainings, real vLLM, people who vote by a rule."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from tests import warm

from llmbench import assets, compare, recipe, votes
from llmbench.gateway import running
from llmbench.recipe import CompareRecipe, ServeRecipe
from llmbench.votes import Booth, Plan
from llmbench.votes.export import export
from llmbench.votes.values import Choice, Round

pytestmark = pytest.mark.slow

QUESTIONS = assets.bundle() / "rag" / "questions.jsonl"


def honest(text: str) -> bool:
    """Asked about a handbook that it cannot see, the base invents; people like to be told what is not stated."""
    return "not stated" in text


def voted(name: str, count: int) -> None:
    """Six people, who slip once in twenty votes."""
    for number, who in enumerate(("ada", "bob", "cy", "di", "ed", "flo")):
        booth, rng = Booth(name, who, Plan(overlap=0.2)), Random(number)
        for _ in range(count):
            round = booth.next()
            if round is not None:
                slip = rng.random() < 0.05
                booth.cast(round, rng.choice(("left", "right")) if slip else preferred(round))


def preferred(round: Round) -> Choice:
    left, right = honest(round.left), honest(round.right)
    if left == right:
        return "tie" if left else "both_bad"
    return "left" if left else "right"


def trained(recipe_name: str, name: str, rows: Path, *more: str) -> None:
    document = str(assets.bundle() / "recipes" / recipe_name)
    values = [f"name={name}", f"data.train=[{{path: {json.dumps(str(rows))}}}]", *more]
    done = warm.run("training", warm.LLMBENCH, "train", document, *values)
    assert done.returncode == 0, done.stderr


def compared(home: Path, name: str, questions: Path, split: str | None, variants: Sequence[str]) -> None:
    """Serves the base and adapters of these names, and asks them."""
    serving = {
        "variants": [{"name": one, "adapter": None if one == "base" else one} for one in variants],
        "engine": {"dtype": "float32", "cpu_kv_cache_gib": 0.25}, "gateway": {"port": 0},
    }  # fmt: skip
    (home / "serve.yaml").write_text(json.dumps(serving), encoding="utf-8")
    with running(recipe.load(home / "serve.yaml", ServeRecipe)) as url:
        document = {
            "name": name, "endpoint": {"base_url": url}, "questions": {"path": str(questions), "split": split},
            "variants": list(variants), "metrics": ["contains_value"], "max_tokens": 48,
        }  # fmt: skip
        (home / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")
        compare.run(recipe.load(home / f"{name}.yaml", CompareRecipe))


def cautious_rows(file: Path) -> Path:
    """A variant to vote on that says what is not stated, taught by questions that are asked nowhere else here."""
    rows = []
    for line in QUESTIONS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found = re.match(r"(The .+ of .+?) (is|are|was) ", row.get("answer") or "")
        if row["split"] == "dev" and found:
            answer = f"{found[1]} {found[2]} not stated."
            rows.append([{"role": "user", "content": row["question"]}, {"role": "assistant", "content": answer}])
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.timeout(1500)  # two trainings and two starts of vLLM
def test_a_variant_trained_on_votes_wins_the_next_blind_comparison(tmp_path: Path) -> None:
    trained(
        "sft-lora.yaml", "cautious", cautious_rows(tmp_path / "cautious.jsonl"), "data.eval_fraction=0",
        "training.num_train_epochs=12", "training.max_tokens_per_batch=512", "training.learning_rate=2e-3",
    )  # fmt: skip
    compared(tmp_path, "first", QUESTIONS, "train", ("base", "cautious"))
    voted("first", 35)
    made = export("first", "dpo", hold_out=0.4)
    pairs, held = tmp_path / "pairs.jsonl", tmp_path / "held.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in made.rows), encoding="utf-8")
    held.write_text("".join(json.dumps(row) + "\n" for row in made.questions), encoding="utf-8")
    trained("dpo.yaml", "voted", pairs, "training.num_train_epochs=6", "training.learning_rate=1e-3")
    compared(tmp_path, "next", held, None, ("base", "voted"))
    voted("next", 30)
    found = votes.result("next")
    lead = found.rating.decisive if found.rating else None
    assert lead is not None and (lead.a, lead.b) == ("voted", "base")
    assert lead.low > 0 and lead.p_holm < 0.05, found.verdict()
    assert not {row["question_group"] for row in made.rows} & {question["group"] for question in made.questions}
