"""What is known about a set of models, gathered once; the page, report.md, the tables and the card all draw from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from shortlm.artifacts import (
    Artifact,
    Benchmark,
    BlockScores,
    CutPlan,
    Equivalence,
    Healing,
    Manifest,
    Measurement,
    manifest_of,
)
from shortlm.report.quality import dense_first
from shortlm.report.roles import all_roles, colours


@dataclass(frozen=True)
class History:
    """What was done to one of several models: its manifest, and its healing if there was one."""

    manifest: Manifest
    healing: Healing | None = None

    @classmethod
    def of(cls, folder: Path) -> History | None:
        """As the files of a checkpoint tell it; None where shortlm didn't write it."""
        manifest, healing = manifest_of(folder), folder / "healing.json"
        return cls(manifest, Healing.load(healing) if healing.is_file() else None) if manifest else None


@dataclass(frozen=True)
class Evidence:
    """The artifacts of one run or comparison, as far as they are there.

    The reference is put first among `measurements`. Without a `plan`, it is that of the manifest.
    """

    title: str = "shortlm report"
    scores: BlockScores | None = None
    plan: CutPlan | None = None
    manifest: Manifest | None = None
    healing: Healing | None = None
    measurements: list[Measurement] = field(default_factory=list)
    benchmark: Benchmark | None = None
    settings: str = ""  # YAML
    histories: dict[str, History] = field(default_factory=dict)  # by role, of checkpoints that shortlm wrote

    def __post_init__(self) -> None:
        object.__setattr__(self, "measurements", dense_first(self.measurements))
        if self.plan is None and self.manifest is not None:
            object.__setattr__(self, "plan", self.manifest.plan)

    @property
    def equivalence(self) -> Equivalence | None:
        """That of the cut, if there is one."""
        return self.manifest.equivalence if self.manifest else None

    @cached_property
    def roles(self) -> list[str]:
        """Every model that was measured, the reference first."""
        return all_roles(self.measurements, self.benchmark)

    @cached_property
    def palette(self) -> dict[str, str]:
        """Each model's colour, the same in all charts."""
        return colours(self.roles)

    @property
    def artifacts(self) -> list[Artifact]:
        """All of them, in the order of the path."""
        single = (self.scores, self.plan, self.manifest, self.healing)
        return [a for a in (*single, *self.measurements, self.benchmark) if a]


def evidence_from_files(
    title: str,
    scores: Path | None = None,
    plan: Path | None = None,
    manifest: Path | None = None,
    healing: Path | None = None,
    measurements: list[Path] | None = None,
    benchmark: Path | None = None,
) -> Evidence:
    """What the files of the commands say. Raises ShortLMError for one that can't be read."""
    return Evidence(
        title,
        BlockScores.load(scores) if scores else None,
        CutPlan.load(plan) if plan else None,
        Manifest.load(manifest) if manifest else None,
        Healing.load(healing) if healing else None,
        _told_apart([Measurement.load(path) for path in measurements or []]),
        Benchmark.load(benchmark) if benchmark else None,
    )


def _told_apart(measurements: list[Measurement]) -> list[Measurement]:
    """A second model of the same name gets a number."""
    roles = [m.role for m in measurements]
    names = [f"{r} ({roles[:i].count(r) + 1})" if r in roles[:i] else r for i, r in enumerate(roles)]
    return [m.model_copy(update={"role": name}) for m, name in zip(measurements, names, strict=True)]
