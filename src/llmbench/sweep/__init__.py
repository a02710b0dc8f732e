"""Sweeps: settings of a training recipe are drawn, trained as processes of their own, judged, and the winner is checked.

outputs/sweeps/NAME/
├── recipe.yaml     the sweep as resolved, every default written out
├── plan.json       what may not change while it is continued: the space, the search, and the training recipe as resolved
├── trials/         0000.json: settings, state, figures of each trial; 0000.log: what its training printed
├── confirm/        the same for the trainings that check the winner
├── data/           the rows that trials train on, and those put away, where `confirm.rows` says so
├── best.yaml       the training recipe with the winner's settings
├── summary.json    the figures, for programs
└── report.html     the figures, for people

Each trial is a run of its own, outputs/runs/NAME-0000 and so on.
"""

from llmbench.sweep.cluster import Asked
from llmbench.sweep.pool import Watcher
from llmbench.sweep.result import Sweep, every, load, remove
from llmbench.sweep.run import run
from llmbench.sweep.trial import Trial

__all__ = ["Asked", "Sweep", "Trial", "Watcher", "every", "load", "remove", "run", "table"]
