"""The report for people: one HTML file that needs nothing else, works offline, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from html import escape
from importlib import resources
from typing import Any

from llmbench.compare import charts, metrics
from llmbench.compare.result import Comparison
from llmbench.compare.table import SHARES, cell
from llmbench.compare.verdict import LABELS, amount, interval, pair_sentence, signed
from llmbench.statistics import Estimate

__all__ = ["html"]

_COLOURS = 8
_TERMS = {
    "Intervals": (
        "{percent}: Wilson's for shares and scores, Tango's for their paired differences, Hall's for seconds and tokens. "
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
_REORDERING = {code: f"\u2039U+{code:04X}\u203a" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that turn the order of what follows: shown as what they are, or an answer's txt.exe would read exe.txt."""


def html(comparison: Comparison) -> str:
    """The whole page. Everything that models, users or servers wrote is escaped."""
    script, style = _part("report.js"), _part("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    colours = {variant: i % _COLOURS for i, variant in enumerate(comparison.variants)}
    body = "".join(
        [
            _head(comparison),
            _grid(comparison),
            _quality(comparison, colours),
            _pairs(comparison, colours) if len(comparison.variants) > 1 else "",
            _cost(comparison, colours),
            _definitions(comparison),
            _explorer(comparison),
        ]
    )
    # The data has no "<", so that no text in it can end the script element.
    data = json.dumps(_data(comparison, colours), ensure_ascii=False).translate(_REORDERING).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{escape(comparison.name)} - llmbench comparison</title>'
        f"<style>{style}</style></head>\n<body><main>{body}</main>\n"
        f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script></body></html>\n'
    )


def _part(name: str) -> str:
    return resources.files("llmbench.compare").joinpath(name).read_text(encoding="utf-8")


