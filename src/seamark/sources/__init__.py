"""Feedback from files: `load` tells the layout, reads it and hands back `Feedback`."""

from seamark.sources.reading import FORMATS, load

__all__ = ["FORMATS", "load"]
