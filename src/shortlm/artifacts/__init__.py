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
from shortlm.artifacts.benchmark import BenchedModel, Benchmark, Breakdown, Cell, Limit, Timing
from shortlm.artifacts.block_scores import BlockScores, CriterionScores, Race, WorkEstimate, WorkRow
from shortlm.artifacts.cut_plan import CutPlan, CutStep, Equivalence, Form
from shortlm.artifacts.healing import HealEstimate, Healing, LogEntry, Phase, PhaseEstimate, Validation
from shortlm.artifacts.manifest import AnyStep, Manifest, blocks_after, load_plan, manifest_of
from shortlm.artifacts.measurement import Fluency, Measurement, Perplexity, Sample, TaskMean, TaskResult
from shortlm.artifacts.narrowing import Width, WidthStep
from shortlm.artifacts.quantizing import LossChange, QuantizeStep
from shortlm.artifacts.repairing import Depth, Fold, RepairStep, ValidationLoss
from shortlm.artifacts.search import AFTER_REPAIR, CERTAIN, Certainty, Estimate, Found, Search, Trail, Tried
from shortlm.artifacts.steps import Step

__all__ = [
    "AFTER_REPAIR",
    "CERTAIN",
    "MOST_BLOCKS",
    "AnyStep",
    "Artifact",
    "BenchedModel",
    "Benchmark",
    "BlockScores",
    "Breakdown",
    "Cell",
    "Certainty",
    "CriterionScores",
    "CutPlan",
    "CutStep",
    "DataFacts",
    "Depth",
    "Equivalence",
    "Estimate",
    "Fluency",
    "Fold",
    "Form",
    "Found",
    "HealEstimate",
    "Healing",
    "Limit",
    "LogEntry",
    "LossChange",
    "Manifest",
    "Measurement",
    "ModelFacts",
    "Perplexity",
    "Phase",
    "PhaseEstimate",
    "Provenance",
    "QuantizeStep",
    "Race",
    "Record",
    "RepairStep",
    "Sample",
    "Search",
    "Step",
    "TaskMean",
    "TaskResult",
    "Timing",
    "Trail",
    "Tried",
    "Validation",
    "ValidationLoss",
    "Width",
    "WidthStep",
    "WorkEstimate",
    "WorkRow",
    "blocks_after",
    "installed_version",
    "load_plan",
    "manifest_of",
    "provenance",
]  # fmt: skip
