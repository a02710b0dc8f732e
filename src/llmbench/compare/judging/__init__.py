"""Models that judge answers: asked, kept, joined, and themselves judged by people's labels.

prompts      what they are told       judgements   what they said, on disk
asking       asking them              verdicts     both orders and several judges as one
figures      how they judge           calibration  against people's labels
labels       what people said      page         in the report
"""

from llmbench.compare.judging.job import again, judge, opined, told
from llmbench.compare.judging.judgements import FILE
from llmbench.compare.judging.labels import FILE as LABELS
from llmbench.compare.judging.labels import write as write_labels

__all__ = ["FILE", "LABELS", "again", "judge", "opined", "told", "write_labels"]
