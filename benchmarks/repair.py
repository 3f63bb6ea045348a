"""Ways of repair without training on real models: loss on validation and held-out text, share of lost nats won back.

Writes results/repair.json and the tables of docs/repair.md; the rest of that page is left as it is. Blocks are removed
as results/choosing.json chose them. The shared models and texts are used where they are there.

    python benchmarks/repair.py [--only MODEL]              goes on where it was stopped
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from choosing import HERE, MODELS
from repair_references import METHODS as REFERENCES, patched

from shortlm.artifacts import Perplexity, TaskResult
from shortlm.cut import cut
from shortlm.errors import ModelError
from shortlm.evaluate import evaluate, perplexity
from shortlm.evaluate.harness import run_tasks
from shortlm.model import open_model
from shortlm.recipe import CutSettings, EvalSettings, ModelSettings, RepairSettings, TextSettings
from shortlm.repair import repair
from shortlm.statistics import stderr
from shortlm.text import Windows, open_windows

VERB = [
    "none",
    "scale:prune-and-comp",
    "linear:replaceme",
    "linear:replaceme-cosine",
    "linear",
    "refit:attention=false",
    "auto",
]
WAYS = ["one-shot ppl", "greedy", "auto"]
TASKS = EvalSettings(tasks=["default"], samples=0, new_tokens=0).for_model("embedded")
DRAWS, HELD_OUT = 3, 128  # draws of the calibration text; windows
AMOUNTS = [25, 50, 100, 200, 400]
VARIANTS = {f"auto, {n} windows": {"calibration": n} for n in AMOUNTS} | {
    "auto, weighting norm": {"weighting": "norm"},
    "linear, weighting norm": {"method": "linear", "weighting": "norm"},
    "refit before gaps, no attention": {"method": "refit:attention=false,everywhere=false"},
    "refit before gaps": {"method": "refit:everywhere=false"},
    "refit everywhere, no attention": {"method": "refit:attention=false"},
}
VARIANTS_TITLE = "embedded, variants of refit"
BEGIN, END = "<!-- tables by benchmarks/repair.py -->", "<!-- end of the tables -->"
PAGE = HERE.parent / "docs" / "repair.md"
RESULTS = HERE / "results" / "repair.json"
Before = tuple[Perplexity, list[TaskResult]]  # of the cut model
FAILED = "not written"


@dataclass(frozen=True)
class Case:
    """A dense model, its text, what is removed, and a folder in which the cut model lies as `cut`."""

    name: str
    removed: list[int]
    folder: Path

    @property
    def dense(self) -> ModelSettings:
        return ModelSettings(model=MODELS[self.name][0])

    @property
    def cut(self) -> ModelSettings:
        return ModelSettings(model=str(self.folder / "cut"))

    def text(self, draw: int) -> TextSettings:
        """Calibration text: of its own seed, or of a place behind the held-out windows."""
        text = MODELS[self.name][1]
        return TextSettings(text=text, **({"seed": 1000 + draw} if text == "embedded" else {"skip": 1000 + 500 * draw}))


def held_out(name: str) -> TextSettings:
    """In no draw, and nowhere where blocks were chosen."""
    text = MODELS[name][1]
    place = {"seed": 2**40} if text == "embedded" else {"skip": 200}
    return TextSettings(text=text, sequences=HELD_OUT, **place)


def main() -> None:
    """All models that are there, or one. What is in the results is kept: what is to be measured anew, remove there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*MODELS, "variants", "page"])
    given = parser.parse_args()
    tables = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, (model, _) in MODELS.items():
        if given.only in (None, name) and (model == "embedded" or Path(model).is_dir()):
            for drop in ("25%", "50%"):
                complete(tables, name, drop)
    if given.only in (None, "variants"):
        tables[VARIANTS_TITLE] = []
        for drop in ("25%", "50%"):
            tables[VARIANTS_TITLE].append(variants(drop))
            save(tables)
    write_page(tables)


def save(tables: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(tables, indent=1) + "\n")


def sets(name: str, drop: str) -> dict[str, list[str]]:
    """What is removed, and by which ways; equal sets once."""
    rows = json.loads((HERE / "results" / "choosing.json").read_text())[f"{name}, {drop} of the blocks"]
    chosen = {row["way"]: row["removed"] for row in rows}
    return {chosen[way]: [other for other in WAYS if chosen[other] == chosen[way]] for way in WAYS}


