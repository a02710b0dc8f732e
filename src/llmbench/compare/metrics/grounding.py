"""Whether an answer tells what the documents tell, and cites where. Each docstring is the definition that the report prints.

Every function is pure, takes a question, an answer and the pattern of an abstention, and returns a number, or None where
the metric does not apply to that question.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from llmbench import scoring
from llmbench.compare.answers import Answer
from llmbench.questions import Question

__all__ = [
    "ALL", "Grounding", "abstains", "abstention", "citation", "contains_value", "exact_match", "grounded", "of_source",
    "same_page", "squad_em", "squad_f1", "value_retrieved", "without_citations",
]  # fmt: skip


def grounded(question: Question, answer: Answer, pattern: str) -> float | None:
    """The whole job done right: the right value with a right citation, and no abstention beside it.

    A question that the documents do not answer is done right by abstaining. Not measured for answerable questions of
    which the value or the source page is not known.
    """
    if not question.answerable:
        return float(abstains(answer, pattern))
    value, cited = contains_value(question, answer, pattern), citation(question, answer, pattern)
    if value is None or cited is None:
        return None
    return float(value == 1 and cited == 1 and not abstains(answer, pattern))


def contains_value(question: Question, answer: Answer, pattern: str) -> float | None:
    """The answer holds the right value as words of their own ("12" is not in "120" or "1.12"), whatever the case.

    Where several wordings of the value are right, one of them is enough. Listing does not count: where the value holds a
    number, the answer may name no other number but those of the question and of the expected answer. Citations are no
    numbers. Answerable questions only.
    """
    if not question.answerable or question.value is None:
        return None
    known, text = f"{question.question} {question.answer or ''}", without_citations(answer.text)
    return float(any(scoring.holds_value(text, value, known) for value in question.wordings))


def value_retrieved(question: Question, answer: Answer, pattern: str) -> float | None:
    """A passage that the model was given holds the right value as words of its own, whatever the model made of it.

    It tells what retrieval lost from what the model did not read. Answers that were given passages, and answerable
    questions with a known value only.
    """
    if not question.answerable or question.value is None or not answer.sources:
        return None
    texts = [str(passage.get("text", "")) for passage in answer.sources]
    return float(any(map(question.told_by, texts)))


def citation(question: Question, answer: Answer, pattern: str) -> float | None:
    """The answer cites at least one passage as [n], and every passage it cites exists and is from the right page.

    Where several pages tell the answer, each of them is right.
    An answer that was given no passages can cite nothing right. Answerable questions with a known source page only.
    """
    if not question.answerable or not question.sources:
        return None
    pages = {str(passage["n"]): str(passage["source"]) for passage in answer.sources if passage.keys() >= {"n", "source"}}
    cited = set(map(str, scoring.cited(answer.text)))
    return float(bool(cited) and all(n in pages and of_source(pages[n], question) for n in cited))


def abstention(question: Question, answer: Answer, pattern: str) -> float | None:
    """The answer abstains where the documents tell nothing, and does not abstain where they tell. All questions.

    An answer abstains when it matches the recipe's `abstention` pattern. An empty answer is never right.
    """
    return float(bool(answer.text.strip()) and abstains(answer, pattern) != question.answerable)


def exact_match(question: Question, answer: Answer, pattern: str) -> float | None:
    """The answer is the expected sentence, apart from case, spaces, final punctuation and citations.

    Where the documents tell nothing, abstaining in any words is right and everything else is wrong.
    """
    if not question.answerable:
        return float(abstains(answer, pattern))
    if question.answer is None:
        return None
    return float(scoring.same_sentence(without_citations(answer.text), without_citations(question.answer)))


def squad_em(question: Question, answer: Answer, pattern: str) -> float | None:
    """The answer is one of the value's wordings and nothing else, compared as SQuAD does: without case, punctuation, articles.

    Citations are left out. Where the documents tell nothing, abstaining is right and everything else is wrong.
    """
    if not question.answerable:
        return float(abstains(answer, pattern))
    if question.value is None:
        return None
    found = scoring.span_tokens(without_citations(answer.text))
    return float(any(found == scoring.span_tokens(value) for value in question.wordings))


def squad_f1(question: Question, answer: Answer, pattern: str) -> float | None:
    """The words that the answer shares with the value: harmonic mean of precision and recall, the best of the value's wordings.

    Compared as SQuAD does it: without case, punctuation, articles. It falls with every word around the value, so it suits
    models that answer in a few words. Citations are left out. Where the documents tell nothing, abstaining counts 1,
    everything else 0.
    """
    if not question.answerable:
        return float(abstains(answer, pattern))
    if question.value is None:
        return None
    text = without_citations(answer.text)
    return max(scoring.token_f1(text, value) for value in question.wordings)


Grounding = Callable[[Question, Answer, str], float | None]

ALL: tuple[Grounding, ...] = (
    grounded, contains_value, value_retrieved, citation, abstention, exact_match, squad_em, squad_f1,
)  # fmt: skip


def abstains(answer: Answer, pattern: str) -> bool:
    """Whether the answer says that it has no answer."""
    return scoring.abstains(answer.text, pattern)


def without_citations(text: str) -> str:
    """An answer's words alone."""
    return scoring.CITATION.sub(" ", text)


def of_source(page: str, question: Question) -> bool:
    """Whether a page is one of those that tell the answer to a question."""
    return any(same_page(page, source) for source in question.sources)


def same_page(one: str, other: str) -> bool:
    """Whether two paths name the same page: one may start further down, as `shops/a.md` does in `rag/handbook/shops/a.md`."""
    a, b = PurePosixPath(one).parts, PurePosixPath(other).parts
    short = min(len(a), len(b))
    return short > 0 and a[-short:] == b[-short:]
