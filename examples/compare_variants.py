"""Ask two variants of a running endpoint the same questions, and say whether one is better.

llmbench serve recipes/serve.yaml                                            (in another terminal)
python examples/compare_variants.py questions.jsonl base base-rag

A question is a line such as {"id": "q1", "question": "...", "value": "300 grams", "source": "kettle.md"}. Needs
llmbench[compare]. Any OpenAI-compatible server will do; a key is read from OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmbench import compare
from llmbench.recipe import CompareRecipe


def main() -> None:
    """Asks, measures, and prints each variant's share, the verdict, and where the report is."""
    parser = argparse.ArgumentParser(description="Compare two variants on the same questions.")
    parser.add_argument("questions", type=Path)
    parser.add_argument("variants", nargs=2, metavar="VARIANT")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    given = parser.parse_args()

    recipe = {
        "name": "-vs-".join(given.variants),
        "endpoint": {"base_url": given.url},
        "questions": {"path": given.questions},
        "variants": given.variants,
        "metrics": ["contains_value"],
    }
    comparison = compare.run(CompareRecipe.model_validate(recipe))
    for variant, share in comparison.estimates[comparison.headline].items():
        print(f"{variant}: {share.mean:.1%} of {share.n} answers have the value [{share.low:.1%}, {share.high:.1%}]")
    print(comparison.verdict)
    print(f"report: {comparison.report}")


if __name__ == "__main__":
    main()
