"""Gradio components as this program uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

__all__ = ["HANDLER", "html"]

HANDLER: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""How every event is wired: no public API, and no spinner over the page."""


def html(value: str = "", classes: str | Sequence[str] = "", **options: Any) -> gr.HTML:
    """HTML that `render` made, styled by style.css alone and without Gradio's click handler."""
    options = {"js_on_load": None} | options
    names = [classes] if isinstance(classes, str) else list(classes)
    return gr.HTML(value, elem_classes=[*names, "plain"], apply_default_css=False, **options)
