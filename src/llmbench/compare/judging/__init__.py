"""Models that judge answers: asked, kept, joined, and themselves judged by people's labels.

prompts      what they are told       judgements   what they said, on disk
asking       asking them              verdicts     both orders and several judges as one
figures      how they judge           calibration  against people's labels
"""

from llmbench.compare.judging.job import Judged, again, judge, told
from llmbench.compare.judging.judgements import FILE

__all__ = ["FILE", "Judged", "again", "judge", "told"]
