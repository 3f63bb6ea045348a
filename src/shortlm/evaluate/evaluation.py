"""The verb: open a model, measure its perplexity on every text, ask it the tasks, let it write."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from shortlm.artifacts import Measurement, Perplexity, provenance
from shortlm.errors import RecipeError, TextError
from shortlm.evaluate.fluency import fluency, of_the_same_length
from shortlm.evaluate.harness import check_tasks, loaded_tasks
from shortlm.evaluate.history import sources_of
from shortlm.evaluate.perplexity import perplexity
from shortlm.evaluate.samples import sample_prompts, write_samples
from shortlm.evaluate.task_names import wanted
from shortlm.model import ModelFiles, OpenModel, context_of, open_files, vocabulary
from shortlm.paths import user_path
from shortlm.recipe import EvalSettings, ModelSettings, Plain, SourceSettings, TextSettings, settings_of, trained_on
from shortlm.sweep import Schedule, Work, schedule_for
from shortlm.text import Windows, open_windows
from shortlm.vocabulary import only_own_ids


def evaluate(
    model: ModelSettings | Plain, settings: EvalSettings | Mapping[str, object] | None = None, role: str = "model",
    key: str | None = None,
) -> Measurement:  # fmt: skip
    """Measure one model. Raises ShortLMError for bad input; there must be a text or a task."""
    started = time.perf_counter()
    model, settings = settings_of(ModelSettings, model), settings_of(EvalSettings, settings)
    settings = settings.for_model(model.model).with_local_texts()
    files, windows = _opened(model, settings)
    schedules = [schedule_for(files, Work(*w.shape), settings.batch_size) for w in windows]
    healed_on = sources_of(files.checkpoint.folder)
    opened = files.open(any(p and p.streamed for p in schedules) if schedules else not files.fits())
    prompts = sample_prompts(opened, settings, windows[0].ids_BT[0].tolist() if windows else [])
    with only_own_ids(opened.model, opened.facts.name), loaded_tasks(opened, settings) as tasks:
        measured = [
            _perplexity(opened, text, ids, schedule, settings, healed_on)
            for text, ids, schedule in zip(settings.texts, windows, schedules, strict=True)
        ]
        found = tasks()
        written = _written(opened, settings, prompts, windows) if prompts else {}
    return Measurement(
        model=opened.facts, role=role, bytes=opened.checkpoint.nbytes, perplexities=measured, tasks=found.tasks,
        task_means=found.means, **written,
        provenance=provenance(str(opened.device), opened.dtype, round(time.perf_counter() - started, 3), key),
    )  # fmt: skip


def check_evaluation(models: list[ModelSettings], settings: EvalSettings) -> None:
    """Raise what `evaluate` would for texts, tasks and their data, before any weight is read."""
    settings = settings.for_model(models[0].model).with_local_texts()
    for model in models:
        _opened(model, settings)
    check_tasks(settings)


def _opened(model: ModelSettings, settings: EvalSettings) -> tuple[ModelFiles, list[Windows]]:
    asked = wanted(settings.tasks).names
    if not (settings.texts or asked or settings.prompts):
        raise RecipeError("nothing to measure: give --text, --tasks or --prompt")
    _refuse_unused_files(settings, asked)
    files = open_files(model)
    return files, [_windows(text, files, settings) for text in settings.texts]


def _perplexity(
    opened: OpenModel,
    text: TextSettings,
    windows: Windows,
    schedule: Schedule | None,
    settings: EvalSettings,
    healed_on: list[SourceSettings],
) -> Perplexity:
    schedule = schedule if schedule and schedule.streamed == bool(opened.disk) else None
    measured = perplexity(opened, windows, settings.batch_size, schedule)
    seen = any(trained_on(text, source) for source in healed_on)
    return measured.model_copy(update={"text": text.name or measured.text, "healed_on": seen})


def _windows(text: TextSettings, files: ModelFiles, settings: EvalSettings) -> Windows:
    """The way out for texts of a preset is --local, which leaves their other settings as they were published."""
    context = context_of(files.config)
    if text.ids is None and context is not None and text.length > context:
        raise TextError(f"--length {text.length}: is more than the model's context of {context}; give a smaller one")
    try:
        return open_windows(text, files.tokenizer, vocabulary(files.config))
    except TextError as error:
        if not text.name:
            raise
        missing = {t.data_name for t in settings.texts if t.name and not user_path(t.text).exists()}
        local = " ".join(f"--local {name}=FILE" for name in sorted(missing))
        raise TextError(f"{error}; for this preset: {local}") from error


def _written(
    opened: OpenModel, settings: EvalSettings, prompts: list[list[int]], windows: list[Windows]
) -> dict[str, Any]:
    """Samples and how fluent they are, as fields of the Measurement."""
    samples, ids = write_samples(opened, settings, prompts)
    rows = windows[0].ids_BT.tolist() if windows else []
    text = fluency(of_the_same_length(rows, ids)) if len(rows) >= len(ids) else None
    return {"samples": samples, "fluency": fluency(ids), "text_fluency": text, "sampling": _sampling(settings)}


def _sampling(settings: EvalSettings) -> str:
    if not settings.temperature:
        return "greedy decoding"
    limits = [f"top-k {settings.top_k}"] * bool(settings.top_k) + [f"top-p {settings.top_p}"] * (settings.top_p < 1)
    return ", ".join([f"temperature {settings.temperature:g}", *limits, f"seed {settings.sample_seed}"])


def _refuse_unused_files(settings: EvalSettings, tasks: list[str]) -> None:
    """Where tasks are asked too, loaded_tasks knows their names."""
    texts = {text.data_name for text in settings.texts}
    unused = next((name for name in settings.local_files() if name not in texts), None)
    if unused and not tasks:
        known = ", ".join(sorted(texts)) or "none"
        raise RecipeError(f"--local {unused}: no text of that name is measured (texts: {known}), and no task is asked")
