"""The process that renders chat templates: one line of settings, then lines of rows in, one line of JSON a row out.

A template is a program of whoever made the model. It runs in Jinja's sandbox, in a process that limits its own memory and
the processor time of each row, and that the parent can kill. Started by its path and free of llmbench's imports.

A row becomes one sample, or several where the template rewrites earlier turns (as those do that strip the thinking of
history): each assistant turn is learned exactly once, in the form in which the model meets it when it answers there.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import sys
import time
from datetime import datetime
from typing import Any

import orjson

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Stand around what a template marks with `{% generation %}`; Unicode says that no text holds them."""
FIRST, HIDDEN, CODED = 0x100000, 0xF0000, 0xF8000
"""Private characters: pairs around each content; control tokens in a content; control tokens of the template."""
_SIGNS = re.compile("([\ufdd0\ufdd1\U00100000-\U0010fffd])")
_PRIVATE = re.compile("[\U000f0000-\U0010ffff]")
_RUNS = re.compile("([\U000f0000-\U000f7fff])\\1*")
_SPACE = re.compile(r"\W+")

Turn = dict[str, Any]
Spans = list[list[int]]


class Refused(Exception):
    """A row that this template cannot show: a fixed phrase to count by, and the words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Limit(Exception):
    """A template that does not come to an end, or that fills the memory."""


def environment() -> Any:
    """Jinja as transformers sets it up for chat templates, without a clock: what is learned must not depend on the day."""
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


class Page:
    """A chat template and what is asked of it."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.env = environment()
        self.templates = {name: self.env.from_string(text) for name, text in setup["templates"].items()}
        self.marked = any(re.search(r"\{%-?\s*generation\s*-?%\}", text) for text in setup["templates"].values())
        self.variables: dict[str, Any] = setup["variables"]
        self.train_on: str = setup["train_on"]
        self.characters: int = setup["characters"]
        specials = sorted(setup["specials"], key=len, reverse=True)
        self.numbers = {special: i for i, special in enumerate(specials)}
        self.names = specials
        self.special = re.compile("|".join(map(re.escape, specials)) or r"(?!)")
        self.stop = re.compile("|".join(map(re.escape, sorted(setup["stops"], key=len, reverse=True))) or r"(?!)")

    def write(self, turns: list[Turn], tools: Any, *, prompt: bool = False, marks: bool = False) -> str:
        """The text of some turns."""
        name = "tool_use" if tools and "tool_use" in self.templates else "default"
        self.env.marking = marks
        text: str = self.templates[name].render(
            messages=turns, tools=tools, documents=None, add_generation_prompt=prompt, **self.variables
        )
        if len(text) > self.allowed:
            raise Limit(f"writes over {self.characters // 2**20} million characters beyond its input")
        return text

    def samples(self, row: dict[str, Any]) -> dict[str, Any]:
        """The samples of a row: text, the spans that are learned, and whose words stand where."""
        turns, tools = row["messages"], row["tools"]
        words = "\n".join([turn["content"] or "" for turn in turns])
        if tools or any(len(turn) > 2 for turn in turns):
            words = json.dumps([turns, tools], ensure_ascii=False)
        self.allowed = self.characters + 8 * len(words)
        self.private = _PRIVATE.search(words) is not None
        literal = self.special.search(words) is not None and self._in_words(turns) + self._in_words(tools)
        if literal:
            if self.private:
                raise Refused("a character that is no text", "holds characters of a private plane beside control tokens")
            turns, tools = self._hide(turns), self._hide(tools)
        found = Row(self, self._form(turns, tools), tools).samples()
        for sample in found:
            if literal:
                text = sample["text"]
                sample["coded"] = self._shown(self.special.sub(lambda m: chr(CODED + self.numbers[m[0]]) * len(m[0]), text))
                sample["text"] = self._shown(text)
        return {"samples": found, "control": bool(literal)}

    def _in_words(self, value: Any) -> int:
        """How many control tokens stand in the words of a row."""
        if isinstance(value, str):
            return len(self.special.findall(value))
        if isinstance(value, dict):
            return sum(map(self._in_words, value)) + sum(map(self._in_words, value.values()))
        return sum(map(self._in_words, value)) if isinstance(value, list) else 0

    def _hide(self, value: Any) -> Any:
        """The words with private characters in the place of control tokens, as long as those."""
        if isinstance(value, str):
            return self.special.sub(lambda m: chr(HIDDEN + self.numbers[m[0]]) * len(m[0]), value)
        if isinstance(value, dict):
            return {self._hide(key): self._hide(item) for key, item in value.items()}
        return [self._hide(item) for item in value] if isinstance(value, list) else value

    def _shown(self, text: str) -> str:
        def show(match: re.Match[str]) -> str:
            name: str = self.names[ord(match[1]) - HIDDEN]
            return name * (len(match[0]) // len(name))

        return _RUNS.sub(show, text)

    def _form(self, turns: list[Turn], tools: Any) -> list[Turn]:
        """Turns with tool calls in the form that this template takes: templates disagree on empty content and arguments."""
        import jinja2

        names = [call["function"]["name"] for turn in turns for call in turn.get("tool_calls", ())]
        if not names:
            return turns
        first: Exception | None = None
        rendered = False
        for content, as_text in ((None, False), ("", False), (None, True), ("", True)):
            form = [_called(turn, content, as_text) for turn in turns]
            try:
                text = self.write(form, tools)
            except (jinja2.TemplateError, TypeError, ValueError, AttributeError) as error:
                first = first or error
                continue
            rendered = True
            if all(name in text for name in names):
                return form
        if not rendered and first is not None:
            raise first
        raise Refused(
            "the chat template writes no tool calls", f"the chat template writes no tool calls ({names[0]}). {_OTHER}"
        )


_OTHER = "Set data.chat_template to one that does"


def _called(turn: Turn, content: str | None, as_text: bool) -> Turn:
    if "tool_calls" not in turn:
        return turn
    calls = turn["tool_calls"]
    if as_text:
        calls = [
            call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}}
            for call in calls
        ]
    return turn | {"content": turn["content"] or content, "tool_calls": calls}


