"""Every chart is drawn here, as SVG: lines of a page, rows of intervals, and panels of a file."""

__all__ = ["lines", "marks", "panels", "scale"]