def complete(tables: dict[str, Any], name: str, drop: str) -> None:
    """What a table lacks is measured, and kept as soon as it is there."""
    whole = measured(ModelSettings(model=MODELS[name][0]), name, name == "embedded")
    tasks = accuracy(whole[1], None) if whole[1] else None
    new = {"held_out": whole[0].nats_per_token, "tasks": tasks, "cuts": []}
    found = tables.setdefault(f"{name}, {drop} of the blocks", new)
    for removed, ways in sets(name, drop).items():
        one = next((one for one in found["cuts"] if one["removed"] == removed), None)
        if one is None:
            one = {"removed": removed, "chosen_by": ways, "held_out": None, "rows": {}}
            found["cuts"].append(one)
        if not is_complete(one):
            one_cut(tables, one, name)


def is_complete(one: dict[str, Any]) -> bool:
    return all(method in one["rows"] for method in [*VERB, *REFERENCES])


def one_cut(tables: dict[str, Any], one: dict[str, Any], name: str) -> None:
    """All methods that aren't there yet, in all draws."""
    with tempfile.TemporaryDirectory() as folder:
        case = cut_case(name, one["removed"], Path(folder))
        before = measured(case.cut, name, name == "embedded")
        one["held_out"] = before[0].nats_per_token
        for method in [m for m in [*VERB, *REFERENCES] if m not in one["rows"]]:
            one["rows"][method] = one_method(case, method, before)
            print(name, one["removed"], method, json.dumps(one["rows"][method]), flush=True)
            save(tables)


def one_method(case: Case, method: str, before: Before) -> dict[str, Any]:
    """In all draws; nothing but the message of one that can't be written."""
    way = repaired if method in VERB else with_reference
    draws = range(DRAWS if method != "none" else 1)
    try:
        found = [way(case, RepairSettings(method=method), draw, before) for draw in draws]
    except ModelError as error:
        return {"draws": [], "failed": str(error)}
    tasks = {"tasks": accuracy(found[0][1], before[1])} if before[1] else {}
    return {"draws": [row for row, _ in found]} | tasks


def cut_case(name: str, removed: str, folder: Path) -> Case:
    """With the cut model written."""
    case = Case(name, [int(block) for block in removed.split(",")], folder)
    cut(case.dense, case.removed, CutSettings(), case.cut.model)
    return case


def measured(model: ModelSettings, name: str, tasks: bool) -> tuple[Perplexity, list[TaskResult]]:
    """A checkpoint on the held-out windows, and what it knows of the village."""
    asked = TASKS if tasks else EvalSettings(samples=0, new_tokens=0)
    found = evaluate(model, asked.model_copy(update={"texts": [held_out(name)]}))
    return found.perplexities[0], found.tasks


def repaired(
    case: Case, settings: RepairSettings, draw: int, before: Before
) -> tuple[dict[str, Any], list[TaskResult]]:
    """A row of the verb, and the tasks of what it delivers in the first draw."""
    out = case.folder / "repaired"
    step = repair(case.cut, case.dense, case.text(draw), settings, out, force=True, always=True).repair
    assert step is not None
    asked, model = bool(before[1]) and draw == 0, ModelSettings(model=str(out))
    after, tasks = measured(model, case.name, asked) if step.delivered else before
    losses = {"dense": step.loss.dense, "cut": step.loss.cut, "repaired": step.loss.repaired}
    fits = [[fold.tokens, fold.unknowns] for fold in step.folds if fold.unknowns]
    unchanged = sum(fold.ridge is None and fold.factor is None for fold in step.folds)
    more = {"weights": len(step.folds), "unchanged": unchanged, "tokens_and_unknowns": fits}
    return row(losses, step.delivered, after, before[0]) | more, tasks


def with_reference(
    case: Case, settings: RepairSettings, draw: int, before: Before
) -> tuple[dict[str, Any], list[TaskResult]]:
    """The same of a reference; where the verb would refuse, so does this."""
    dense, ours = open_model(case.dense), open_model(case.cut)
    windows = read(dense, case.text(draw), settings.calibration + settings.validation)
    fit, validation = windows.part(slice(settings.calibration)), windows.part(slice(settings.calibration, None))
    losses = {"dense": perplexity(dense, validation), "cut": perplexity(ours, validation)}
    kept = [i for i in range(len(dense.anatomy.blocks)) if i not in case.removed]
    patched(ours, dense, kept, fit, validation, settings)
    losses["repaired"] = perplexity(ours, validation)
    nats = {what: found.nats_per_token for what, found in losses.items()}
    delivered = nats["repaired"] <= nats["cut"]
    after = perplexity(ours, read(dense, held_out(case.name), HELD_OUT)) if delivered else before[0]
    wanted = run_tasks(ours, TASKS).tasks if before[1] and draw == 0 and delivered else before[1]
    return row(nats, delivered, after, before[0]), wanted


