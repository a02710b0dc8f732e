"""Trackers: a run's figures in TensorBoard, Weights & Biases, MLflow and Trackio, while it trains or afterwards."""

from llmbench.tracking.following import Following, check, follow, send, tell

__all__ = ["Following", "check", "follow", "send", "tell"]
