"""The report for people: one HTML file, with every answer in it."""

from __future__ import annotations

import re
import time
from html import escape
from importlib import resources
from typing import Any

from llmbench.compare import charts, classes_page, metrics
from llmbench.compare.judging.page import judges_section
from llmbench.compare.measures import Measure
from llmbench.compare.result import Comparison
from llmbench.compare.table import cell, effect_rows, noise_rows
from llmbench.compare.verdict import amount, interval, pair_sentence, promised, signed
from llmbench.page import document, facts, header, notes, section, table, text
from llmbench.statistics import Estimate

__all__ = ["html"]

_KIND = "comparison"
_COLOURS = 8
_TERMS = {
    "Intervals": (
        "{percent}: Wilson's for shares and scores, Tango's for their paired differences, Hall's for seconds and tokens (of "
        "differences the wider of Hall's and Student's). "
        "Questions about one page count together: the intervals are those of n divided by the design effect. The interval of a "
        "difference includes 0 wherever p is not below alpha."
    ),
    "p": (
        "The exact sign-flip test over pages, which is McNemar's exact test where every question has its own page, with Holm's "
        "correction over all pairs of a metric."
    ),
    "Design effect": "How much larger the variance is than for the same number of questions about different pages.",
    "Smallest detectable difference": (
        "The smallest true difference that a comparison of this size finds in four of five repetitions, Holm's correction "
        "included."
    ),
}
"""What the figures mean, for every comparison alike."""


def html(comparison: Comparison) -> str:
    """The whole page. Everything that models, users or servers wrote is escaped."""
    colours = {variant: i % _COLOURS for i, variant in enumerate(comparison.variants)}
    body = "".join(
        [
            _head(comparison),
            _grid(comparison),
            _quality(comparison, colours),
            _pairs(comparison, colours) if len(comparison.variants) > 1 else "",
            classes_page.html(comparison, colours),
            _experiment(comparison),
            judges_section(comparison),
            _cost(comparison, colours),
            _definitions(comparison),
            _explorer(comparison),
        ]
    )
    return document(
        comparison.name, _KIND, body, style=_part("report.css"), script=_part("report.js"), data=_data(comparison, colours)
    )


def _part(name: str) -> str:
    return resources.files("llmbench.compare").joinpath(name).read_text(encoding="utf-8")


def _head(c: Comparison) -> str:
    claim, _, figures = c.verdict.partition(": ")
    told = sum(question.answerable for question in c.questions)
    kinds = f"{told} answerable, {len(c.questions) - told} not" if told < len(c.questions) else "all answerable"
    split = f", split {c.split}" if c.split else ""
    about = {
        "Questions": f"{len(c.questions)} ({kinds})",
        "From": f"{c.source}{split}",
        "Variants": str(len(c.variants)),
        "Endpoint": c.endpoint,
        "Finished": time.strftime("%d %b %Y, %H:%M", time.localtime(c.created)),
    }
    warnings = [
        ("warning", f'<p dir="auto">{text(variant)} answered no question: {text(error)}</p>')
        for variant, error in c.failed.items()
    ]
    if c.missing:
        of = len(c.questions) * len(c.variants) * c.experiment.repeats
        left_out = f"{c.missing} of {of} answers failed and are left out. The same command asks them again."
        warnings.append(("warning", f"<p>{left_out}</p>"))
    warnings += [
        ("warning" if said.startswith("Deviation") else "note", f'<p dir="auto">{text(said)}</p>') for said in promised(c)
    ]
    return header(
        _KIND,
        c.name,
        text(claim),
        f'<p class="figures">{text(figures)}</p>',
        facts({word: text(value) for word, value in about.items()}),
        notes(warnings),
    )


