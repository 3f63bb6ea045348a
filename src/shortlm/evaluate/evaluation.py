"""The verb: open a model, measure its perplexity on every text, let it write."""

from __future__ import annotations

import time

from shortlm.artifacts import Measurement, provenance
from shortlm.evaluate.perplexity import perplexity
from shortlm.evaluate.samples import prompt_ids, write_sample
from shortlm.model import open_files
from shortlm.recipe import EvalSettings, ModelSettings
from shortlm.sweep import Work, plan_for
from shortlm.text import open_windows


def evaluate(model: ModelSettings, settings: EvalSettings, role: str = "model", key: str | None = None) -> Measurement:
    """Measure one model. Raises ShortLMError for bad input; `settings.texts` must name at least one text."""
    started = time.perf_counter()
    files = open_files(model)
    texts = [text.for_model(model.model) for text in settings.texts]
    windows = [open_windows(text, files.tokenizer, files.config.vocab_size) for text in texts]
    plans = [plan_for(files, Work(*w.shape), settings.batch_size) for w in windows]
    opened = files.open(any(plan is not None and plan.streamed for plan in plans))
    plans = [plan if plan and plan.streamed == bool(opened.disk) else None for plan in plans]
    measured = [perplexity(opened, w, settings.batch_size, plan) for w, plan in zip(windows, plans, strict=True)]
    samples = []
    if settings.new_tokens and opened.tokenizer is not None and opened.disk is None:  # too slow from disk
        ids = prompt_ids(opened.tokenizer, settings.prompt, windows[0].ids_BT[0].tolist())
        samples = [write_sample(opened.model, opened.tokenizer, ids, settings.new_tokens)]
    return Measurement(
        model=opened.facts, role=role, bytes=opened.checkpoint.nbytes, perplexities=measured, samples=samples,
        provenance=provenance(str(opened.device), opened.dtype, round(time.perf_counter() - started, 3), key),
    )  # fmt: skip
