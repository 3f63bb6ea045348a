"""The model card: a README.md that a hub shows properly, with the numbers of this cut and how to repeat it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from shortlm.artifacts import Healing, Manifest, Perplexity, TaskResult, manifest_of
from shortlm.errors import ShortLMError
from shortlm.outputs import write_text
from shortlm.report.criteria import explanation
from shortlm.report.evidence import Evidence
from shortlm.report.markdown import environment, line, public, tables
from shortlm.report.origin import measured_data, repair_data, stage_rows, version_rows
from shortlm.report.quality import result_of
from shortlm.report.repair import fitted_on, nats, no_copies, repairs, won_back
from shortlm.report.steps import commands, step_rows

PIPELINES = {"AutoModelForImageTextToText": "image-text-to-text", "AutoModelForMultimodalLM": "any-to-any"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def model_card(
    evidence: Evidence,
    *,
    license: str | None = None,
    base_model: str | None = None,
    language: str | list[str] | None = None,
) -> str:
    """README.md of an edited checkpoint: Markdown behind YAML front matter. Raises ShortLMError without a manifest.

    `license` and `language` are the hub's identifiers. `base_model` is linked only if it has the form of a
    hub id (owner/name).
    """
    manifest = evidence.manifest
    if manifest is None:
        raise ShortLMError("a model card tells what was done to a model; give the manifest of the checkpoint")
    plan = manifest.plan
    first = plan.model if plan and manifest.steps[0] is manifest.last_cut else manifest.base
    base = public(base_model or first.name)
    stages = [(name, origin) for name, origin in stage_rows(evidence) if name not in ("score", "choose")]
    body = environment().get_template("card.md.jinja").render(
        title=evidence.title, healing=evidence.healing, plan=plan, manifest=manifest, equivalence=evidence.equivalence,
        base=base, first=first, steps=step_rows(manifest), commands=commands(manifest, base),
        repairs=_repairs(manifest),
        linked=is_hub_id(base_model), **tables(evidence),
        about=explanation(plan.criterion) if plan else None, **_forms(manifest),
        measurements=evidence.measurements, data=repair_data(evidence) + measured_data(evidence), stages=stages,
        versions=version_rows(stages),
    )  # fmt: skip
    front = _front_matter(evidence, license, base_model, language, manifest)
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{body.strip()}\n"


def write_card(folder: Path) -> Path | None:
    """README.md of a checkpoint that shortlm wrote, by its manifest and the record of its healing; None without one."""
    manifest, healing = manifest_of(folder), folder / "healing.json"
    if manifest is None:
        return None
    evidence = Evidence(
        title=folder.resolve().name, manifest=manifest, healing=Healing.load(healing) if healing.is_file() else None
    )
    return write_text(folder / "README.md", model_card(evidence, base_model=hub_base(manifest)), force=True)


def hub_base(manifest: Manifest | None) -> str | None:
    """The hub id of the first model; None where that is a folder or the embedded one."""
    if manifest is None or manifest.base_path or manifest.base.name == "embedded":
        return None
    return manifest.base.name


def _forms(manifest: Manifest) -> dict[str, bool]:
    """What the card's words depend on."""
    kinds = {step.kind for step in manifest.steps}
    forms = {getattr(step, "form", None) for step in manifest.steps}
    return {
        "own_type": "shortlm" in forms, "quantised": "quantize" in kinds,
        "narrowed": bool(manifest.equivalence) and _last_checked(manifest) == "width",
    }  # fmt: skip


def _last_checked(manifest: Manifest) -> str | None:
    return next((step.kind for step in reversed(manifest.steps) if step.kind in ("cut", "width")), None)


def _tags(manifest: Manifest) -> list[str]:
    """As hubs call it."""
    names = {"cut": "depth-pruning", "width": "width-pruning", "quantize": "quantized"}
    kinds = dict.fromkeys(names[step.kind] for step in manifest.steps if step.kind in names)
    return [*kinds, *(["pruned"] if {*kinds} - {"quantized"} else [])]


def _repairs(manifest: Manifest) -> list[dict[str, Any]]:
    """What each repair made of the weights: `changed` says in words which are no copies."""
    return [
        {"step": step, "changed": no_copies(step), "losses": dict(nats(step.loss)), "won": won_back(step.loss),
         "tokens": fitted_on(step)}
        for step in repairs(manifest)
    ]  # fmt: skip


def is_hub_id(name: str | None) -> bool:
    """Whether `name` has the form owner/name, not that of a path."""
    return bool(name and HUB_ID.fullmatch(name))


def _front_matter(
    evidence: Evidence, license: str | None, base_model: str | None, language: Any, manifest: Manifest
) -> dict[str, Any]:
    """What the hub reads. It knows no relation for cut models; "finetune" is its default, and true of healed ones."""
    front: dict[str, Any] = {}
    if language:
        front["language"] = language
    if license:
        front["license"] = license
    if is_hub_id(base_model):
        front |= {"base_model": base_model, "base_model_relation": "finetune"}
    front |= {
        "library_name": "transformers",
        "pipeline_tag": PIPELINES.get(manifest.base.auto_class, "text-generation"),
    }
    front["tags"] = ["shortlm", *_tags(manifest)]
    cut = result_of(evidence.measurements)
    if cut and (cut.perplexities or cut.tasks):
        results = [_result(p) for p in cut.perplexities] + [_task_result(t) for t in cut.tasks]
        front["model-index"] = [{"name": line(evidence.title), "results": results}]
    return front


def _task_result(t: TaskResult) -> dict[str, Any]:
    owner, name, *config = [*t.dataset.split("/"), ""][:4]
    dataset = {"type": f"{owner}/{name}" if is_hub_id(f"{owner}/{name}") else line(t.task), "name": line(t.task)}
    dataset |= {"config": line(config[0])} if config and config[0] else {}
    return {
        "task": {"type": "text-generation", "name": f"{line(t.task)} ({t.shots}-shot)"},
        "dataset": dataset,
        "metrics": [
            {"type": line(t.metric), "name": line(t.metric), "value": float(f"{t.value:.6g}"), "verified": False}
        ],
    }


def _result(p: Perplexity) -> dict[str, Any]:
    name = public(p.text)
    return {
        "task": {"type": "text-generation", "name": "Language modelling"},
        "dataset": {"type": line(p.data.source) if name == p.text else "text", "name": line(name)},
        "metrics": [{"type": "perplexity", "name": "Perplexity", "value": float(f"{p.perplexity:.6g}")}],
    }
