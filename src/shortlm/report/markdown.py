"""Markdown of the card and of report.md: the same tables, and texts that mean nothing to Markdown or HTML."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shortlm.artifacts import CutPlan
from shortlm.outputs import write_text
from shortlm.report import numbers
from shortlm.report.evidence import Evidence
from shortlm.report.headline import headline
from shortlm.report.origin import model_rows
from shortlm.report.quality import comparison, trained_notes
from shortlm.report.repair import MOST, fold_rows, nats, repair_of, won_back
from shortlm.report.search import ways
from shortlm.report.search_words import objective, sentences
from shortlm.report.speed import bench_notes, limit_pairs, noise_warnings, shares, speed_rows, types_of
from shortlm.report.tasks import task_rows
from shortlm.report.units import units_text

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")


def write_markdown(path: Path | str, evidence: Evidence, force: bool = False) -> Path:
    """report.md: the page's figures as tables, for pull requests and chats."""
    measured = evidence.measurements
    text = environment().get_template("report.md.jinja").render(
        title=evidence.title, plan=evidence.plan, headline=headline(evidence), measurements=measured,
        models=model_rows(evidence), samples=any(m.samples for m in measured), **_searched(evidence.plan),
        **tables(evidence),
    )  # fmt: skip
    return write_text(path, re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", force)


def tables(evidence: Evidence) -> dict[str, Any]:
    """What tables.md.jinja shows."""
    measured, benchmark = evidence.measurements, evidence.benchmark
    return {
        "rows": comparison(measured), "trained": trained_notes(measured),
        "task_rows": task_rows(measured), "benchmark": benchmark,
        "speed": speed_rows(benchmark), "warnings": noise_warnings(benchmark), "bench_notes": bench_notes(benchmark),
        "shares": shares(benchmark),
        "limits": limit_pairs(benchmark), "types": types_of(benchmark) if benchmark else "",
    } | _repaired(evidence)  # fmt: skip


def _repaired(evidence: Evidence) -> dict[str, Any]:
    """What repair.md.jinja shows."""
    step = repair_of(evidence)
    if step is None:
        return {"repair": None}
    folds = fold_rows(step)
    return {
        "repair": step, "losses": nats(step.loss), "won_back": won_back(step.loss), "folds": folds[:MOST],
        "more_folds": len(folds[MOST:]),
    }  # fmt: skip


def _searched(plan: CutPlan | None) -> dict[str, Any]:
    """What report.md says of a search."""
    found = ways(plan) if plan else []
    return {
        "ways": found, "sentences": sentences(plan) if plan else [],
        "held_out": any(way.last.held_out for way in found), "objective": objective(plan.search) if plan else "",
    }  # fmt: skip


def public(name: str) -> str:
    """A card is published: of an absolute path, only the last part is shown."""
    local = name.startswith("~") or PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    return PureWindowsPath(name).name if local else name


def environment() -> Environment:
    """Markdown, so no HTML autoescape: every untrusted text goes through `md`, `code` or `shell` instead."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=False, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    for name in ("count", "size", "significant", "duration", "blocks", "signed", "whole"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters |= {
        "units": units_text,
        "public": public,
        "md": _md,
        "code": _code,
        "shell": shell_word,
        "quoted": _quoted,
    }
    functions: dict[str, Any] = {"with_error": numbers.with_error, "change": numbers.change, "chance": numbers.chance}
    environment.globals.update(functions)
    return environment


def line(text: object) -> str:
    """Without line breaks."""
    return " ".join(str(text).split())


def _md(text: str) -> str:
    """Text that means nothing to Markdown or HTML, on one line."""
    return MARKDOWN.sub(r"\\\1", line(text))


def _quoted(text: str) -> str:
    """Line by line, as a quotation: a broken layout is part of what a sample shows."""
    return "\n".join(f"> {_md(part)}".rstrip() + "  " for part in text.strip().split("\n"))


def _code(text: str) -> str:
    """A code span; it has no escapes, so it is fenced by more backticks than the text has in a row."""
    shown = line(text).replace("|", "¦")
    if "`" not in shown:
        return f"`{shown}`"
    fence = "`" * (max(map(len, re.findall("`+", shown))) + 1)
    return f"{fence} {shown} {fence}"


def shell_word(text: str) -> str:
    """One word of a command line, on one line."""
    return shlex.quote(line(text))
