"""A dozen fixed texts whose vectors tell whether two embedders are one: other weights, another pooling, kernels that drift."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TEXTS", "distance", "pack", "unpack"]

_LONG = " ".join(
    f"Item {i}: the {thing} in room {i * 7 % 31} was checked by {name} and found {state}."
    for i, (thing, name, state) in enumerate(
        (thing, name, state)
        for state in ("dry", "worn", "clean", "loose")
        for name in ("Ada", "Björn", "Chloé")
        for thing in ("pump", "lamp", "valve")
    )
)
"""About 700 tokens: longer than the window of most encoders."""

TEXTS = (
    "x",
    "refund policy",
    "How long does the guarantee last?",
    "The kettle weighs 300 grams and boils a litre of water in two minutes.",
    "Die Rechnung wurde am 3. März überwiesen; der Betrag war zu hoch.",
    "La garantie couvre les pièces, mais pas la main-d'œuvre.",
    "水は百度で沸騰します。二分ほどかかります。",
    "Гарантия действует два года со дня покупки.",  # noqa: RUF001
    "الضمان صالح لمدة عامين من تاريخ الشراء.",
    "def area(width: float, height: float) -> float:\n    return width * height  # m²",
    "Naïve café 🙂 — “quotes”, ﬁne ligatures, x² ≤ 10⁻³\t| 12.50 € |",
    _LONG,
)


def pack(vectors: NDArray[np.float32]) -> tuple[str, ...]:
    """Vectors as text: float16, little-endian, base64; moves a vector by a cosine distance of some 1e-7."""
    return tuple(base64.b64encode(vector.astype("<f2").tobytes()).decode() for vector in vectors)


def unpack(packed: Sequence[str]) -> NDArray[np.float32]:
    """What `pack` made, as float32 of shape (n, dim).

    Raises:
        ValueError: it is not that.
    """
    import numpy as np

    return np.stack([np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2") for text in packed]).astype(np.float32)


def distance(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The largest of 1 - cosine between two vectors of one text; infinite where their shapes differ or one is not finite."""
    import numpy as np

    if mine.shape != theirs.shape:
        return float("inf")
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (mine.astype(np.float64) * theirs).sum(axis=1) / lengths
    return float(1 - cosines.min()) if np.isfinite(cosines).all() else float("inf")