class Row:
    """One conversation on a page."""

    def __init__(self, page: Page, turns: list[Turn], tools: Any) -> None:
        self.page, self.turns, self.tools = page, turns, tools
        self.prompts: dict[int, str] = {}
        self.met: dict[int, Met] = {}

    def samples(self) -> list[dict[str, Any]]:
        """The whole row, and one more for each turn that the template writes otherwise once another turn follows."""
        self.full = text = self.page.write(self.turns, self.tools)
        count = len(self.turns)
        said = [i for i, turn in enumerate(self.turns) if turn["role"] == "assistant"]
        learned = said[-1:] if self.page.train_on == "last" else said
        left = {i for i in learned if self.turns[i].get("weight") != 0}
        if self.page.train_on == "all":
            _, places = self._signs(count, text)
            return [{"text": text, "spans": [[0, len(text)]], "roles": self._roles(count, text, places), "unprompted": 0}]
        result = []
        while left:
            marks, places = self._signs(count, text)
            if self.page.marked and not marks:
                marks = self._marks(count, text)
            spans: Spans = []
            unprompted = 0
            for i in sorted(left):
                met = self._met(i)
                found = self._spans(met, text, marks) if i < count else None
                if found is not None:
                    left.remove(i)
                    spans += found
                    unprompted += not met.whole
            if spans:
                roles = self._roles(count, text, places)
                result.append({"text": text, "spans": spans, "roles": roles, "unprompted": unprompted})
            elif text == self._met(max(left)).text:
                self._untold(count, marks)
            if left:
                count, text = max(left) + 1, self._met(max(left)).text
        return result[::-1]

    def _untold(self, count: int, marks: Spans) -> None:
        if self.page.marked and not marks:
            words = "the chat template leaves no token of the assistant's to learn in this row"
            raise Refused("the chat template leaves nothing to learn", words)
        words = f"the chat template does not show where the assistant's words of turn {count} begin and end"
        raise Refused("the assistant's words cannot be told", words)

    def _prompt(self, i: int) -> str:
        """What the model is given when it is to say turn i."""
        if i not in self.prompts:
            self.prompts[i] = self.page.write(self.turns[:i], self.tools, prompt=True) if i else ""
        return self.prompts[i]

    def _met(self, i: int) -> Met:
        """Turn i as the model meets it when it says it: after its prompt, as the last turn."""
        if i not in self.met:
            last = i == len(self.turns) - 1
            through = self.full if last else self.page.write(self.turns[: i + 1], self.tools)
            prompt = self._prompt(i)
            met = Met(through, len(prompt), True) if through.startswith(prompt) else self._joined(i, prompt, through)
            stop = self.page.stop.search(met.text, met.base)
            met.end = stop.end() if stop else len(met.text)
            if not self._says(i, met.text[met.base : met.end]):
                words = f"the chat template does not write what the assistant said in turn {i + 1}. {_OTHER}"
                raise Refused("the chat template does not write an answer as it is", words)
            self.met[i] = met
        return self.met[i]

    def _joined(self, i: int, prompt: str, through: str) -> Met:
        """The prompt and the answer put together, where a template writes the turns before otherwise once they are answered.

        Both are cut behind the last words that stand before the answer; what the prompt has from there on is what opens the
        answer. Where the template opens the thinking there but writes answers without theirs, the row's own stands in.
        """
        _, in_prompt = self._signs(i, prompt, prompt=True)
        _, in_through = self._signs(i + 1, through)
        before = [k for k in in_prompt if k in in_through and k < i]
        if not before:
            self._untold(i + 1, [[0, 0]])
        cut, other = in_prompt[before[-1]][1], in_through[before[-1]][1]
        opening, answer = prompt[cut:], through[other:]
        if answer.startswith(opening):
            return Met(prompt[:cut] + answer, len(prompt), True)
        thinking = self._thinking(i)
        if thinking is not None and opening.rstrip().endswith("<think>"):
            stop = self.page.stop.search(answer, _common(opening, answer))
            return Met(prompt + thinking + (answer[stop.start() :] if stop else ""), len(prompt), True)
        return Met(prompt[:cut] + answer, cut + _common(opening, answer), False)

    def _thinking(self, i: int) -> str | None:
        """A turn as it goes on behind an opened `<think>`, or None where it has no thinking."""
        turn = self.turns[i]
        content = (turn["content"] or "").strip()
        reasoning = turn.get("reasoning_content") or turn.get("thinking")
        if reasoning:
            return f"{reasoning.strip()}\n</think>\n\n{content}"
        return content.removeprefix("<think>").lstrip("\n") if content.startswith("<think>") else None

    def _spans(self, met: Met, text: str, marks: Spans) -> Spans | None:
        """What is learned of a turn in this text; None where the text has the turn in another form."""
        if not self.page.marked:
            return [[met.base, met.end]] if text[: met.end] == met.text[: met.end] else None
        same = _common(text, met.text)
        found = [span for span in marks if span[1] > met.base and span[0] < same]
        return found if found and max(span[1] for span in found) <= same else None

    def _says(self, i: int, text: str) -> bool:
        """Whether a text holds the words of turn i; space and punctuation may be written otherwise."""
        turn = self.turns[i]
        parts = (turn["content"], turn.get("reasoning_content"), turn.get("thinking"))
        missing = [part for part in parts if part and part.strip() not in text]
        if not missing:
            return True
        squeezed = _SPACE.sub("", text)
        # `<think>` may have gone into the prompt.
        return all(_SPACE.sub("", part.strip().removeprefix("<think>")) in squeezed for part in missing)

    def _signs(self, count: int, text: str, *, prompt: bool = False) -> tuple[Spans, dict[int, list[int]]]:
        """The spans that the template marks as generated, and the place of each content; nothing where it cannot be told."""
        if self.page.private:
            return [], {}
        wrapped = [_wrapped(turn, i) for i, turn in enumerate(self.turns[:count])]
        try:
            plain, marks, places = _parted(self.page.write(wrapped, self.tools, prompt=prompt, marks=True))
        except Limit:
            raise
        except Exception:  # a template that looks into the content
            return [], {}
        return (marks, places) if plain == text else ([], {})

    def _marks(self, count: int, text: str) -> Spans:
        """The spans that the template marks, without signs around the contents."""
        plain, marks, _ = _parted(self.page.write(self.turns[:count], self.tools, marks=True))
        if plain != text:
            raise Refused("the assistant's words cannot be told", "the chat template writes another text when it is marked")
        return marks

    def _roles(self, count: int, text: str, places: dict[int, list[int]]) -> Spans:
        """[start, end, role] of the tool definitions, the tool calls and each content; later ones win."""
        spans = self._defined(count, text)
        cursor = 0
        for i, turn in enumerate(self.turns[:count]):
            role = {"user": 2, "assistant": 3, "tool": 4}.get(turn["role"], 1)
            if turn.get("tool_calls"):
                start = _common(self._prompt(i), text)
                stop = self.page.stop.search(text, start)
                spans.append([start, stop.start() if stop else len(text), 3])
            core = (turn["content"] or "").strip()
            if not core:
                continue
            start, end = places.get(i) or _found(core, text, cursor)
            if start >= 0:
                spans.append([start, end, role])
                cursor = max(cursor, end)
            elif role != 3 and _SPACE.sub("", core) not in _SPACE.sub("", text):
                words = f"the chat template does not write turn {i + 1} ({turn['role']}). Leave such turns out. {_OTHER}"
                raise Refused("the chat template leaves a turn out", words)
        return spans

    def _defined(self, count: int, text: str) -> Spans:
        """Where the tools are defined: where the text differs from that of the same turns without tools."""
        if not self.tools:
            return []
        bare = self.page.write(self.turns[:count], None)
        start = _common(bare, text)
        if bare == text:
            raise Refused("the chat template writes no tools", f"the chat template does not write the row's tools. {_OTHER}")
        end = _common(bare[start:][::-1], text[start:][::-1])
        return [[start, len(text) - end, 4]]


