"""Dawid and Skene's model (1979): the labels of several raters joined, each as far as it agrees with what the others find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Joined", "dawid_skene"]

Floats = NDArray[np.float64]
_PRIOR = 0.5
"""Added to each count of a rater's table, a half of a label: a rater who never erred so far is not taken to be perfect."""


@dataclass(frozen=True)
class Joined:
    """`chances` is item -> kind -> probability that the item is of this kind; `tables` rater -> true kind -> label -> share.

    `prevalence` is the share of each kind. `steps` were taken; `arrived` says that the last one changed no chance by 1e-6.
    `faults` say, in words, what makes the model unsure of itself.
    """

    chances: Mapping[str, Mapping[str, float]]
    tables: Mapping[str, Mapping[str, Mapping[str, float]]]
    prevalence: Mapping[str, float]
    steps: int
    arrived: bool
    faults: tuple[str, ...] = ()


def dawid_skene(labels: Mapping[str, Mapping[str, str]], kinds: Sequence[str], *, most: int = 500) -> Joined:
    """The model by expectation and maximisation, begun at the majority of each item.

    It is identified, up to a renaming of kinds, with three raters whose errors are independent given the truth (Allman, Matias
    and Rhodes 2009); beginning at the majority chooses the naming in which most raters are more right than wrong.

    Args:
        labels: item -> rater -> label.
        kinds: every label there is.
        most: steps after which it gives up.

    Raises:
        ValueError: there is no label.
    """
    items = [item for item, of in labels.items() if of]
    raters = sorted({rater for item in items for rater in labels[item]})
    if not items:
        raise ValueError("there are no labels to join")
    place = {kind: i for i, kind in enumerate(kinds)}
    given = np.zeros((len(items), len(raters), len(kinds)))
    for i, item in enumerate(items):
        for rater, label in labels[item].items():
            given[i, raters.index(rater), place[label]] = 1
    chances = given.sum(axis=1) / given.sum(axis=(1, 2))[:, None]
    arrived, steps = False, 0
    while not arrived and steps < most:
        steps += 1
        prevalence = (chances.sum(axis=0) + _PRIOR) / (len(items) + _PRIOR * len(kinds))
        tables = np.einsum("ik,irl->rkl", chances, given) + _PRIOR
        tables /= tables.sum(axis=2, keepdims=True)
        log = np.log(prevalence) + np.einsum("irl,rkl->ik", given, np.log(tables))
        found = np.exp(log - log.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
        arrived, chances = bool(np.abs(found - chances).max() < 1e-6), found
    return Joined(
        {item: dict(zip(kinds, map(float, row), strict=True)) for item, row in zip(items, chances, strict=True)},
        {
            rater: {kind: dict(zip(kinds, map(float, row), strict=True)) for kind, row in zip(kinds, table, strict=True)}
            for rater, table in zip(raters, tables, strict=True)
        },
        dict(zip(kinds, map(float, prevalence), strict=True)),
        steps,
        arrived,
        tuple(_faults(raters, kinds, tables, prevalence, arrived)),
    )


def _faults(raters: Sequence[str], kinds: Sequence[str], tables: Floats, prevalence: Floats, arrived: bool) -> list[str]:
    said = []
    if len(raters) < 3:
        said.append(f"{len(raters)} judges do not tell who errs: the model needs three.")
    if not arrived:
        said.append("It has not converged, so its weights are not to be relied on.")
    for rater, table in zip(raters, tables, strict=True):
        right = float(prevalence @ np.diag(table))
        if right < max(float(prevalence.max()), 1 / len(kinds)):
            said.append(f"{rater} is right no more often than one who always gives the most frequent verdict.")
    return said
