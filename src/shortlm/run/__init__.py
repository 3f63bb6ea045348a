"""From one end to the other: `run` shortens a model by a recipe, `compare` measures any checkpoints side by side.

Both work in a RunFolder, which keeps what is done by its key, and hand one Evidence to the report.
"""

from shortlm.run.after_repair import AfterRepair
from shortlm.run.comparison import compare
from shortlm.run.contest import compare_ways
from shortlm.run.cut_repaired import cut_repaired
from shortlm.run.pipeline import run

__all__ = ["AfterRepair", "compare", "compare_ways", "cut_repaired", "run"]