class Met:
    """A turn as the model meets it: the text up to its end, where the answer begins and ends, whether the prompt is whole."""

    def __init__(self, text: str, base: int, whole: bool) -> None:
        self.text, self.base, self.whole = text, base, whole
        self.end = len(text)


def _found(core: str, text: str, cursor: int) -> list[int]:
    """Where words stand, looked for from a place on, and then from the beginning."""
    start = text.find(core, cursor)
    start = start if start >= 0 else text.find(core)
    return [start, start + len(core)]


def _wrapped(turn: Turn, i: int) -> Turn:
    """A turn whose content stands between two signs, space at its ends left outside so that a trim finds it."""
    content = turn["content"]
    core = content.strip() if content else ""
    if not core or i > 30000:
        return turn
    start = content.index(core)
    first, last = chr(FIRST + 2 * i), chr(FIRST + 2 * i + 1)
    return turn | {"content": f"{content[:start]}{first}{core}{last}{content[start + len(core) :]}"}


def _parted(text: str) -> tuple[str, Spans, dict[int, list[int]]]:
    """A text without its signs, the spans of the marks, and the span of each content whose two signs are there once."""
    pieces: list[str] = []
    marks: Spans = []
    signs: dict[int, list[int]] = {}
    at = 0
    for piece in _SIGNS.split(text):
        if len(piece) == 1 and _SIGNS.match(piece):
            if piece == OPEN:
                marks.append([at, at])
            elif piece == CLOSE:
                marks[-1][1] = at
            else:
                signs.setdefault(ord(piece) - FIRST, []).append(at)
        else:
            pieces.append(piece)
            at += len(piece)
    places = {}
    for sign, where in signs.items():
        other = signs.get(sign + 1, [])
        if sign % 2 == 0 and len(where) == len(other) == 1 and where[0] <= other[0]:
            places[sign // 2] = [where[0], other[0]]
    return "".join(pieces), [span for span in marks if span[1] > span[0]], places


def _common(a: str, b: str) -> int:
    """How many characters two texts begin with together."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def answer(page: Page, row: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The samples of a row, or why there are none."""
    import jinja2

    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return page.samples(row)
    except Refused as error:
        return {"reason": error.reason, "detail": str(error)}
    except Limit as error:
        return {"limit": str(error)}
    except MemoryError:
        return {"limit": "fills the memory"}
    except RecursionError:
        return {"limit": "calls itself without end"}
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        return {"reason": "the chat template refuses it", "detail": f"the model's chat template refuses this row: {detail}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Limits itself, then answers until the input ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the parent, however that ends
    import jinja2

    setup = json.loads(sys.stdin.buffer.readline())
    seconds, memory = setup["seconds"], setup["memory"]
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def late(*_: Any) -> None:
        raise Limit(f"takes over {seconds:g} seconds for one row")

    signal.signal(signal.SIGPROF, late)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        page = Page(setup)
    except jinja2.TemplateSyntaxError as error:
        _say(_line({"limit": f"is no valid Jinja (line {error.lineno}: {error.message})"}))
        return
    _say(_line({}))
    for line in sys.stdin.buffer:
        said, since = bytearray(), time.monotonic()
        for row in json.loads(line):
            said += _line(answer(page, row, seconds))
            if len(said) > 2**16 or time.monotonic() - since > 1:
                _say(said)
                said, since = bytearray(), time.monotonic()
        _say(said)


def _line(value: dict[str, Any]) -> bytes:
    """An answer as a line; the fast writer refuses half characters and whole numbers beyond 64 bits."""
    try:
        return orjson.dumps(value) + b"\n"
    except TypeError:
        pass
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def _say(lines: bytes | bytearray) -> None:
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
