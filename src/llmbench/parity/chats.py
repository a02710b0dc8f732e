"""The conversations that models are probed with. They are no training's own, so that a certificate holds nobody's data."""

from __future__ import annotations

__all__ = ["CHATS", "GREEDY_EVERY", "GREEDY_TOKENS"]

GREEDY_TOKENS = 8
"""How many tokens a model writes after a probe,"""
GREEDY_EVERY = 6
"""and after which of the probes: the first of so many."""

_ASKED = (
    "Hello!",
    "What is the capital of France?",
    "Write a haiku about rain.",
    "List three primary colours, separated by commas.",
    "Translate into German: The train leaves at seven in the morning.",
    "What is 17 times 23? Show each step.",
    "def fibonacci(n):\n    # complete this function\n",
    "Summarise in one sentence: Copper conducts electricity well, does not rust, and is costly.",
    'Answer in JSON: {"name": "kettle", "weight_grams": ?}',
    "  Two spaces before, a tab\tinside, and a new line\nat the end.\n",
    "Prices: 1,299.00 EUR, $45, £7.50, 12 %; dates: 2024-02-29, 03/04/25.",
    "Was kostet ein Brötchen in Zürich? Übrigens: äöüß.",
    "東京の天気はどうですか。",
    "Сколько дней в високосном году?",
    "ما هي عاصمة مصر؟",
    "Say 👍🏽 if you can read emoji 🚀.",
    "SELECT name, COUNT(*) FROM orders WHERE total > 100 GROUP BY name;",
    "Which of these is not a fruit: apple, carrot, pear, plum?",
)
_TALKS = (
    (("user", "My name is Ada."), ("assistant", "Nice to meet you, Ada."), ("user", "What is my name?")),
    (("user", "Give me a number."), ("assistant", "7"), ("user", "Double it."), ("assistant", "14"), ("user", "Again.")),
    (("user", "Is the shop open on Sunday?"), ("assistant", "The text does not say."), ("user", "And on Monday?")),
)
_INSTRUCTED = (
    (("system", "Answer in one word."), ("user", "Is water wet?")),
    (("system", "You are a patient teacher.\nUse short sentences."), ("user", "Why is the sky blue?")),
    (
        ("system", "Reply only with valid JSON."),
        ("user", "Name a river."),
        ("assistant", '{"river": "Rhine"}'),
        ("user", "Another."),
    ),
)

CHATS: tuple[tuple[dict[str, str], ...], ...] = tuple(
    tuple({"role": role, "content": content} for role, content in talk)
    for talk in (*((("user", asked),) for asked in _ASKED), *_TALKS, *_INSTRUCTED)
)
"""24 conversations that end with a user's turn: single questions in several scripts, code, numbers and odd white space, whose
tokens tell tokenizers apart; several turns and system prompts, which tell templates apart."""