def _head(c: Comparison) -> str:
    claim, _, figures = c.verdict.partition(": ")
    told = sum(question.answerable for question in c.questions)
    kinds = f"{told} answerable, {len(c.questions) - told} not" if told < len(c.questions) else "all answerable"
    split = f", split {c.split}" if c.split else ""
    facts = {
        "Questions": f"{len(c.questions)} ({kinds})",
        "From": f"{c.source}{split}",
        "Variants": str(len(c.variants)),
        "Endpoint": c.endpoint,
        "Finished": time.strftime("%d %b %Y, %H:%M", time.localtime(c.created)),
    }
    silent = "".join(
        f'<p class="warning" dir="auto">{_text(variant)} answered no question: {_text(error)}</p>'
        for variant, error in c.failed.items()
    )
    missing = (
        f'<p class="warning">{c.missing} of {len(c.questions) * len(c.variants)} answers failed and are left out. '
        "The same command asks them again.</p>"
        if c.missing
        else ""
    )
    items = "".join(f'<div><dt>{key}</dt><dd dir="auto">{_text(value)}</dd></div>' for key, value in facts.items())
    return (
        f'<header><p class="over">llmbench comparison <b>{escape(c.name)}</b></p><h1>{_text(claim)}</h1>'
        f'<p class="figures">{_text(figures)}</p>{silent}{missing}<dl class="facts">{items}</dl></header>'
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
        cells = "".join(_square(c.headline, v, of[v], best=v == best) for v in variants)
        rows += f"<tr><th scope=row>{label}</th>{cells}</tr>"
    return (
        f'<section id="grid"><h2>{LABELS[c.headline]}</h2><p class="lead">Share of questions, with its '
        f'{100 * c.confidence:g}% interval.</p><table class="square"><thead><tr><td></td><th scope=col>without RAG</th>'
        f"<th scope=col>with RAG</th></tr></thead><tbody>{rows}</tbody></table>{_parts(c, of)}</section>"
    )


def _square(metric: str, variant: str, one: Estimate, *, best: bool) -> str:
    return (
        f'<td class="{"best" if best else ""}" style="--share:{one.mean:.4f}">'
        f'<span class="variant" dir="auto">{_text(variant)}</span>'
        f'<span class="big">{amount(metric, one.mean)}</span><span class="range">{interval(metric, one.low, one.high)}</span>'
        f"{charts.meter(one)}</td>"
    )


def _parts(c: Comparison, of: dict[str, Estimate]) -> str:
    """What RAG and the adapter bring alone and together, as a line of figures."""
    assert c.grid is not None
    start = of[c.grid.base].mean
    steps = {"RAG alone": c.grid.base_rag, "Adapter alone": c.grid.adapter, "Both": c.grid.adapter_rag}
    items = "".join(
        f"<div><dt>{label}</dt><dd>{signed(c.headline, of[variant].mean - start)}</dd></div>"
        for label, variant in steps.items()
    )
    extra = ""
    if c.interaction is not None:
        low, high = c.interaction.low, c.interaction.high
        sure = "" if low > 0 or high < 0 else ", which may be chance"
        extra = (
            f"<div><dt>Interaction: gain beyond the sum of the two</dt><dd>{signed(c.headline, c.interaction.mean)} "
            f"<span>{interval(c.headline, low, high, sign=True)}{sure}</span></dd></div>"
        )
    return f'<dl class="steps">{items}{extra}</dl>'


def _quality(c: Comparison, colours: dict[str, int]) -> str:
    panels = ""
    for metric in [name for name in c.estimates if name in SHARES]:
        of = c.estimates[metric]
        n = max(one.n for one in of.values())
        wide = " wide" if metric == c.headline else ""
        panels += (
            f'<figure class="panel{wide}"><figcaption>{LABELS[metric]} <span>{n} questions</span></figcaption>'
            f"{charts.dots(metric, of, colours)}</figure>"
        )
    for kind, of in c.kinds.items():
        n = max(one.n for one in of.values())
        panels += (
            f'<figure class="panel"><figcaption>{LABELS[c.headline]}, {kind} <span>{n} questions</span></figcaption>'
            f"{charts.dots(c.headline, of, colours)}</figure>"
        )
    note = f"Dots are means over questions, bars their {100 * c.confidence:g}% intervals. Further right is better."
    return f'<section id="quality"><h2>Quality</h2><p class="lead">{note}</p><div class="panels">{panels}</div></section>'


def _pairs(c: Comparison, colours: dict[str, int]) -> str:
    alpha = 1 - c.confidence
    blocks = ""
    for metric in [name for name in c.estimates if name in SHARES]:
        pairs = c.pairs(metric)
        if not pairs:
            continue
        says = "".join(f"<li>{_text(pair_sentence(one, alpha))}</li>" for one in pairs)
        blocks += (
            f"<details{' open' if metric == c.headline else ''}><summary>{LABELS[metric]}</summary>"
            f'{charts.forest(metric, pairs, colours, alpha)}<ul class="says">{says}</ul></details>'
        )
    note = (
        "Each pair on the questions that both answered, in points. A filled dot is a difference that this comparison shows "
        f"(p below {alpha:.2g} after Holm's correction over the pairs); a hollow one may be chance."
    )
    note = " ".join([note, *map(escape, c.notes)])
    return f'<section id="pairs"><h2>Differences</h2><p class="lead">{note}</p>{blocks}</section>'


def _cost(c: Comparison, colours: dict[str, int]) -> str:
    times: dict[str, list[float]] = {variant: [] for variant in c.variants if variant not in c.failed}
    for row in c.rows:
        if row.answer.error is None:
            times[row.answer.variant].append(row.answer.latency)
    heading = "<th scope=col>Variant<th scope=col>Median<th scope=col>95th percentile<th scope=col>First token, median"
    tokens = [name for name in ("prompt_tokens", "completion_tokens") if name in c.estimates]
    means = [name for name in ("latency", *tokens) if name in c.estimates]
    heading += "".join(f"<th scope=col>{LABELS[name]}, mean" for name in means)
    rows = ""
    for variant in c.variants:
        fast, first = (c.quantiles.get(name, {}).get(variant, {}) for name in ("latency", "first_token"))
        values = [fast.get("p50"), fast.get("p95"), first.get("p50")]
        cells = "".join(f"<td>{amount('latency', x) if x is not None else '-'}</td>" for x in values)
        cells += "".join(f"<td>{cell(c, name, variant)}</td>" for name in means)
        rows += f"<tr><th scope=row>{charts.name(variant, colours)}</th>{cells}</tr>"
    note = (
        f"Seen by the client with up to {c.concurrency} requests in flight, variants interleaved at random. They reflect "
        "this server as much as the variants: on a CPU, vLLM runs adapters without compilation, and a merged adapter costs "
        "nothing."
    )
    return (
        f'<section id="cost"><h2>Speed and tokens</h2><p class="lead">{note}</p><figure class="panel"><figcaption>Latency '
        f"<span>share of answers complete by a given time</span></figcaption>{charts.curves(times, colours)}</figure>"
        f'<div class="scroll"><table class="plain"><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</section>"
    )


def _definitions(c: Comparison) -> str:
    terms = {LABELS[m]: _code(metrics.definition(m)) for m in c.estimates}
    terms |= {name: text.format(percent=f"{100 * c.confidence:g}%") for name, text in _TERMS.items()}
    items = "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in terms.items())
    return f'<section id="definitions"><h2>What is measured</h2><dl class="definitions">{items}</dl></section>'


def _text(text: str) -> str:
    """What somebody wrote, as text."""
    return escape(text.translate(_REORDERING))


def _code(text: str) -> str:
    """A docstring's `words` as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _explorer(c: Comparison) -> str:
    variants = "".join(f'<option value="{i}">{_text(v)}</option>' for i, v in enumerate(c.variants))
    names = "".join(f'<option value="{m}">{LABELS[m]}</option>' for m in c.estimates if m in SHARES)
    return f"""<section id="questions"><h2>Questions</h2>
<form class="tools" id="tools">
<label class="grow">Search<input type="search" id="search" placeholder="question, answer or page"></label>
<label>Judged by<select id="metric">{names}</select></label>
<label>Variant<select id="variant"><option value="any">any</option><option value="all">every</option>{variants}</select></label>
<label>Outcome<select id="outcome"><option value="">any</option><option value="1">right</option>
<option value="0">wrong</option><option value="split">variants disagree</option></select></label>
<label>Questions<select id="kind"><option value="">all</option><option value="1">answerable</option>
<option value="0">not answerable</option></select></label>
</form><p class="count" id="count" aria-live="polite"></p><div id="cards"></div>
<button type="button" id="more" hidden>Show more</button>
<noscript><p>Browsing single answers needs JavaScript. They are also in answers.jsonl.</p></noscript></section>"""


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
        }
        for q in c.questions
    }
    for row in c.rows:
        shown = [
            [s["n"], passages.setdefault((str(s["source"]), str(s.get("text", ""))), len(passages)),
             metrics.of_source(str(s["source"]), row.question)]
            for s in row.answer.sources if s.keys() >= {"n", "source"}
        ]  # fmt: skip
        cards[row.question.id]["of"][c.variants.index(row.answer.variant)] = {
            "t": row.answer.text,
            "s": shown,
            "m": {name: value for name, value in row.scores.items() if name in SHARES},
            "sec": round(row.answer.latency, 2),
            "err": row.answer.error,
        }
    return {
        "variants": [[variant, colours[variant]] for variant in c.variants],
        "passages": [list(key) for key in passages],
        "questions": list(cards.values()),
    }