def read(dense: Any, text: TextSettings, count: int) -> Windows:
    text = text.model_copy(update={"sequences": count})
    return open_windows(text, dense.tokenizer, dense.model.config.vocab_size)


def row(losses: dict[str, float], delivered: bool, after: Perplexity, before: Perplexity) -> dict[str, Any]:
    """Validation: what the method comes to; held-out: what is delivered, its error that of the change, by windows."""
    change = [b - a for a, b in zip(before.per_sequence_nats, after.per_sequence_nats, strict=True)]
    error = stderr([nats / n for nats, n in zip(change, after.tokens_per_sequence, strict=True)])
    return {
        "validation": losses, "delivered": delivered, "held_out": after.nats_per_token, "held_out_change_stderr": error
    }  # fmt: skip


def accuracy(tasks: list[TaskResult], before: list[TaskResult] | None) -> dict[str, Any]:
    """Choices and answers, of all questions; their change against the cut model, paired by question."""
    found = {}
    for what, writes in (("choices", False), ("answers", True)):
        right, other = questions(tasks, writes), questions(before or [], writes)
        found[what] = [statistics.mean(right), stderr(right)]
        if other:
            change = [a - b for a, b in zip(right, other, strict=True)]
            found[f"{what}_change"] = [statistics.mean(change), stderr(change)]
    return found


def questions(tasks: list[TaskResult], writes: bool) -> list[float]:
    return [value for task in tasks if task.generates == writes for value in task.per_question]


def variants(drop: str) -> dict[str, Any]:
    """How much text is enough, and what each part of refit gives; the set of auto, the first draw."""
    removed = next(removed for removed, ways in sets("embedded", drop).items() if "auto" in ways)
    with tempfile.TemporaryDirectory() as folder:
        case = cut_case("embedded", removed, Path(folder))
        before = measured(case.cut, "embedded", False)
        rows = {}
        for title, settings in VARIANTS.items():
            rows[title] = {"draws": [repaired(case, RepairSettings(**settings), 0, before)[0]]}
            print(removed, title, json.dumps(rows[title]), flush=True)
    dense = measured(case.dense, "embedded", False)[0].nats_per_token
    return {"removed": removed, "dense": dense, "held_out": before[0].nats_per_token, "rows": rows}


def write_page(tables: dict[str, Any]) -> None:
    """The part between the markers; a page without them gets it at its end."""
    page = PAGE.read_text() if PAGE.is_file() else "# Repair without training\n"
    if BEGIN not in page:
        page += f"\n{BEGIN}\n{END}\n"
    shown = {}
    for title in (f"{name}, {drop} of the blocks" for name in MODELS for drop in ("25%", "50%")):
        if title in tables:
            cuts = [one for one in tables[title]["cuts"] if is_complete(one)]
            shown[title] = tables[title] | {"cuts": cuts}
    parts = [overview(shown, "## Won back, held-out, of what is delivered", False)]
    parts.append(overview(shown, "## Won back on validation, of what is refused too", True))
    parts += [section(title, found) for title, found in shown.items()]
    parts += [task_table(shown)] if any(found["tasks"] for found in shown.values()) else []
    parts += [variant_table(found) for found in tables.get(VARIANTS_TITLE, [])]
    text = f"{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}"
    PAGE.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: text, page, flags=re.DOTALL))


def overview(tables: dict[str, Any], title: str, validation: bool) -> str:
    """Shares won back, a line for each set of blocks: by what is delivered, or by what the methods come to."""
    lines = heading(title, ["model", "removed", "lost", *VERB[1:], *REFERENCES])
    for name, found in tables.items():
        for one in found["cuts"]:
            lost = one["held_out"] - found["held_out"]
            draws = [one["rows"][method]["draws"] for method in [*VERB[1:], *REFERENCES]]
            cells = [on_validation(d) if validation else won(d, one["held_out"], lost) for d in draws]
            losses = [d["validation"]["cut"] - d["validation"]["dense"] for d in draws[-1]]
            shown = spread(losses, "+.4f") if validation else f"{lost:+.4f}"
            lines.append(line([name.partition(",")[0], one["removed"], shown, *cells]))
    return "\n".join(lines) + "\n"


