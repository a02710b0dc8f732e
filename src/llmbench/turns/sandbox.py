"""Jinja as transformers sets it up for chat templates, in its sandbox, with what grows without end refused."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from llmbench.turns.signs import CLOSE, OPEN

__all__ = ["environment"]


def environment() -> Any:
    """The environment; without a clock, since what is learned must not depend on the day."""
    import jinja2
    import jinja2.ext
    from jinja2.exceptions import SecurityError
    from jinja2.nodes import CallBlock
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

        def _said(self, caller: Any) -> str:
            text = str(caller())
            return f"{OPEN}{text}{CLOSE}" if self.environment.marking else text  # type: ignore[attr-defined]

    class Sandbox(ImmutableSandboxedEnvironment):
        marking = False
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [len(x) for x in (left, right) if hasattr(x, "__len__")]
            numbers = [abs(x) for x in (left, right) if isinstance(x, (int, float))]
            if max([*sizes, 1]) * max([*numbers, 1]) > 10**7 or (operator == "**" and max([*numbers, 1]) > 1000):
                raise SecurityError(f"a number or text too large ({operator})")
            return super().call_binop(context, operator, left, right)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime(2024, 7, 26).strftime(form)
    return made
