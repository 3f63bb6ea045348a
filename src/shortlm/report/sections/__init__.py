"""The sections of the page in their order: one file each, listed here."""

from shortlm.report.section import Section
from shortlm.report.sections import (
    equivalence,
    healing,
    memory,
    plan,
    provenance,
    quality,
    runs,
    samples,
    scores,
    settings,
    speed,
    tasks,
    tradeoff,
)

ORDER = (
    quality, tasks, tradeoff, speed, memory, healing, plan, scores, runs, samples, equivalence, provenance, settings,
)  # fmt: skip
SECTIONS: tuple[Section, ...] = tuple(file.SECTION for file in ORDER)
