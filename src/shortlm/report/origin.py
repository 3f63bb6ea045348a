"""Where everything comes from: the rows of the provenance tables, each distinct fact once."""

from __future__ import annotations

from shortlm.artifacts import Benchmark, BlockScores, CutPlan, DataFacts, Manifest, Measurement, ModelFacts, Provenance


def model_rows(
    scores: BlockScores | None, plan: CutPlan | None, measurements: list[Measurement]
) -> list[tuple[str, ModelFacts]]:
    """The models as (role, facts). The scored model is the dense one, so it is shown once."""
    found = [(m.role, m.model) for m in measurements]
    if not any(role == "dense" for role, _ in found):
        source = scores or plan
        found[:0] = [("scored" if scores else "planned for", source.model)] if source else []
    return found


def data_rows(scores: BlockScores | None, measurements: list[Measurement]) -> list[tuple[str, DataFacts]]:
    """The token windows as (use, facts); windows that several models read are shown once."""
    found = [("scores", scores.data)] if scores and scores.data else []
    evaluated = {(p.text, p.data.sha256): p.data for m in measurements for p in m.perplexities}
    return found + [(f"perplexity, {text}", data) for (text, _), data in evaluated.items()]


def stage_rows(
    scores: BlockScores | None,
    plan: CutPlan | None,
    manifest: Manifest | None,
    measurements: list[Measurement],
    benchmark: Benchmark | None = None,
) -> list[tuple[str, Provenance]]:
    """When, where and how long each stage ran."""
    stages = [("score", scores), ("choose", plan), ("cut", manifest), *((f"eval, {m.role}", m) for m in measurements),
              ("bench", benchmark)]  # fmt: skip
    return [(name, artifact.provenance) for name, artifact in stages if artifact]


def version_rows(
    scores: BlockScores | None,
    plan: CutPlan | None,
    manifest: Manifest | None,
    measurements: list[Measurement],
    benchmark: Benchmark | None = None,
) -> list[tuple[str, str]]:
    """Version of each package; if stages differ, all that were used."""
    used: dict[str, dict[str, None]] = {}
    for _, origin in stage_rows(scores, plan, manifest, measurements, benchmark):
        for package, version in origin.versions.items():
            used.setdefault(package, {})[version] = None
    return [(package, ", ".join(versions)) for package, versions in used.items()]
