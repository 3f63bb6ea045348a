"""The sections of the page in their order: one file each, listed here."""

from shortlm.report.section import Section
from shortlm.report.sections import (
    agreement,
    choices,
    equivalence,
    healing,
    memory,
    models,
    path,
    plan,
    provenance,
    quality,
    repair,
    runs,
    samples,
    scores,
    search,
    settings,
    speed,
    tasks,
    tradeoff,
    widths,
)

ORDER = (
    models, quality, tasks, tradeoff, speed, memory, widths, repair, healing, plan, search, choices, path, scores, agreement, runs,
    samples, equivalence, provenance, settings,
)  # fmt: skip
SECTIONS: tuple[Section, ...] = tuple(file.SECTION for file in ORDER)
