"""What answers cost and use: by prices of the recipe, and by what NVIDIA's driver counts."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from llmbench import compare
from llmbench.compare.energy import NvmlMeter
from llmbench.errors import RecipeError
from llmbench.recipe import CompareRecipe

Document = Callable[..., CompareRecipe]


def test_cost_by_tokens_and_by_the_hour(fake: Any, document: Document) -> None:
    """An answer reads 9 tokens, writes 4 and takes half a second, with 8 in flight."""
    prices = 'prices={currency: EUR, variants: {base: {prompt: 2, completion: 10}, "*": {hour: 36}}}'
    result = compare.run(document(prices), endpoint=fake)
    cost = result.estimates["cost"]
    assert cost["base"].mean == pytest.approx(1000 * (9 * 2 + 4 * 10) / 1e6)
    assert cost["adapter"].mean == pytest.approx(1000 * 36 / 3600 * 0.5 / 8)
    assert result.measure("cost").currency == "EUR"
    assert "0.058 EUR" in result.report.read_text(encoding="utf-8")
    assert compare.load("kettles").measure("cost") == result.measure("cost")


def test_a_variant_without_a_price_has_no_cost(fake: Any, document: Document) -> None:
    result = compare.run(document("prices={variants: {base: {prompt: 2}}}"), endpoint=fake)
    assert set(result.estimates["cost"]) == {"base"}
    assert "cost" not in compare.run(document(), endpoint=fake).estimates


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        (
            "{variants: {bass: {hour: 1}}}",
            "prices.variants: there is no variant bass (variants: base, base-rag, adapter, adapter-rag)",
        ),
        ("{variants: {base: {hour: 1, prompt: 1}}}", "give prompt and completion, or hour"),
        ("{variants: {base: {hour: -1}}}", "should be greater than or equal to 0"),
        ("{currency: euro, variants: {base: {hour: 1}}}", "prices.currency"),
    ],
)
def test_prices_that_cannot_be_meant(document: Document, prices: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        document(f"prices={prices}")
    assert message in str(error.value)


class Counter:
    """Counts 1,800 joules between any two looks."""

    def __init__(self) -> None:
        self.at = 0.0

    def joules(self) -> float | None:
        self.at += 1800
        return self.at


def test_energy_of_all_variants_together(fake: Any, document: Document) -> None:
    result = compare.run(document("energy=true"), endpoint=fake, meter=Counter())
    assert result.energy == {"wh": 0.5, "answers": 64, "wh_per_answer": 0.5 / 64}
    assert result.notes[-1] == "While asking, this machine's GPUs used 0.5 Wh: 0.00781 Wh per answer, all variants together."
    assert compare.load("kettles").energy == result.energy
    again = compare.run(document("energy=true"), endpoint=fake, meter=Counter())
    assert again.notes[-1] == "Energy was not measured: no answer was asked for this time."


def test_without_a_driver_it_says_so(fake: Any, document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbench.compare.energy._LIBRARY", "libno-such-driver.so")
    result = compare.run(document("energy=true"), endpoint=fake)
    assert result.notes[-1] == "Energy was not measured: no NVIDIA driver on this machine counts it."
    assert result.energy == {}


class Nvml:
    """The calls of NVML that a meter makes, of two GPUs."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: int, device: Any) -> int:
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, energy: Any) -> int:
        ctypes.cast(energy, ctypes.POINTER(ctypes.c_ulonglong))[0] = 2_500
        return 3 if self.fails else 0  # NVML_ERROR_NOT_SUPPORTED: a GPU older than Volta


def test_the_meter_adds_up_all_gpus_and_none_where_one_cannot_count() -> None:
    assert NvmlMeter(Nvml()).joules() == 5.0
    assert NvmlMeter(Nvml(fails=True)).joules() is None
