"""A recorded run trained once more in a run of its own, and whether it comes out the same."""

from llmbench.training.replaying.check import Check, check
from llmbench.training.replaying.replay import Replay, replay

__all__ = ["Check", "Replay", "check", "replay"]
