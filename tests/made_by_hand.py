"""Artifacts made by hand, so that every number of a report can be checked, and a parser for its page."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import yaml

from shortlm.artifacts import (
    BlockScores,
    CriterionScores,
    CutPlan,
    CutStep,
    DataFacts,
    Depth,
    Equivalence,
    Fold,
    Manifest,
    Measurement,
    ModelFacts,
    Perplexity,
    Provenance,
    RepairStep,
    Sample,
    ValidationLoss,
    Width,
    WidthStep,
)
from shortlm.report import Evidence, model_card, write_page

N = 12
REMOVED = [5, 6, 7, 8]
PROTECTED = [0, 1, 2, 3, 10, 11]
SCRIPT = "<script>alert(1)</script>"
SETTINGS = "name: shortlm run\nmodel:\n  model: embedded\nchoose:\n  drop: 33%\n"
VOID = {"meta", "link", "br", "img", "hr", "input"}


def facts(name: str = "embedded", blocks: int = N) -> ModelFacts:
    return ModelFacts(
        name=name, revision="main", architecture="LlamaForCausalLM", n_blocks=blocks,
        block_parameters=[147_712] * blocks, parameters=147_712 * blocks + 65_664,
    )  # fmt: skip


def origin(seconds: float = 12.34) -> Provenance:
    return Provenance(
        created="2026-11-22T03:00:00+00:00", versions={"python": "3.12.3", "torch": "2.9.0", "transformers": "5.2.0"},
        machine="Linux x86_64, 2 cores", device="cpu", dtype="float32", seconds=seconds,
    )  # fmt: skip


def data(source: str = "embedded", sha: str = "5ca1ab1e" * 8) -> DataFacts:
    return DataFacts(source=source, sha256=sha, sequences=10, tokens=1280, bos="every", seed=0)


def criterion(values: list[float], unit: str, spread: float, rng: random.Random, **more) -> CriterionScores:
    noise = [abs(rng.gauss(1, 0.25)) for _ in values]
    stderr = [spread * n * abs(v) for n, v in zip(noise, values, strict=True)] if spread else None
    return CriterionScores(scores=values, unit=unit, stderr=stderr, rank_agreement=0.87 if spread else None, **more)


def block_scores(name: str = "embedded", blocks: int = N) -> BlockScores:
    rng = random.Random(1)
    depth = [i / (blocks - 1) for i in range(blocks)]
    bowl = [0.05 + (2 * x - 1) ** 4 + 0.04 * rng.random() for x in depth]
    angular = [0.03 + 0.25 * b for b in bowl]
    table = [
        [min(0.5, sum(angular[i : i + n]) * n**-0.35) for i in range(blocks - n + 1)] for n in range(1, blocks + 1)
    ]
    return BlockScores(
        model=facts(name, blocks), data=data(), base_perplexity=3.021, block_forwards=780, provenance=origin(),
        criteria={
            "ppl": criterion([3.06 + 2 * b for b in bowl], "perplexity", 0.02, rng),
            "taylor": criterion([40 + 90 * b for b in bowl], "sum of |W g|", 0.05, rng),
            "bi:shortgpt": criterion([0.004 + 0.9 * b**2.2 for b in bowl], "1 - cosine", 0.06, rng),
            "angular": criterion(angular, "angle / pi", 0.05, rng, table=table),
            "magnitude": criterion([41_000 + 5_000 * x for x in depth], "sum of |W|", 0, rng),
        },
    )  # fmt: skip


CHECK = Equivalence(
    max_abs_difference=2.1e-6, max_abs_difference_cached=3.4e-6, tolerance=1e-4, tokens=512, dtype="float32"
)


def cut_plan(name: str = "embedded") -> CutPlan:
    model = facts(name)
    return CutPlan(
        model=model, removed=REMOVED, method="one-shot", criterion="ppl", budget="33%", protected=PROTECTED,
        parameters_after=model.parameters - 4 * 147_712, agreement=0.82, source="scores.json", provenance=origin(0.01),
    )  # fmt: skip


def manifest(name: str = "embedded") -> Manifest:
    step = CutStep(
        plan=cut_plan(name), bytes_before=7_352_832, bytes_after=4_989_440, equivalence=CHECK, provenance=origin(0.4)
    )
    return Manifest(base=facts(name), steps=[step])


def repair_step(name: str = "embedded", **changes) -> RepairStep:
    """After the cut of `manifest`: block 4 is the one before the gap; 75 % of the lost nats are won back."""
    known = {
        "method": "auto", "against": facts(name), "blocks": [0, 1, 2, 3, 4, 9, 10, 11], "validation": 4,
        "data": data(name), "bytes_before": 4_989_440, "bytes_after": 4_989_440, "provenance": origin(13.8),
        "folds": [
            Fold(block=4, part="attention", unknowns=64, tokens=768, error_before=0.0, error_after=0.0),
            Fold(block=4, part="ffn", ridge=1e-4, unknowns=172, tokens=768, error_before=0.1815, error_after=0.0447),
            Fold(block=5, part="attention", ridge=0.01, unknowns=64, tokens=768, error_before=0.045, error_after=0.036),
            Fold(block=5, part="ffn", ridge=1e-3, unknowns=172, tokens=768, error_before=0.0272, error_after=0.0223),
        ],
        "depths": [Depth(block=i, cut=0.0, repaired=0.0) for i in range(4)]
        + [Depth(block=i, cut=0.32 / i, repaired=0.08 / i**2) for i in range(4, 8)],
        "loss": ValidationLoss(dense=1.1, cut=1.3, repaired=1.15, stderr=0.012, tokens=512),
    }  # fmt: skip
    return RepairStep(**(known | changes))


def repaired(name: str = "embedded", **changes) -> Manifest:
    """The manifest of the cut, then repaired model."""
    return manifest(name).followed_by(repair_step(name, **changes))


def narrowed(name: str = "embedded") -> Manifest:
    """The manifest of the cut, then narrowed, then repaired model: block 2 keeps all of its heads."""
    heads = [[0], [1], [0, 1], [0], [0], [1], [0], [1]]
    step = WidthStep(
        method="flap", shape="free", form="shortlm", found=facts(name, 8), parameters_after=900_000, bias=True,
        widths=[Width(heads=h, heads_before=2, channels=80 + 8 * i, channels_before=172) for i, h in enumerate(heads)],
        data=data(name), bytes_before=4_989_440, bytes_after=3_700_000, equivalence=CHECK,
        provenance=origin(2.1),
    )  # fmt: skip
    return manifest(name).followed_by(step).followed_by(repair_step(name))


def perplexity(text: str, nats: float, seed: int, source: str = "embedded") -> Perplexity:
    """`per_sequence_nats` are sums over the tokens of each window."""
    rng, shared = random.Random(seed), random.Random(99)
    means = [nats + shared.gauss(0, 0.1) + rng.gauss(0, 0.02) for _ in range(8)]
    mean = sum(means) / 8
    stderr = math.sqrt(sum((m - mean) ** 2 for m in means) / 7 / 8)
    return Perplexity(
        text=text, data=data(source), perplexity=math.exp(mean), nats_per_token=mean, stderr_nats=stderr,
        per_sequence_nats=[128 * m for m in means], tokens_per_sequence=[128] * 8,
    )  # fmt: skip


def measurement(role: str, name: str = "embedded") -> Measurement:
    extra = {"dense": 0.0, "repaired": 0.04, "healed": 0.02}.get(role, 0.161)
    tail = "the red door, and she opened it slowly." if role == "dense" else "the door the door."
    return Measurement(
        model=facts(name, N if role == "dense" else 8), role=role, bytes=7_352_832, provenance=origin(),
        perplexities=[
            perplexity("embedded", 1.105 + extra, len(role)),
            perplexity("wikitext-2", 2.61 + 2 * extra, 9 + len(role), "wikitext"),
        ],
        samples=[Sample(prompt="Mira walked to", text=f"Mira walked to {tail}")],
    )  # fmt: skip


def measurements(name: str = "embedded") -> list[Measurement]:
    return [measurement("cut", name), measurement("dense", name)]


def evidence(name: str = "embedded", **changes) -> Evidence:
    known = {
        "title": "Embedded model, a third shorter", "scores": block_scores(name), "plan": cut_plan(name),
        "manifest": manifest(name), "measurements": measurements(name), "settings": SETTINGS,
    }  # fmt: skip
    return Evidence(**(known | changes))


def page(folder: Path, name: str = "embedded", **changes) -> str:
    path = write_page(folder / "report.html", evidence(name, **changes), force=True)
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects elements and text, and complains about elements that don't nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def ids(self) -> list[str]:
        return [a["id"] or "" for _, a in self.elements if "id" in a]


def card(**changes) -> tuple[dict, str]:
    arguments = {"license": "apache-2.0", "base_model": "owner/name", "language": "en"}
    arguments |= {name: changes.pop(name) for name in arguments.keys() & changes.keys()}
    measured = changes.pop("measured", None) or measurements()
    known = {"title": "Shorter", "manifest": manifest(), "measurements": measured}
    text = model_card(Evidence(**(known | changes)), **arguments)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def browser(page: Path, folder: Path) -> subprocess.CompletedProcess:
    """The page's elements as headless Chromium has them after loading, and on stderr what its console said."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "chromium is needed for tests marked 'browser'; deselect them with -m 'not browser'"
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    options += "--disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    command = [chromium, *options.split(), f"--user-data-dir={folder / 'profile'}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
