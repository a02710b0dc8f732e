"""Chat with a variant of a running endpoint: every line typed is a question, and the answer appears as it is written.

llmbench serve recipes/serve.yaml                 (in another terminal)
python examples/stream_chat.py adapter-rag

Any OpenAI-compatible server will do; a key is read from OPENAI_API_KEY. An empty line or Ctrl-D ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from llmbench.endpoint import HttpEndpoint, Message


async def chat(url: str, variant: str) -> None:
    """Sends each line with the conversation so far, and prints the answer piece by piece, then its sources."""
    said: list[Message] = []
    async with HttpEndpoint(url, api_key=os.environ.get("OPENAI_API_KEY")) as endpoint:
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            said.append({"role": "user", "content": line})
            async for delta in endpoint.stream(said, variant, max_tokens=200):
                print(delta.text, end="", flush=True)
                if delta.reply is not None:  # the last piece, with the whole answer
                    said.append({"role": "assistant", "content": delta.reply.text})
                    print("".join(f"\n  [{source['n']}] {source['source']}" for source in delta.reply.sources))


def main() -> None:
    """Reads the arguments and chats until the input ends."""
    parser = argparse.ArgumentParser(description="Chat with a variant; answers are streamed.")
    parser.add_argument("variant", help="as GET /v1/models lists it")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    given = parser.parse_args()
    asyncio.run(chat(given.url, given.variant))


if __name__ == "__main__":
    main()
