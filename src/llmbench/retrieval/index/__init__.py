"""Documents become an index, which is kept up, mended and looked over.

build       files that changed, handed to the writer
writer      the one writer of an index
pipeline    batches on their way: gathered, embedded, written
steps       what a batch holds, each one change of the index
names       which of several files may give a document its name
generation  the generation that is opened for writing
upkeep      files of words brought up to date after a change; `compact` writes the whole without what was deleted
carry       what a rebuild takes over from the index before it
cluster     the same on many machines
repair      what is damaged, made again from the rest
inventory   every index of the workspace, as `llmbench index list` shows them
freshness   which files have changed since it was built
coverage    what of the documents reached an embedding; `coverage_table` shows it, `repetition` finds what says the same
"""

from __future__ import annotations

from llmbench.retrieval.index.build import IndexReport, build
from llmbench.retrieval.index.writer import Writer, window

__all__ = ["IndexReport", "Writer", "build", "coverage", "coverage_table", "inventory", "repair", "window"]
