"""The model card: a README.md that a hub shows properly, with the numbers of this cut and how to repeat it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shortlm.artifacts import Healing, Manifest, Measurement, Perplexity
from shortlm.report import numbers
from shortlm.report.criteria import explanation
from shortlm.report.origin import data_rows, stage_rows, version_rows
from shortlm.report.quality import comparison, dense_first, result_of

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")


def model_card(
    manifest: Manifest,
    measurements: list[Measurement],
    *,
    title: str,
    license: str | None,
    base_model: str | None,
    language: str | list[str] | None = None,
    healing: Healing | None = None,
) -> str:
    """README.md of a cut checkpoint: Markdown behind YAML front matter.

    `license` and `language` are the hub's identifiers. `base_model` is linked only if it has the form of a
    hub id (owner/name).
    """
    measurements = dense_first(measurements)
    base = public(base_model or manifest.plan.model.name)
    body = _environment().get_template("card.md.jinja").render(
        title=title, healing=healing, plan=manifest.plan, manifest=manifest, proof=manifest.proof, base=base,
        linked=is_hub_id(base_model), rows=comparison(measurements), about=explanation(manifest.plan.criterion),
        measurements=measurements, data=data_rows(None, measurements),
        stages=stage_rows(None, None, manifest, measurements),
        versions=version_rows(None, None, manifest, measurements),
    )  # fmt: skip
    front = _front_matter(measurements, title, license, base_model, language)
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{body.strip()}\n"


def is_hub_id(name: str | None) -> bool:
    """Whether `name` has the form owner/name, not that of a path."""
    return bool(name and HUB_ID.fullmatch(name))


def public(name: str) -> str:
    """A card is published: of an absolute path, only the last part is shown."""
    local = name.startswith("~") or PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    return PureWindowsPath(name).name if local else name


def _front_matter(
    measurements: list[Measurement], title: str, license: str | None, base_model: str | None, language: Any
) -> dict[str, Any]:
    """What the hub reads. It knows no relation for cut models; "finetune" is its default, and true of healed ones."""
    front: dict[str, Any] = {}
    if language:
        front["language"] = language
    if license:
        front["license"] = license
    if is_hub_id(base_model):
        front |= {"base_model": base_model, "base_model_relation": "finetune"}
    front |= {"library_name": "transformers", "pipeline_tag": "text-generation"}
    front["tags"] = ["shortlm", "depth-pruning", "pruned"]
    cut = result_of(measurements)
    if cut and cut.perplexities:
        front["model-index"] = [{"name": _line(title), "results": [_result(p) for p in cut.perplexities]}]
    return front


def _result(p: Perplexity) -> dict[str, Any]:
    name = public(p.text)
    return {
        "task": {"type": "text-generation", "name": "Language modelling"},
        "dataset": {"type": _line(p.data.source) if name == p.text else "text", "name": _line(name)},
        "metrics": [{"type": "perplexity", "name": "Perplexity", "value": float(f"{p.perplexity:.6g}")}],
    }


def _environment() -> Environment:
    """Markdown, so no HTML autoescape: every untrusted text goes through `md`, `code` or `shell` instead."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=False, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    for name in ("count", "size", "significant", "duration", "blocks", "signed", "whole"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters |= {"public": public, "md": _md, "code": _code, "shell": _shell}
    functions: dict[str, Any] = {"with_error": numbers.with_error, "change": numbers.change}
    environment.globals.update(functions)
    return environment


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _md(text: str) -> str:
    """Text that means nothing to Markdown or HTML, on one line."""
    return MARKDOWN.sub(r"\\\1", _line(text))


def _code(text: str) -> str:
    """A code span; it has no escapes, so it is fenced by more backticks than the text has in a row."""
    line = _line(text).replace("|", "¦")
    if "`" not in line:
        return f"`{line}`"
    fence = "`" * (max(map(len, re.findall("`+", line))) + 1)
    return f"{fence} {line} {fence}"


def _shell(text: str) -> str:
    """One word of a command line, on one line."""
    return shlex.quote(_line(text))
