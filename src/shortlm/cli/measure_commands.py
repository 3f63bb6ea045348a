"""The commands that measure and show: eval, bench, compare, report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import THE_MODEL, Force, Out, app, force_option, out_option
from shortlm.cli.preset_options import preset_of, presets_of
from shortlm.cli.result import hand_over, save_and_show, say
from shortlm.cli.streams import print_line
from shortlm.completing import models as models_typed
from shortlm.options import SHORT, with_settings
from shortlm.recipe import (
    BenchSettings,
    EvalSettings,
    ModelSettings,
    TextSettings,
    WorkloadSettings,
    bench_of,
    benching_of,
    validated,
)

Prompts = Annotated[list[str] | None, typer.Option("--prompt", help="Prompt of text samples; again for each.")]
Local = Annotated[
    list[str] | None,
    typer.Option(
        "--local", help="NAME=FILE: a local file in place of the hub data of a task or a preset's text; again for each."
    ),
]
OWN = ("source", "texts", "held_out", "prompts", "local", "name")  # settings that the commands take in their own way


@app.command(
    "eval",
    examples=[
        "shortlm eval shorter --text wiki.txt --sequences 100",
        "shortlm eval shorter --tasks arc_easy,hellaswag --out eval.json",
        "shortlm eval shorter --preset shortened-llm --local ptb=ptb.valid.txt",
    ],
)
@with_settings(ModelSettings, TextSettings, EvalSettings, omit=OWN, only_given=True, sequences=64, asks_model=THE_MODEL)
def evaluate(
    model_settings: Any,
    text_settings: Any,
    eval_settings: Any,
    preset: Annotated[str | None, preset_of("eval")] = None,
    presets: Annotated[bool, presets_of("eval")] = False,
    prompt: Prompts = None,
    local: Local = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Measure a model: perplexity with its standard error, tasks of lm-evaluation-harness, samples of its text."""
    from shortlm.checkpoint import short_names
    from shortlm.console import show_measurement
    from shortlm.evaluate import evaluate as do_evaluate
    from shortlm.outputs import refuse_existing
    from shortlm.recipe import evaluation_of
    from shortlm.report.quality import trained_notes

    if out:
        refuse_existing(out, force)
    given = eval_settings | {name: v for name, v in (("prompts", prompt), ("local", local)) if v}
    settings = evaluation_of(preset, given, text_settings)
    model = validated(ModelSettings, model_settings)
    if not settings.texts and "text" not in text_settings:
        say("no text is named (--text), so no perplexity is measured")
    measurement = do_evaluate(model, settings, short_names([model.model])[0])
    for note in trained_notes([measurement]):
        say(note)
    save_and_show(measurement, out, force, show_measurement)


MODELS = "Checkpoint folders, hub ids or 'embedded'; the first is the reference."
Models = Annotated[list[str] | None, typer.Argument(metavar="MODELS", help=MODELS, autocompletion=models_typed)]
More = Annotated[
    list[str] | None,
    typer.Option("--model", SHORT["model"], help="The same as an option; again for each.", autocompletion=models_typed),
]


def _named(models: list[str] | None, more: list[str] | None) -> list[str]:
    from shortlm.errors import RecipeError

    if not (names := [*(models or []), *(more or [])]):
        raise RecipeError("which models? give folders, hub ids, or 'embedded' (the tiny model inside)")
    return names