def on_validation(draws: list[dict[str, Any]]) -> str:
    """Share of the nats lost on validation, whether refused or not."""
    if not draws:
        return FAILED
    losses = [d["validation"] for d in draws]
    if any(loss["cut"] <= loss["dense"] for loss in losses):
        return "–"
    return spread([100 * (v["cut"] - v["repaired"]) / (v["cut"] - v["dense"]) for v in losses], ".0f") + " %"


def section(title: str, found: dict[str, Any]) -> str:
    """A table for each set of blocks."""
    lines = [f"## {title}\n"]
    for one in found["cuts"]:
        ways, dense, before = ", ".join(one["chosen_by"]), found["held_out"], one["held_out"]
        lines.append(f"Without {one['removed']} (chosen by {ways}); held-out: dense {dense:.4f}, cut {before:.4f}.\n")
        lines += heading("", ["repair", "change on validation", "held-out", "error", "won back", "refused"])
        lines += [body(m, r["draws"], before, before - dense) for m, r in one["rows"].items()] + [""]
    return "\n".join(lines)


def body(title: str, draws: list[dict[str, Any]], before: float, lost: float) -> str:
    """Means over the draws, with their standard deviation."""
    if not draws:
        return line([title, "", "", "", "", FAILED])
    changes = [d["validation"]["repaired"] - d["validation"]["cut"] for d in draws]
    error = max(d["held_out_change_stderr"] for d in draws)
    refused = sum(not d["delivered"] for d in draws)
    return line(
        [title, spread(changes, "+.4f"), spread([d["held_out"] for d in draws], ".4f"), f"{error:.4f}",
         won(draws, before, lost), f"{refused} of {len(draws)}" if refused else ""]
    )  # fmt: skip


def won(draws: list[dict[str, Any]], before: float, lost: float) -> str:
    """Share of the lost nats; none were lost: a dash."""
    if not draws:
        return FAILED
    return spread([100 * (before - d["held_out"]) / lost for d in draws], ".0f") + " %" if lost > 0 else "–"


def task_table(tables: dict[str, Any]) -> str:
    """Accuracies of the embedded tasks; what was refused is the cut model."""
    columns = ["removed", "repair", "choices, %", "against the cut", "answers, %", "against the cut"]
    lines = heading("## Embedded tasks, first draw", columns)
    with_tasks = [found for found in tables.values() if found["tasks"]]
    whole = with_tasks[0]["tasks"]
    lines.append(line(["", "(dense)", pair(whole["choices"]), "", pair(whole["answers"]), ""]))
    for one in (one for found in with_tasks for one in found["cuts"]):
        for method, entry in one["rows"].items():
            if entry["draws"] and entry["draws"][0]["delivered"]:
                lines.append(line([one["removed"], method, *accuracies(entry["tasks"], method != "none")]))
    return "\n".join(lines) + "\n"


def accuracies(tasks: dict[str, Any], against: bool) -> list[str]:
    cells = [[pair(tasks[what]), pair(tasks[f"{what}_change"], "+") if against else ""]
             for what in ("choices", "answers")]  # fmt: skip
    return [cell for both in cells for cell in both]


def variant_table(found: dict[str, Any]) -> str:
    """Amounts of text and parts of refit."""
    columns = ["repair", "tokens per unknown", "change on validation", "held-out", "error", "won back", "refused"]
    lines = heading(f"## {VARIANTS_TITLE}, first draw: without {found['removed']}", columns)
    lost = found["held_out"] - found["dense"]
    for title, entry in found["rows"].items():
        most = max(entry["draws"][0]["tokens_and_unknowns"], key=lambda fit: fit[1])
        cells = body(title, entry["draws"], found["held_out"], lost).split(" | ")
        lines.append(" | ".join([cells[0], f"{most[0] / most[1]:.0f}", *cells[1:]]))
    return "\n".join(lines) + "\n"


def heading(title: str, columns: Sequence[str]) -> list[str]:
    return ([f"{title}\n"] if title else []) + [line(columns), "|" + "---|" * len(columns)]


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spread(values: list[float], form: str) -> str:
    """Mean and standard deviation, if they differ."""
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(set(values)) == 1 else f"{mean} ± {statistics.stdev(values):{form.lstrip('+')}}"


def pair(value: list[float], sign: str = "") -> str:
    return f"{100 * value[0]:{sign}.1f} ± {100 * value[1]:.1f}"


if __name__ == "__main__":
    main()
