"""Every chart is drawn here, as SVG: lines, bars and rows of intervals of a page, and panels of a file."""

__all__ = ["bars", "curves", "lines", "marks", "panels", "parallel", "scale"]
