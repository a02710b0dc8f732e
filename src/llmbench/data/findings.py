"""What a data report means for the user: notes, each with what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbench.data.report import DataReport, Level, Note, Part

if TYPE_CHECKING:
    from llmbench.recipe import TrainRecipe

__all__ = ["notes"]

_MANY = 0.01
"""Share of rows from which duplicates are worth a warning."""
_PADDED = 0.3


def notes(report: DataReport, recipe: TrainRecipe, refused: str | None) -> list[Note]:
    """Everything worth saying about a report, in the order of its sections."""
    # Rows that are longer than permitted are worded from the figures, with both numbers that would do.
    worded = refused and refused.startswith("data.max_length:") and recipe.data.over_length not in ("drop", "truncate")
    found = [Note("refused", *_split(refused))] if refused and not worded else []
    for name, part in (("train", report.train), ("eval", report.eval)):
        if part is not None:
            found += _of_part(name, part, answered=recipe.method != "grpo")
    found += _ends(report.train, recipe)
    found += _length(report, recipe)
    found += _twice(report, recipe)
    found += _private(report)
    return found


def _split(refused: str) -> tuple[str, str]:
    """`data.max_length: 3 rows ...` -> where, text."""
    where, colon, text = refused.partition(": ")
    return (where, text) if colon and " " not in where else ("data", refused)


def _of_part(name: str, part: Part, *, answered: bool) -> list[Note]:
    """`answered`: whether rows hold the answers that are learned; those of grpo are the model's own."""
    where, found = f"data.{name}", []
    if part.untrained_rows and answered:
        text = f"{_rows(part.untrained_rows)} without trainable tokens ({', '.join(part.untrained_places)})"
        found.append(Note("refused", where, text, "Remove them, or find out why the chat template renders no assistant text."))
    if part.double_bos:
        text = f"{_rows(part.double_bos)} with a doubled BOS token, which serving engines never send"
        found.append(Note("error", where, text, "Remove the token from the texts, or from the chat template."))
    if part.unknown:
        share = part.unknown / part.tokens
        text = f"{_percent(share)} of the tokens are unknown: the tokenizer cannot encode this text"
        found.append(
            Note("warning" if share >= _MANY else "note", where, text, "Choose a model whose tokenizer covers this language.")
        )
    open_turns = part.turns - part.turns_ended
    if open_turns:
        level: Level = "error" if open_turns == part.turns else "warning"
        text = f"{open_turns:,} of {part.turns:,} answers have no trained end of turn: the model may not stop"
        found.append(
            Note(
                level,
                where,
                text,
                "Check the last trained token in the preview, and correct the chat template's generation markers.",
            )
        )
    if part.cut_turns:
        text = f"{part.cut_turns:,} answers are cut by max_length, so the model learns to stop mid-sentence"
        found.append(Note("warning", "data.max_length", text, f"Raise it to {part.lengths.longest}, or over_length: drop."))
    if part.unprompted:
        text = f"{part.unprompted:,} answers are trained without the end of the generation prompt, such as an opened <think>"
        found.append(
            Note("warning", where, text, "A served model starts after it: set data.chat_template_kwargs as you will serve it.")
        )
    if part.merged:
        text = f"{part.merged:,} answers begin inside a token of the prompt, so their first characters are not trained"
        found.append(
            Note("warning", where, text, "Does the prompt's text, or the chat template's before answers, end in a space?")
        )
    if part.control:
        text = f"{_rows(part.control)} spell out control tokens in their text; they are trained as plain text"
        found.append(Note("note", where, text))
    if part.split:
        text = f"{_rows(part.split)} became several samples: one for each answer, or one for each piece of a long text"
        found.append(Note("note", where, text))
    found += [Note("note", where, remark) for remark in part.remarks]
    for skip in part.skipped:
        if "max_length" in skip.reason:
            continue  # the note on max_length tells of them
        text = f"{_rows(skip.rows)} not used: {skip.reason} ({_places(skip.places, skip.rows)})"
        found.append(Note("warning", where, text))
    return found


