"""On which CPUs bfloat16 is faster than float32, by what the kernel says of them."""

from __future__ import annotations

import pytest

from llmbench.hardware import bfloat16_pays


@pytest.mark.parametrize(
    ("cpuinfo", "pays"),
    [
        ("vendor_id : AuthenticAMD\nflags : fpu avx512f avx512_bf16", True),
        ("vendor_id : GenuineIntel\nflags : fpu avx512f avx512_bf16", False),
        ("vendor_id : GenuineIntel\nflags : fpu avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("vendor_id : AuthenticAMD\nflags : fpu avx2", False),
        ("", False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(cpuinfo: str, pays: bool) -> None:
    assert bfloat16_pays(cpuinfo) is pays
