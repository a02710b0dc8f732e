"""What several vLLMs count, as one text for Prometheus.

The samples of each have a label `engine_url`: vLLM's own label `engine` is the rank of a copy inside one engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["merged"]

_SAMPLE = re.compile(rb"([A-Za-z_:][\w:]*)(?:\{(.*)\})?( .*)")
_ABOUT = re.compile(rb"# (HELP|TYPE) (\S+)")


def merged(texts: Mapping[str, bytes]) -> bytes:
    """The texts of several engines, family by family as the format asks for.

    Args:
        texts: what each engine's /metrics says, by the engine's name.
    """
    families: dict[bytes, tuple[dict[bytes, bytes], list[bytes]]] = {}
    for name, text in texts.items():
        label = b'engine_url="' + name.replace("\\", r"\\").replace('"', r"\"").encode() + b'"'
        family = b""
        for line in text.splitlines():
            if (about := _ABOUT.match(line)) is not None:
                family = about[2]
                families.setdefault(family, ({}, []))[0].setdefault(about[1], line)
            elif (sample := _SAMPLE.match(line)) is not None:
                labels = b",".join(one for one in (label, sample[2]) if one)
                own = family if family and sample[1].startswith(family) else sample[1]
                families.setdefault(own, ({}, []))[1].append(sample[1] + b"{" + labels + b"}" + sample[3])
    return b"".join(line + b"\n" for about, samples in families.values() for line in (*about.values(), *samples))
