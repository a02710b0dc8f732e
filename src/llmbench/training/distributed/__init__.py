"""Several processes that train one model: how they are started, what they agree on, and whether they are what was asked for."""

__all__ = ["launch", "ranks", "report", "verify"]
