"""One conversation on a template's page: its samples, each with what is learned of it."""

from __future__ import annotations

import re
from typing import Any

from llmbench.turns import calls
from llmbench.turns.refusal import OTHER, Limit, Refused
from llmbench.turns.said import Met, check, reasoning, thought
from llmbench.turns.signs import NEXT, Spans, Turn, common, found, parted, wrapped
from llmbench.turns.writing import Writing

__all__ = ["Row"]

_SPACE = re.compile(r"\W+")
_ANCHOR = 60
"""Characters of an answer by whose end it is found again once another turn follows."""


class Row:
    """One conversation on a page."""

    def __init__(self, page: Writing, turns: list[Turn], tools: Any) -> None:
        self.page, self.turns, self.tools = page, turns, tools
        self.prompts: dict[int, str] = {}
        self.met: dict[int, Met] = {}

    def samples(self) -> list[dict[str, Any]]:
        """The whole row, and one more for each turn that the template writes otherwise once another turn follows.

        Raises:
            Refused: the template does not write the row as it is.
        """
        self.full = text = self.page.write(self.turns, self.tools)
        count = len(self.turns)
        said = [i for i, turn in enumerate(self.turns) if turn["role"] == "assistant"]
        for i in said:
            if self.turns[i].get("tool_calls"):
                self._met(i)
        learned = said[-1:] if self.page.train_on == "last" else said
        left = {i for i in learned if self.turns[i].get("weight") != 0}
        if self.page.train_on == "all":
            return [self._whole(text, said)]
        if not left:
            raise Refused("nothing to train", "every turn of this row is excluded from training (weight: 0 or train: false)")
        for i in sorted(left):
            met = self._met(i)
            if i == count - 1 and met.next and met.text.startswith(text):
                text = met.text
        result = []
        while left:
            marks, places = self._signs(count, text)
            if self.page.marked and not marks:
                marks = self._marks(count, text)
            sample = {"text": text, "spans": [], "ends": [], "turns": [], "unprompted": 0, "unstopped": 0, "open": 0}
            for i in sorted(left):
                met = self._met(i)
                spans = self._spans(met, text, marks) if i < count else None
                if spans is not None:
                    left.remove(i)
                    _learn(sample, met, spans)
            if sample["spans"]:
                result.append(sample | {"roles": self._roles(count, text, places)})
            elif text == self._met(max(left)).text:
                self._untold(count, marks)
            if left:
                count, text = max(left) + 1, self._met(max(left)).text
        return result[::-1]

    def _whole(self, text: str, said: list[int]) -> dict[str, Any]:
        """The row as one sample that is learned from its first token to its last."""
        _, places = self._signs(len(self.turns), text)
        ends = []
        for i in said:
            try:
                met = self._met(i)
            except Refused as error:
                if error.reason != UNTOLD:
                    raise
                continue  # where all is learned, it matters little where an answer begins
            ends += [met.end] if met.closed and text[: met.end] == met.text[: met.end] else []
        roles = self._roles(len(self.turns), text, places)
        spans = [[0, len(text)]]
        return {"text": text, "spans": spans, "ends": ends, "turns": [], "roles": roles, "unprompted": 0, "unstopped": 0}

    def _untold(self, count: int, marks: Spans) -> None:
        if self.page.marked and not marks:
            words = "the chat template renders no assistant token to train in this row"
            raise Refused("the chat template renders nothing to train", words)
        words = f"cannot tell where the assistant's text begins and ends in turn {count} of the rendered conversation"
        raise Refused(UNTOLD, words)

    def _prompt(self, i: int) -> str:
        """What the model is given when it is to say turn i."""
        if i not in self.prompts:
            # Before a first turn of the assistant there is nothing but its opening, which many templates write of no turns.
            write = self.page.write if i else self.page.tried
            self.prompts[i] = write(self.turns[:i], self.tools, prompt=True)
            if not i and not self.full.startswith(self.prompts[i]):
                self.prompts[i] = ""
        return self.prompts[i]

    def _met(self, i: int) -> Met:
        """Turn i as the model meets it when it says it: after its prompt, as the last turn."""
        if i not in self.met:
            last = i == len(self.turns) - 1
            through = self.full if last else self.page.write(self.turns[: i + 1], self.tools)
            prompt = self._prompt(i)
            met = Met(through, len(prompt), True) if through.startswith(prompt) else self._joined(i, prompt, through)
            core = (self.turns[i]["content"] or "").strip()
            place = None
            if core and met.text.count(core, met.base) != 1 and met.text is through:
                place = self._signs(i + 1, through)[1].get(i)
            check(self.page, self.turns[i], i, met, place)
            self._close(i, met)
            self.met[i] = met
        return self.met[i]

    def _close(self, i: int, met: Met) -> None:
        """Finds the token that closes the turn.

        It is among those behind the last word the last that is also there when another turn follows: `<|im_end|>` behind
        `<|tool_call_end|>`, and `<|end|>` before an end of text that is put behind the last turn only. One at which the model
        stops by itself comes first, also where it opens the next turn (GLM stops at `<|user|>`). Where nothing stays the
        same (a template that closes the last turn with a token of its own) it is the model's stop token, or else the last.
        """
        tail = met.text[met.words :]
        key = (bool(self.turns[i].get("tool_calls")), tail)
        if key not in self.page.endings:
            self.page.endings[key] = self._ending(i, met, tail)
        found = self.page.endings[key]
        if found is None:
            return
        end, met.next = found
        met.closed, met.end = True, met.words + end
        if met.next:
            self.page.nexts.add(met.next)
            met.text = met.text[: met.end] + met.next
            met.end = len(met.text)

    def _ending(self, i: int, met: Met, tail: str) -> tuple[int, str] | None:
        """Where in the tail the turn ends, and the token of the next turn that ends it; None where nothing does."""
        stops, followed = self.page.stops, self._followed(i)
        tokens = list(self.page.token.finditer(tail))
        shared = [token for token in tokens if tail[: token.end()] in followed]
        stop = next((token for token in shared if token[0] in stops), None)
        if stop is None:
            answer = met.text[max(met.base, met.words - _ANCHOR) :]
            _, here, behind = followed.rpartition(answer)
            opens = self.page.token.match(behind) if here else None
            if opens is not None and opens[0] in stops:
                return len(tail), opens[0]
            stop = shared[-1] if shared else next((token for token in tokens if token[0] in stops), None)
        if stop is None and tokens:
            stop = tokens[-1]
        if stop is not None:
            return stop.end(), ""
        closing = self._closing(i, met)
        return (len(tail), closing) if closing else None

    def _closing(self, i: int, met: Met) -> str:
        """What closes the turn where the template writes that only once another turn follows: what is then between its last
        word and the opening that a first turn has as well."""
        another = {"role": "user", "content": NEXT}
        following = self.page.tried([*self.turns[: i + 1], another], self.tools).partition(NEXT)[0]
        behind = following.rpartition(met.text[max(met.base, met.words - _ANCHOR) :])[2]
        opening = self.page.tried([another], None).partition(NEXT)[0]
        if not opening or behind == following:
            return ""
        until = len(behind) - common(behind[::-1], opening[::-1])
        closers = [token.end() for token in self.page.token.finditer(behind) if token.start() < until]
        return behind[: closers[-1]] if closers else ""

    def _followed(self, i: int) -> str:
        """Turn i as it is written once another turn follows, up to the words of that; nothing where none may."""
        turn = self.turns[i]
        following: list[Turn] = [{"role": "user", "content": NEXT}]
        for call in turn.get("tool_calls", ())[:1]:
            result = {"role": "tool", "content": NEXT, "name": call["function"]["name"]}
            following.insert(0, result | ({"tool_call_id": call["id"]} if "id" in call else {}))
        for another in following:
            if text := self.page.tried([*self.turns[: i + 1], another], self.tools):
                return text[common(self._prompt(i), text) :].partition(NEXT)[0]
        return ""

    def _joined(self, i: int, prompt: str, through: str) -> Met:
        """The prompt and the answer put together, where a template writes the turns before otherwise once they are answered.

        Both are cut behind the last words before the answer; what the prompt has from there on is what opens the answer.
        Where the template opens the thinking there but writes answers without theirs, the row's own is put in.
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
        thinking = thought(self.turns[i])
        if thinking is not None and opening.rstrip().endswith("<think>"):
            rest = answer[common(opening, answer) :].lstrip()
            return Met(f"{prompt}{thinking}\n</think>\n\n{rest}", len(prompt), True)
        text, base = prompt[:cut] + answer, cut + common(opening, answer)
        inside = (token.start() for token in self.page.token.finditer(text, cut) if token.start() < base < token.end())
        return Met(text, next(inside, base), False)

    def _spans(self, met: Met, text: str, marks: Spans) -> Spans | None:
        """What is learned of a turn in this text; None where the text has the turn in another form."""
        if not self.page.marked:
            return [[met.base, met.end]] if text[: met.end] == met.text[: met.end] else None
        same = common(text, met.text)
        inside = [span for span in marks if span[1] > met.base and span[0] < same]
        if not inside or max(span[1] for span in inside) > same or same < met.words:
            return None
        clipped = [[start, min(end, met.end)] for start, end in inside]
        if met.next and max(end for _, end in clipped) == met.end - len(met.next):
            clipped.append([met.end - len(met.next), met.end])
        return [span for span in clipped if span[0] < span[1]] or None

    def _signs(self, count: int, text: str, *, prompt: bool = False) -> tuple[Spans, dict[int, list[int]]]:
        """The spans that the template marks as generated, and the place of each content; nothing where it cannot be told."""
        if self.page.private:
            return [], {}
        signed = [wrapped(turn, i) for i, turn in enumerate(self.turns[:count])]
        try:
            plain, marks, places = parted(self.page.write(signed, self.tools, prompt=prompt, marks=True))
        except Limit:
            raise
        except Exception:  # a template that looks into the content
            return [], {}
        return (marks, places) if self._same(plain, text) else ([], {})

    def _same(self, plain: str, text: str) -> bool:
        """Whether two texts are the same but for a token of the next turn that was put to the end of the second."""
        return text.startswith(plain) and (len(text) == len(plain) or text[len(plain) :] in self.page.nexts)

    def _marks(self, count: int, text: str) -> Spans:
        """The spans that the template marks, without signs around the contents."""
        plain, marks, _ = parted(self.page.write(self.turns[:count], self.tools, marks=True))
        if not self._same(plain, text):
            raise Refused(UNTOLD, "the chat template renders differently when marked")
        return marks

    def _roles(self, count: int, text: str, places: dict[int, list[int]]) -> Spans:
        """[start, end, role] of the tool definitions, the tool calls and each content; later ones win."""
        spans = self._defined(count, text)
        cursor = 0
        for i, turn in enumerate(self.turns[:count]):
            role = {"user": 2, "assistant": 3, "tool": 4}.get(turn["role"], 1)
            if turn.get("tool_calls"):
                met, start = self._met(i), common(self._prompt(i), text)
                end: Any = met.words if text[: met.words] == met.text[: met.words] else None
                if end is None:
                    where = calls.written(turn["tool_calls"], text[start:])
                    end = start + where if isinstance(where, int) else start
                spans.append([start, end, 3])
            core = (turn["content"] or "").strip()
            if not core:
                continue
            start, end = places.get(i) or found(core, text, cursor)
            if start >= 0:
                spans.append([start, end, role])
                cursor = max(cursor, end)
            elif role != 3 and _SPACE.sub("", core) not in _SPACE.sub("", text):
                words = f"the chat template does not render turn {i + 1} ({turn['role']}). Leave such turns out. {OTHER}"
                raise Refused("the chat template omits a turn", words)
            if reasoned := reasoning(turn):
                start, end = found(reasoned, text, 0)
                spans += [[start, end, role]] if start >= 0 and role == 3 else []
        return spans

    def _defined(self, count: int, text: str) -> Spans:
        """Where the tools are defined: where the text differs from that of the same turns without tools."""
        if not self.tools:
            return []
        bare = self.page.write(self.turns[:count], None)
        start = common(bare, text)
        if bare == text:
            raise Refused("the chat template renders no tools", f"the chat template does not render the row's tools. {OTHER}")
        end = common(bare[start:][::-1], text[start:][::-1])
        return [[start, len(text) - end, 4]]


UNTOLD = "the assistant's text cannot be found"


def _learn(sample: dict[str, Any], met: Met, spans: Spans) -> None:
    """Puts a turn among what is learned of a sample."""
    sample["spans"] += spans
    sample["turns"].append([met.base, met.end])
    sample["open"] += not met.closed
    sample["unprompted"] += not met.whole
    if met.closed and spans and max(end for _, end in spans) >= met.end:
        sample["ends"].append(met.end)
    else:
        sample["unstopped"] += 1
