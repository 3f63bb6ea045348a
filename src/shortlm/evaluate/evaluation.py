"""The verb: open a model, measure its perplexity on every text, ask it the tasks, let it write."""

from __future__ import annotations

import time
from typing import Any

from shortlm.artifacts import Measurement, Perplexity, provenance
from shortlm.errors import RecipeError
from shortlm.evaluate.fluency import fluency, of_the_same_length
from shortlm.evaluate.harness import run_tasks
from shortlm.evaluate.perplexity import perplexity
from shortlm.evaluate.samples import write_samples
from shortlm.model import ModelFiles, OpenModel, open_files
from shortlm.recipe import EvalSettings, ModelSettings
from shortlm.sweep import Work, plan_for
from shortlm.text import Windows, open_windows


def evaluate(model: ModelSettings, settings: EvalSettings, role: str = "model", key: str | None = None) -> Measurement:
    """Measure one model. Raises ShortLMError for bad input; there must be a text or a task."""
    started = time.perf_counter()
    settings = settings.for_model(model.model).with_local_texts()
    _refuse_unused_files(settings)
    files = open_files(model)
    opened, windows, measured = _perplexities(files, settings)
    found = run_tasks(opened, settings)
    written: dict[str, Any] = {}
    wants = settings.samples and settings.new_tokens and (settings.prompts or windows)
    if wants and opened.tokenizer is not None and opened.disk is None:  # too slow from disk
        written = _written(opened, settings, windows)
    return Measurement(
        model=opened.facts, role=role, bytes=opened.checkpoint.nbytes, perplexities=measured, tasks=found.tasks,
        task_means=found.means, **written,
        provenance=provenance(str(opened.device), opened.dtype, round(time.perf_counter() - started, 3), key),
    )  # fmt: skip


def _perplexities(files: ModelFiles, settings: EvalSettings) -> tuple[OpenModel, list[Windows], list[Perplexity]]:
    texts = settings.texts
    windows = [open_windows(text, files.tokenizer, files.config.vocab_size) for text in texts]
    plans = [plan_for(files, Work(*w.shape), settings.batch_size) for w in windows]
    streamed = any(plan is not None and plan.streamed for plan in plans) or (not plans and not files.fits())
    opened = files.open(streamed)
    plans = [plan if plan and plan.streamed == bool(opened.disk) else None for plan in plans]
    measured = [perplexity(opened, w, settings.batch_size, plan) for w, plan in zip(windows, plans, strict=True)]
    named = [p.model_copy(update={"text": t.name or p.text}) for p, t in zip(measured, texts, strict=True)]
    return opened, windows, named


def _written(opened: OpenModel, settings: EvalSettings, windows: list[Windows]) -> dict[str, Any]:
    """Samples and how fluent they are, as fields of the Measurement."""
    rows = windows[0].ids_BT.tolist() if windows else []
    samples, ids = write_samples(opened, settings, rows[0] if rows else [])
    text = fluency(of_the_same_length(rows, ids)) if len(rows) >= len(ids) else None
    return {"samples": samples, "fluency": fluency(ids), "text_fluency": text, "sampling": _sampling(settings)}


def _sampling(settings: EvalSettings) -> str:
    if not settings.temperature:
        return "always the likeliest token"
    limits = [f"top-k {settings.top_k}"] * bool(settings.top_k) + [f"top-p {settings.top_p}"] * (settings.top_p < 1)
    return ", ".join([f"temperature {settings.temperature:g}", *limits, f"seed {settings.sample_seed}"])


def _refuse_unused_files(settings: EvalSettings) -> None:
    """Where tasks are asked too, run_tasks knows their names."""
    texts = {text.data_name for text in settings.texts}
    unused = next((name for name in settings.local_files() if name not in texts), None)
    if unused and not settings.tasks:
        known = ", ".join(sorted(texts)) or "none"
        raise RecipeError(f"--local {unused}: no text of that name is measured (texts: {known}), and no task is asked")
