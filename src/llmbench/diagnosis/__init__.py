"""What is wrong with a training, read from what it recorded: findings with their evidence and the next thing to try.

A family of findings has a file; `looking` lists the families. Everything is computed without numpy, so that the app and
`llmbench runs` can show it wherever a run can be read.
"""

from llmbench.diagnosis.finding import Diagnosis, Finding, Severity
from llmbench.diagnosis.looking import KINDS, diagnose, paired

__all__ = ["KINDS", "Diagnosis", "Finding", "Severity", "diagnose", "lr_range", "paired"]
