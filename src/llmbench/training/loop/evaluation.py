"""What a training is measured by while it runs: the held-out loss, and the answers to questions.

An evaluation leaves the training as it was: with and without it the weights are the same, bit by bit.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from llmbench import scoring
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import EvaluationSpec, TrainRecipe
from llmbench.runs import Run
from llmbench.runs.best import goal
from llmbench.training.distributed import sharding
from llmbench.training.distributed.ranks import current
from llmbench.training.loop.questions import ExamQuestion
from llmbench.training.loop.random_state import undisturbed

__all__ = ["Exam", "Measured", "score"]


@dataclass(frozen=True)
class Exam:
    """The questions of a recipe, and where the answers are kept."""

    spec: EvaluationSpec
    questions: Sequence[ExamQuestion]
    tokenizer: Any
    batch_size: int
    run: Run

    def take(self, model: Any, step: int) -> dict[str, float]:
        """Has the model answer every question, keeps some of the answers, and returns the mean of each metric."""
        answers = self._dealt(model)
        scores = [score(self.spec, question, text) for question, text in zip(self.questions, answers, strict=True)]
        every = max(len(answers) // max(self.spec.samples_shown, 1), 1)
        shown = range(0, every * self.spec.samples_shown, every)
        self.run.log_samples(
            {
                "step": step,
                "place": self.questions[i].place,
                "prompt": self.questions[i].text,
                "expected": self.questions[i].answer,
                "answer": answers[i],
                "scores": scores[i],
            }
            for i in shown
            if i < len(answers)
        )
        means: dict[str, float] = {}
        for name in self.spec.metrics:
            values = [value for row in scores if (value := row[name]) is not None]
            if values:
                means[name] = sum(values) / len(values)
        return means

    def _dealt(self, model: Any) -> list[str]:
        """An answer to each question: each process answers its share. A model in parts takes all processes for each answer."""
        here = current()
        if here.alone or sharding.in_parts(model):
            return list(self._answers(model, self.questions))
        shares = here.gather(list(self._answers(model, self.questions[here.rank :: here.world])))
        return [shares[i % here.world][i // here.world] for i in range(len(self.questions))]

    def _answers(self, model: Any, questions: Sequence[ExamQuestion]) -> Iterator[str]:
        """One greedy answer to each question, in order. Prompts are padded on the left, as generation wants it."""
        stops = model.generation_config.eos_token_id  # with the tokens that end the learned turns
        stops = {*(stops if isinstance(stops, list) else [stops]), self.tokenizer.eos_token_id} - {None}
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=self.spec.max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            use_cache=True,
            eos_token_id=sorted(stops) or None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        for start in range(0, len(questions), self.batch_size):
            prompts = [question.ids for question in questions[start : start + self.batch_size]]
            longest = max(map(len, prompts))
            ids = torch.tensor([[self.tokenizer.pad_token_id] * (longest - len(row)) + row for row in prompts])
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
            device = model.device
            out = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
            yield from (text.strip() for text in self.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True))


def score(spec: EvaluationSpec, question: ExamQuestion, text: str) -> dict[str, float | None]:
    """The metrics of one answer, 0 or 1 each; None where one does not apply to the question."""
    found: dict[str, float | None] = {}
    for name in spec.metrics:
        match name:
            case "exact_match":
                found[name] = None if question.answer is None else float(scoring.same_sentence(text, question.answer))
            case "contains":
                known = f"{question.text} {question.answer or ''}"
                held = any(scoring.holds_value(text, value, known) for value in question.values)
                found[name] = float(held) if question.values else None
            case "regex":
                found[name] = _by_regex(str(spec.regex), text, question.answer)
    return found


def _by_regex(pattern: str, text: str, expected: str | None) -> float | None:
    """Whether the pattern is found; with a group, whether its last find is that of the expected answer."""
    compiled = re.compile(pattern)
    if compiled.groups == 0:
        return float(compiled.search(text) is not None)
    wanted = [found.group(1) for found in compiled.finditer(expected or "")]
    given = [found.group(1) for found in compiled.finditer(text)]
    if not wanted:
        return None
    return float(bool(given) and scoring.plain(given[-1] or "") == scoring.plain(wanted[-1] or ""))


class Measured:
    """Stands before one of TRL's trainers: evaluates without a trace, chooses the best step, and knows when to stop."""

    recipe: TrainRecipe
    exam: Exam | None = None
    paused: float
    args: Any
    state: Any
    control: Any
    model: Any
    eval_dataset: Any

    def measure(self) -> dict[str, float]:
        """The whole evaluation: held-out loss, perplexity, and the answers to the recipe's questions.

        Raises:
            LlmbenchError: the held-out loss is not finite.
        """
        metrics: dict[str, float] = {}
        with undisturbed(self.model):
            if self.eval_dataset is not None:
                metrics = self.evaluate()  # type: ignore[attr-defined]
                loss = metrics.get("eval_loss", 0.0)
                if not math.isfinite(loss):
                    raise LlmbenchError(
                        f"The held-out loss is {loss} at step {self.state.global_step}: the training has diverged."
                    )
            if self.exam is not None:
                metrics = metrics | self._answered(self.exam)
        return metrics

    def _answered(self, exam: Exam) -> dict[str, float]:
        start = time.perf_counter()
        self.model.eval()
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), self.compute_loss_context_manager():  # type: ignore[attr-defined]
            scores = exam.take(self.model, self.state.global_step)
        found = {f"eval_{name}": value for name, value in scores.items()}
        self.log(dict(found))  # type: ignore[attr-defined]
        self.paused += time.perf_counter() - start
        return found

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """What transformers' loop calls at an evaluation step."""
        self.control.should_evaluate = False  # at the end of an epoch the loop looks again
        return self.measure()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Called after each evaluation of the loop: saves a new best, and ends a training that gains no more.

        Raises:
            RecipeError: the metric that the recipe names is not measured.
        """
        judged = goal(self.recipe.training)
        if judged is None:
            return False
        if judged.metric not in metrics:
            known = ", ".join(sorted(name.removeprefix("eval_") for name in metrics))
            raise RecipeError(
                f"training.metric_for_best_model: {judged.metric.removeprefix('eval_')} is not measured (available: {known})."
            )
        best = judged.best(self.state.log_history)
        found = best is not None and best[0] == self.state.global_step
        if found and self.recipe.training.load_best_model_at_end:
            self.control.should_save = True
        if judged.exhausted(self.state.log_history):
            self.control.should_save = self.control.should_training_stop = True
        return found
