"""Work on what models and strangers wrote, in a process of its own: patterns, JSON schemas, queries of SQLite, programs.

The process (`python -m llmbench.sandbox`) imports nothing of llmbench's but this room and `confined`. It is limited in memory
and, request by request, in time; one that goes beyond is told of in words, and the others are answered.
"""

from llmbench.sandbox.process import SandboxAnswer, SandboxFailed, SandboxProcess

__all__ = ["SandboxAnswer", "SandboxFailed", "SandboxProcess"]
