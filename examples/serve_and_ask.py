"""Serve the bundled model with and without a pipeline, and ask both through OpenAI's client.

python examples/serve_and_ask.py "How heavy is the Bergaba camera?"

Needs llmbench[rag], llmbench[serve] or llmbench[serve-cpu], and openai. Half a minute on two cores, most of it vLLM's start.
"""

from __future__ import annotations

import sys

from openai import OpenAI

from llmbench import assets, gateway, recipe, retrieval
from llmbench.recipe import EngineSpec, GatewaySpec, RagRecipe, ServeRecipe, Variant


def main() -> None:
    """Indexes the sample handbook, starts the endpoint, asks, and ends everything that it started."""
    question = sys.argv[1] if len(sys.argv) > 1 else "How heavy is the Bergaba camera?"
    retrieval.build(recipe.load("rag/handbook.yaml", RagRecipe))

    serving = ServeRecipe(
        variants=[Variant(name="plain"), Variant(name="grounded", rag=assets.bundled("rag/handbook.yaml"))],
        engine=EngineSpec(dtype="float32", cpu_kv_cache_gib=0.25),
        gateway=GatewaySpec(port=0),  # a free one
    )
    with gateway.running(serving) as base_url:
        client = OpenAI(base_url=base_url, api_key="none")
        for variant in serving.variants:
            reply = client.chat.completions.create(
                model=variant.name, messages=[{"role": "user", "content": question}], max_tokens=48
            )
            print(f"{variant.name}: {reply.choices[0].message.content}")
            for source in (reply.model_extra or {}).get("sources") or ():
                print(f"  [{source['n']}] {source['source']}")


if __name__ == "__main__":
    main()
