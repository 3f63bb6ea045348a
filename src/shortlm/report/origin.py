"""Where everything comes from: the rows of the provenance tables, each distinct fact once."""

from __future__ import annotations

from shortlm.artifacts import DataFacts, ModelFacts, Provenance
from shortlm.report.evidence import Evidence
from shortlm.report.repair import repairs

Stages = list[tuple[str, Provenance]]


def model_rows(evidence: Evidence) -> list[tuple[str, ModelFacts]]:
    """The models as (role, facts). The scored model is the dense one, so it is shown once."""
    found = [(m.role, m.model) for m in evidence.measurements]
    if not any(role == "dense" for role, _ in found):
        source = evidence.scores or evidence.plan
        first = [("scored" if evidence.scores else "planned for", source.model)] if source else []
        found[:0] = first or ([("original", evidence.manifest.base)] if evidence.manifest else [])
    return found


def scored_data(evidence: Evidence) -> list[tuple[str, DataFacts]]:
    """The windows that blocks were scored on, as (use, facts)."""
    return [("scores", evidence.scores.data)] if evidence.scores and evidence.scores.data else []


def repair_data(evidence: Evidence) -> list[tuple[str, DataFacts]]:
    """The windows that repairs read, to fit on and to validate."""
    steps = repairs(evidence.manifest) if evidence.manifest else []
    return [("repair", step.data) for step in steps]


def measured_data(evidence: Evidence) -> list[tuple[str, DataFacts]]:
    """The windows of perplexities; those that several models read are shown once."""
    evaluated = {(p.text, p.data.sha256): p.data for m in evidence.measurements for p in m.perplexities}
    return [(f"perplexity, {text}", data) for (text, _), data in evaluated.items()]


def stage_rows(evidence: Evidence) -> Stages:
    """When, where and how long each stage ran."""
    steps = evidence.manifest.steps if evidence.manifest else []
    stages = [("score", evidence.scores), ("choose", evidence.plan), *((step.kind, step) for step in steps),
              *((f"eval, {m.role}", m) for m in evidence.measurements), ("bench", evidence.benchmark)]  # fmt: skip
    return [(name, made.provenance) for name, made in stages if made]


def version_rows(stages: Stages) -> list[tuple[str, str]]:
    """Version of each package; if stages differ, all that were used."""
    used: dict[str, dict[str, None]] = {}
    for _, origin in stages:
        for package, version in origin.versions.items():
            used.setdefault(package, {})[version] = None
    return [(package, ", ".join(versions)) for package, versions in used.items()]