@app.command(
    "bench",
    examples=[
        "shortlm bench ./llama-7b ./shorter --batches 1,8 --output-tokens 128",
        "shortlm bench ./llama-7b ./shorter --limits --out bench.json",
    ],
)
@with_settings(
    ModelSettings, WorkloadSettings, BenchSettings, only_given=True,
    omit=("model", "stream", "revision", "workloads", "source"),
)  # fmt: skip
def benchmark(
    model_settings: Any,
    workload_settings: Any,
    bench_settings: Any,
    models: Models = None,
    more: More = None,
    preset: Annotated[str | None, preset_of("bench")] = None,
    presets: Annotated[bool, presets_of("bench")] = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Measure speed and memory of models, in turns: latency, time to the first token, throughput, peaks, limits."""
    from shortlm.bench import bench
    from shortlm.checkpoint import short_names
    from shortlm.console import show_benchmark
    from shortlm.outputs import refuse_existing

    if out:
        refuse_existing(out, force)
    settings = validated(BenchSettings, benching_of(preset, workload_settings | bench_settings))
    names = _named(models, more)
    opened = [validated(ModelSettings, model_settings | {"model": name}) for name in names]
    found = bench(opened, settings, short_names(names), say=say)
    save_and_show(found, out, force, show_benchmark)


@app.command(
    examples=[
        "shortlm compare ./llama-7b ./shorter ./healed --out comparison",
        "shortlm compare ./llama-7b ./shorter --out comparison --tasks commonsense-7 --bench none",
        "shortlm compare contests/embedded --out depth-vs-width",
    ]
)
@with_settings(
    ModelSettings, TextSettings, EvalSettings, omit=(*OWN, "model", "revision"), only_given=True, sequences=64
)
def compare(
    model_settings: Any,
    text_settings: Any,
    eval_settings: Any,
    out: Annotated[Path, out_option("The folder of the comparison.")],
    models: Models = None,
    more: More = None,
    preset: Annotated[str | None, preset_of("eval", "Published settings of 'eval'.")] = None,
    bench: Annotated[str, typer.Option(help="Preset or YAML file of 'bench'; 'default', or 'none'.")] = "default",
    prompt: Prompts = None,
    local: Local = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Comparison",
    force: Annotated[bool, force_option("Redo what was made with other settings.")] = False,
) -> None:
    """Measure quality and speed of any checkpoints and draw one page: report.html, report.md, results.json, .csv.

    Given a recipe with `ways` in place of models: make one model smaller in all of these ways, then compare them.
    """
    from shortlm.progress import is_main
    from shortlm.recipe import evaluation_of, shipped
    from shortlm.run import compare as do_compare

    names = _named(models, more)
    if any(name.endswith((".yaml", ".yml")) or name in shipped() for name in names):
        given = model_settings or text_settings or eval_settings or preset or prompt or local or bench != "default"
        return _compare_ways(names, bool(given), out, force)
    given = eval_settings | {name: v for name, v in (("prompts", prompt), ("local", local)) if v}
    settings = evaluation_of(preset, given, text_settings)
    opened = [validated(ModelSettings, model_settings | {"model": name}) for name in names]
    page = do_compare(opened, settings, bench_of(bench), out, title, force, say)
    if is_main():
        hand_over_page(page)


def _compare_ways(names: list[str], options: bool, out: Path, force: bool) -> None:
    from shortlm.errors import RecipeError
    from shortlm.recipe import load_contest
    from shortlm.run import compare_ways

    if len(names) > 1 or options:
        raise RecipeError(f"{names[0]}: a recipe of ways says all settings; give it alone, with --out and --force")
    hand_over_page(compare_ways(load_contest(names[0]), out, force, say))


def hand_over_page(page: Path, show: Callable[[], object] = lambda: None) -> None:
    """What a folder with a page comes to: its results.json. `show` prints more before the page is named."""

    def shown() -> None:
        show()
        print_line(f"open {page}", sys.stdout)

    results = page.with_name("results.json")
    hand_over(json.loads(results.read_text(encoding="utf-8")), page, results, show=shown)


@app.command(
    examples=[
        "shortlm report --scores scores.json --plan plan.json --out report.html",
        "shortlm report --eval dense.json --eval shorter.json --bench bench.json --out report.html",
    ]
)
def report(
    out: Annotated[Path, out_option("The HTML page.")],
    scores: Annotated[Path | None, typer.Option(help="A file of 'score'.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A file of 'choose'.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="The manifest.json of a cut checkpoint.")] = None,
    healing: Annotated[Path | None, typer.Option(help="The healing.json of a healed checkpoint.")] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="A file of 'eval'; the first is the reference.")
    ] = None,
    bench: Annotated[Path | None, typer.Option(help="A file of 'bench'.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "shortlm report",
    force: Force = False,
) -> None:
    """Draw one self-contained HTML page from the files of the other commands."""
    from shortlm.errors import OutputError
    from shortlm.report import evidence_from_files, write_page

    if not (scores or plan or manifest or healing or evals or bench):
        raise OutputError("nothing to report; give --scores, --plan, --manifest, --healing, --eval or --bench")
    hand_over(None, write_page(out, evidence_from_files(title, scores, plan, manifest, healing, evals, bench), force))
