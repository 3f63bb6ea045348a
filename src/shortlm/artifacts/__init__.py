"""What the stages hand to one another: BlockScores, CutPlan, Manifest, Healing, Measurement, Benchmark.

Every artifact is JSON and says from which model, revision, data, seed, versions and device it came. Raw samples are
kept (per-sequence values); statistics are derived from them.
"""

from shortlm.artifacts.base import (
    MOST_BLOCKS,
    Artifact,
    DataFacts,
    ModelFacts,
    Provenance,
    Record,
    installed_version,
    provenance,
)
from shortlm.artifacts.benchmarking import BenchedModel, Benchmark, Breakdown, Cell, Limit, Timing
from shortlm.artifacts.cutting import CutPlan, Manifest, Proof, load_plan, manifest_of
from shortlm.artifacts.healing import Healing, HealPlan, LogEntry, Phase, PhasePlan, Validation
from shortlm.artifacts.measuring import Fluency, Measurement, Perplexity, Sample, TaskMean, TaskResult
from shortlm.artifacts.scoring import BlockScores, CriterionScores, Race, WorkPlan, WorkRow

__all__ = [
    "MOST_BLOCKS",
    "Artifact", "BenchedModel", "Benchmark", "BlockScores", "Breakdown", "Cell", "CriterionScores", "CutPlan",
    "DataFacts", "Fluency", "HealPlan", "Healing", "Limit", "LogEntry", "Manifest", "Measurement", "ModelFacts",
    "Perplexity", "Phase", "PhasePlan", "Proof", "Provenance", "Race", "Record", "Sample", "TaskMean", "TaskResult",
    "Timing", "Validation", "WorkPlan", "WorkRow", "installed_version", "load_plan", "manifest_of",
    "provenance",
]  # fmt: skip
