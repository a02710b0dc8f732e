"""A recipe beside versions of it with one thing taken away or changed, trained with several seeds and compared."""

from llmbench.ablation.conditions import Condition, conditions
from llmbench.ablation.figures import Ablation, seeds_needed
from llmbench.ablation.job import Plan, ablate, plan
from llmbench.ablation.rows import difference_rows, mean_rows

__all__ = ["Ablation", "Condition", "Plan", "ablate", "conditions", "difference_rows", "mean_rows", "plan", "seeds_needed"]