def _grid(c: Comparison) -> str:
    """The 2x2 table of the headline metric, with what each part brings."""
    if c.grid is None:
        return ""
    of = c.estimates[c.headline]
    if not of.keys() >= set(c.grid.cells):
        return ""
    best = max(of, key=lambda variant: of[variant].mean)
    rows = ""
    for label, variants in c.grid.rows:
        cells = "".join(_square(c.measure(c.headline), v, of[v], best=v == best) for v in variants)
        rows += f'<tr><th scope="row">{label}</th>{cells}</tr>'
    square = (
        '<table class="square"><thead><tr><td></td><th scope="col">without RAG</th><th scope="col">with RAG</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    lead = f"Share of questions, with its {100 * c.confidence:g}% interval."
    return section(text(c.measure(c.headline).label), square + _parts(c, of), lead=lead, place="grid")


def _square(metric: Measure, variant: str, one: Estimate, *, best: bool) -> str:
    return (
        f'<td class="{"best" if best else ""}" style="--share:{one.mean:.4f}">'
        f'<span class="variant" dir="auto">{text(variant)}</span>'
        f'<span class="big">{amount(metric, one.mean)}</span><span class="range">{interval(metric, one.low, one.high)}</span>'
        f"{charts.meter(one)}</td>"
    )


def _parts(c: Comparison, of: dict[str, Estimate]) -> str:
    """What RAG and the adapter bring alone and together, as a line of figures."""
    assert c.grid is not None
    start, measure = of[c.grid.base].mean, c.measure(c.headline)
    steps = {"RAG alone": c.grid.base_rag, "Adapter alone": c.grid.adapter, "Both": c.grid.adapter_rag}
    items = "".join(
        f"<div><dt>{label}</dt><dd>{signed(measure, of[variant].mean - start)}</dd></div>" for label, variant in steps.items()
    )
    extra = ""
    if c.interaction is not None:
        low, high = c.interaction.low, c.interaction.high
        sure = "" if low > 0 or high < 0 else ", which may be chance"
        extra = (
            f"<div><dt>Interaction: gain beyond the sum of the two</dt><dd>{signed(measure, c.interaction.mean)} "
            f"<span>{interval(measure, low, high, sign=True)}{sure}</span></dd></div>"
        )
    return f'<dl class="steps">{items}{extra}</dl>'


def _quality(c: Comparison, colours: dict[str, int]) -> str:
    panels = ""
    for metric in c.judging():
        of, measure = c.estimates[metric], c.measure(metric)
        less = ", less is better" if measure.less_is_better else ""
        n = max(one.n for one in of.values())
        wide = " wide" if metric == c.headline else ""
        panels += (
            f'<figure class="panel card{wide}"><figcaption>{text(measure.label)} <span>{n} questions{less}</span></figcaption>'
            f"{charts.dots(measure, of, colours)}</figure>"
        )
    headline = c.measure(c.headline)
    for kind, of in c.kinds.items():
        n = max(one.n for one in of.values())
        panels += (
            f'<figure class="panel card"><figcaption>{text(headline.label)}, {kind} <span>{n} questions</span></figcaption>'
            f"{charts.dots(headline, of, colours)}</figure>"
        )
    note = f"Dots are means over questions, bars their {100 * c.confidence:g}% intervals. Further right is better."
    return section("Quality", f'<div class="panels">{panels}</div>', lead=note, place="quality")


def _pairs(c: Comparison, colours: dict[str, int]) -> str:
    alpha = 1 - c.confidence
    blocks = ""
    for metric in c.judging():
        pairs, measure = c.pairs(metric), c.measure(metric)
        if not pairs:
            continue
        says = "".join(f"<li>{text(pair_sentence(one, alpha, measure))}</li>" for one in pairs)
        blocks += (
            f'<details class="card"{" open" if metric == c.headline else ""}><summary>{text(measure.label)}</summary>'
            f'{charts.forest(measure, pairs, colours, alpha)}<ul class="says">{says}</ul></details>'
        )
    note = (
        "Each pair on the questions that both answered, in points. A filled dot is a difference that this comparison shows "
        f"(p below {alpha:.2g} after Holm's correction over the pairs); a hollow one may be chance."
    )
    note = " ".join([note, *map(text, c.notes)])
    return section("Differences", blocks, lead=note, place="pairs")


def _experiment(c: Comparison) -> str:
    """The effects of the factors, and what repeats of one variant differ by."""
    told, blocks = c.experiment, ""
    for metric in c.estimates:
        effects, noise = effect_rows(c, metric), noise_rows(c, metric)
        parts = "".join(table(rows[0], [[text(x) for x in row] for row in rows[1:]]) for rows in (effects, noise) if rows)
        if parts:
            opened = " open" if metric == c.headline else ""
            blocks += f'<details class="card"{opened}><summary>{text(c.measure(metric).label)}</summary>{parts}</details>'
    notes = [note for note in (told.passages, *told.notes) if note]
    if told.engines:
        notes.append(f"Answered by {', '.join(told.engines)}.")
    if not blocks and not notes:
        return ""
    lead = ""
    if told.levels:
        lead = (
            "An effect compares a level with the factor's first one, on average over the other factors; of two factors it is "
            "what both levels bring beyond the sum of the two. Each interval is of its effect alone; shown is by Holm's "
            "correction over all effects of the metric. "
        )
    if told.noise:
        lead += (
            f"Every question was put {told.repeats} times. Two runs of one and the same variant, each with as many repeats, "
            "differ by no more than the figure in the third column in 95 of 100 cases: differences below it are noise. "
        )
    return section("Factors and noise", blocks, lead=lead + " ".join(map(text, notes)), place="experiment")


def _cost(c: Comparison, colours: dict[str, int]) -> str:
    times: dict[str, list[float]] = {variant: [] for variant in c.variants if variant not in c.failed}
    for row in c.rows:
        if row.answer.error is None:
            times[row.answer.variant].append(row.answer.latency)
    means = [name for name in c.estimates if c.measure(name).is_amount and name != "first_token"]
    labels = [text(c.measure(name).label) for name in means]
    heads = ["Variant", "Median", "95th percentile", "First token, median", *(f"{label}, mean" for label in labels)]
    rows = []
    for variant in c.variants:
        fast, first = (c.quantiles.get(name, {}).get(variant, {}) for name in ("latency", "first_token"))
        values = [fast.get("p50"), fast.get("p95"), first.get("p50")]
        cells = [amount("latency", x) if x is not None else "-" for x in values]
        rows.append([charts.name(variant, colours), *cells, *(cell(c, name, variant) for name in means)])
    lead = (
        f"Seen by the client with up to {c.concurrency} requests in flight, variants interleaved at random. They reflect "
        "this server as much as the variants: on a CPU, vLLM runs adapters without compilation, and a merged adapter costs "
        "nothing."
    )
    caption = "<figcaption>Latency <span>share of answers complete by a given time</span></figcaption>"
    figure = f'<figure class="panel card">{caption}{charts.curves(times, colours)}</figure>'
    return section("Speed and tokens", figure + table(heads, rows), lead=lead, place="cost")


def _definitions(c: Comparison) -> str:
    measures = [c.measure(metric) for metric in c.estimates]
    terms = {text(one.label): _code(one.definition or metrics.definition(one.name)) for one in measures}
    terms |= {name: meaning.format(percent=f"{100 * c.confidence:g}%") for name, meaning in _TERMS.items()}
    items = "".join(f"<div><dt>{name}</dt><dd>{meaning}</dd></div>" for name, meaning in terms.items())
    return section("What is measured", f'<dl class="definitions">{items}</dl>', place="definitions")


def _code(text: str) -> str:
    """A docstring's `words` as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _explorer(c: Comparison) -> str:
    variants = "".join(f'<option value="{i}">{text(v)}</option>' for i, v in enumerate(c.variants))
    single = [name for name in c.judging() if not c.measure(name).whole]
    names = "".join(f'<option value="{name}">{text(c.measure(name).label)}</option>' for name in single)
    inner = f"""<form class="tools" id="tools">
<label class="grow">Search<input type="search" id="search" placeholder="question, answer or page"></label>
<label>Judged by<select id="metric">{names}</select></label>
<label>Variant<select id="variant"><option value="any">any</option><option value="all">every</option>{variants}</select></label>
<label>SandboxAnswer<select id="outcome"><option value="">any</option><option value="1">right</option>
<option value="0">wrong</option><option value="split">variants disagree</option></select></label>
<label>Questions<select id="kind"><option value="">all</option><option value="1">answerable</option>
<option value="0">not answerable</option></select></label>
</form><p class="count" id="count" aria-live="polite"></p><div id="cards"></div>
<button type="button" id="more" hidden>Show more</button>
<noscript><p>Browsing single answers needs JavaScript. They are also in answers.jsonl.</p></noscript>"""
    return section("Questions", inner, place="questions")


def _data(c: Comparison, colours: dict[str, int]) -> dict[str, Any]:
    """What the explorer shows. A passage that many answers were given stands here once."""
    passages: dict[tuple[str, str], int] = {}
    cards: dict[str, dict[str, Any]] = {
        q.id: {
            "id": q.id,
            "q": q.question,
            "a": q.answer,
            "v": q.value,
            "page": ", ".join(q.sources) or None,
            "told": q.answerable,
            "of": {},
            "j": [
                [one["judge"], [c.variants.index(name) for name in one["shown"]], one["label"], one["reason"]]
                for one in c.opinions.get(q.id, ())
            ],
        }
        for q in c.questions
    }
    for row in c.rows:
        if row.answer.repeat:  # the first of several is shown; answers.jsonl has all
            continue
        shown = [
            [s["n"], passages.setdefault((str(s["source"]), str(s.get("text", ""))), len(passages)),
             metrics.of_source(str(s["source"]), row.question)]
            for s in row.answer.sources if s.keys() >= {"n", "source"}
        ]  # fmt: skip
        cards[row.question.id]["of"][c.variants.index(row.answer.variant)] = {
            "t": row.answer.text,
            "s": shown,
            "m": {name: value for name, value in row.scores.items() if not c.measure(name).is_amount},
            "sec": round(row.answer.latency, 2),
            "err": row.answer.error,
        }
    return {
        "variants": [[variant, colours[variant]] for variant in c.variants],
        "passages": [list(key) for key in passages],
        "questions": list(cards.values()),
    }
