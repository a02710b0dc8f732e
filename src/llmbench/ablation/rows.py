"""An ablation's figures as rows of text, for the terminal and the page."""

from __future__ import annotations

from llmbench.ablation.figures import Ablation
from llmbench.statistics import p_value

__all__ = ["difference_rows", "mean_rows"]


def mean_rows(found: Ablation, metric: str) -> list[list[str]]:
    """Each condition's mean over seeds with its interval; the first row is the heading."""
    rows = [["condition", metric, "95% interval", "seeds"]]
    for condition, by_seed in found.values[metric].items():
        one = found.estimates[metric][condition]
        mean = sum(by_seed.values()) / len(by_seed)
        between = "-" if one is None else f"[{one.low:.4f}, {one.high:.4f}]"
        rows.append([condition, f"{mean:.4f}", between, str(len(by_seed))])
    return rows


def difference_rows(found: Ablation, metric: str) -> list[list[str]]:
    """Each condition's difference to the full recipe, with its interval, p after correction, and what would be found."""
    rows = [["condition minus full", "difference", "95% interval", "p (Holm)", "detectable"]]
    for one in found.differences[metric]:
        least = "-" if one.detectable is None else f"{one.detectable:.4f}"
        rows.append([one.a, f"{one.mean:+.4f}", f"[{one.low:+.4f}, {one.high:+.4f}]", p_value(one.p_holm), least])
    return rows