def _ends(part: Part, recipe: TrainRecipe) -> list[Note]:
    """A learned end of turn at which the model does not stop, and added tokens that nothing teaches."""
    found = []
    if part.unstoppable and recipe.method != "reward":
        ends, stops = " and ".join(part.unstoppable), " and ".join(part.stops)
        text = f"answers end with {ends}, which is not one of the model's stop tokens ({stops or 'it has none'})"
        next_ = "It is added to the saved model: eos_token_id in generation_config.json and config.json."
        if recipe.adapts:
            next_ = (
                "llmbench serve and merge handle this; for another server set stop_token_ids (see the adapter's llmbench.json)."
            )
        found.append(Note("warning", "data.chat_template", text, next_))
    if part.unused:
        text = f"no training row contains {', '.join(part.unused[:5])}{', ...' if len(part.unused) > 5 else ''}"
        every = recipe.tokenizer is not None and len(part.unused) == len(recipe.tokenizer.add_tokens)
        next_ = "Its embedding would not be trained: remove it, or add rows that use it."
        found.append(Note("error" if every else "warning", "tokenizer.add_tokens", text, next_))
    return found


def _length(report: DataReport, recipe: TrainRecipe) -> list[Note]:
    found = []
    for name, part in (("train", report.train), ("eval", report.eval)):
        if part is None or not part.limit.rows_over or (name == "eval" and not recipe.data.eval):
            continue
        limit = part.limit
        text = f"{_rows(limit.rows_over)} of {name} ({_percent(limit.rows_over_share)}) longer than {limit.max_length:,} tokens"
        fits = f"{limit.fits_all} fits all rows" + (f", {limit.fits_999} 99.9 %" if limit.fits_999 < limit.fits_all else "")
        if limit.over_length in ("drop", "truncate"):
            drop = limit.over_length == "drop"
            lost = limit.tokens_lost_by_drop_share if drop else limit.tokens_lost_by_truncate_share
            text += f": over_length: {limit.over_length} costs {_percent(lost)} of the tokens"
            found.append(Note("warning" if lost > _MANY else "note", "data.max_length", text, f"{fits}."))
        elif limit.over_length == "error":
            next_ = f"Set data.max_length ({fits}), or data.over_length to drop or truncate."
            found.append(Note("refused", "data.max_length", text, next_))
    part = report.train
    pads = recipe.method in ("sft", "pretrain") and not recipe.end_to_end  # the other methods count rows
    if part.padding.share > _PADDED and pads and recipe.training.max_tokens_per_batch is None:
        text = f"{_percent(part.padding.share)} of a batch is padding at {part.padding.batch}"
        next_ = "Set training.max_tokens_per_batch, which batches rows of similar length and avoids most of it."
        found.append(Note("note", "training.per_device_train_batch_size", text, next_))
    return found


def _twice(report: DataReport, recipe: TrainRecipe) -> list[Note]:
    d, found = report.duplicates, []
    how = "Hold out other rows, or remove these from the training rows." if recipe.data.eval else (
        "Remove duplicates before eval_fraction draws, or name a separate file in data.eval."
    )  # fmt: skip
    if d.contaminated_exact:
        count = d.contaminated_exact
        text = f"{_rows(count)} of train {_are(count)} held out as well: they leak into the held-out loss"
        found.append(Note("error", "data.eval", text, how))
    if d.contaminated_near:
        text = f"{_rows(d.contaminated_near)} of train {_are(d.contaminated_near)} nearly the same as a held-out row"
        found.append(Note("warning", "data.eval", text, how))
    if d.contaminated_prompts:
        text = f"{_rows(d.contaminated_prompts)} of train with the prompt of a held-out row and another answer"
        found.append(Note("warning", "data.eval", text, how))
    for count, what in ((d.exact_rows, "the same as an earlier row"), (d.near_rows, "nearly the same as an earlier row")):
        if count:
            share = count / report.train.rows
            text = f"{_rows(count)} ({_percent(share)}) {_are(count)} {what}"
            next_ = "Duplicates count twice in the loss; remove unintended ones."
            found.append(Note("warning" if share >= _MANY else "note", "data.train", text, next_))
    return found


def _private(report: DataReport) -> list[Note]:
    found = []
    for one in report.secrets:
        text = f"{one.found:,} {one.kind}{'' if one.found == 1 else _plural(one.kind)} in {_rows(one.rows)}"
        text += f" ({_places([place for place, _ in one.examples], one.found)})"
        next_ = (
            "Revoke it and remove it: models repeat their training data."
            if one.key
            else "Remove it unless the model should learn it."
        )
        found.append(Note("error" if one.key else "warning", "data", text, next_))
    return found


def _plural(kind: str) -> str:
    return "es" if kind.endswith("s") else "s"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _percent(share: float) -> str:
    return f"{100 * share if share == 1 else min(100 * share, 99.9):.1f} %" if share >= 0.0005 else "under 0.1 %"


def _places(places: tuple[str, ...] | list[str], count: int) -> str:
    shown = list(dict.fromkeys(places))[:3]
    return ", ".join(shown) + (", ..." if count > len(shown) else "")
