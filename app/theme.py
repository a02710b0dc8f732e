"""One design: the tokens stand in style.css; here Gradio's own variables are pointed at them."""

from __future__ import annotations

import gradio as gr

__all__ = ["theme"]

_SANS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"]

_TOKENS = {
    "body_background_fill": "--paper", "body_text_color": "--ink", "body_text_color_subdued": "--muted",
    "background_fill_primary": "--surface", "background_fill_secondary": "--paper", "block_background_fill": "--surface",
    "block_border_color": "--line", "block_label_background_fill": "--surface", "block_label_text_color": "--muted",
    "block_title_text_color": "--muted", "block_info_text_color": "--muted", "border_color_primary": "--line",
    "border_color_accent": "--accent", "color_accent_soft": "--accent-soft", "link_text_color": "--accent",
    "link_text_color_hover": "--accent-strong", "link_text_color_active": "--accent-strong",
    "link_text_color_visited": "--accent", "code_background_fill": "--sunken", "panel_background_fill": "--surface",
    "panel_border_color": "--line", "input_background_fill": "--surface", "input_background_fill_focus": "--surface",
    "input_border_color": "--line-strong", "input_border_color_focus": "--accent", "input_placeholder_color": "--faint",
    "accordion_text_color": "--ink", "table_text_color": "--ink", "checkbox_background_color": "--surface",
    "checkbox_background_color_selected": "--accent", "checkbox_border_color": "--line-strong",
    "checkbox_border_color_selected": "--accent", "checkbox_label_background_fill": "--surface",
    "checkbox_label_background_fill_hover": "--sunken", "checkbox_label_background_fill_selected": "--accent-soft",
    "checkbox_label_border_color": "--line", "checkbox_label_text_color": "--ink",
    "checkbox_label_text_color_selected": "--ink", "button_primary_background_fill": "--accent",
    "button_primary_background_fill_hover": "--accent-strong", "button_primary_border_color": "--accent",
    "button_primary_text_color": "--on-accent", "button_secondary_background_fill": "--surface",
    "button_secondary_background_fill_hover": "--sunken", "button_secondary_border_color": "--line-strong",
    "button_secondary_text_color": "--ink", "button_cancel_background_fill": "--surface",
    "button_cancel_background_fill_hover": "--bad-soft", "button_cancel_border_color": "--bad",
    "button_cancel_text_color": "--bad",
}  # fmt: skip


def theme() -> gr.themes.Base:
    """The theme, with the fonts that the reader's system has: nothing is fetched."""
    both = {name + end: f"var({token})" for name, token in _TOKENS.items() for end in ("", "_dark")}
    plain = {
        "block_shadow": "none", "block_shadow_dark": "none", "block_border_width": "1px", "block_radius": "var(--radius)",
        "container_radius": "var(--radius)", "input_radius": "var(--radius-small)",
        "button_large_radius": "var(--radius-small)", "button_medium_radius": "var(--radius-small)",
        "button_small_radius": "var(--radius-small)",
        "input_shadow_focus": "0 0 0 3px var(--accent-soft)", "input_shadow_focus_dark": "0 0 0 3px var(--accent-soft)",
        "color_accent": "var(--accent)", "layout_gap": "12px", "button_transition": "background-color .12s, border-color .12s",
        "block_label_text_size": "var(--small)", "block_title_text_size": "var(--small)", "input_text_size": "var(--body)",
        "body_text_size": "var(--body)", "loader_color": "var(--accent)", "loader_color_dark": "var(--accent)",
    }  # fmt: skip
    return gr.themes.Base(font=_SANS, font_mono=_MONO).set(**(both | plain))
