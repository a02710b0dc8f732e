"""Whether what a server answers is what was trained: a certificate beside each adapter, and its comparison with a server."""

from llmbench.parity.asking import ask
from llmbench.parity.certificate import FILE, Certificate, Probe, configuration, read, template_hash, write
from llmbench.parity.chats import CHATS, GREEDY_EVERY, GREEDY_TOKENS
from llmbench.parity.judging import Parity, effect, judge
from llmbench.parity.said import Said

__all__ = [
    "CHATS", "FILE", "GREEDY_EVERY", "GREEDY_TOKENS", "Certificate", "Parity", "Probe", "Said", "ask", "configuration",
    "effect", "judge", "read", "template_hash", "write",
]  # fmt: skip
