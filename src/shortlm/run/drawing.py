"""What the evidence of a folder is drawn as: the page, report.md and the tables beside it, and the model's card."""

from __future__ import annotations

from pathlib import Path

from shortlm.outputs import write_text
from shortlm.report import Evidence, hub_base, model_card, write_markdown, write_page, write_results


def draw(folder: Path, evidence: Evidence) -> Path:
    """report.html (returned), report.md, results.json and results.csv, in place of older ones."""
    page = write_page(folder / "report.html", evidence, force=True)
    write_markdown(folder / "report.md", evidence, force=True)
    write_results(folder, evidence, force=True)
    return page


def draw_card(model: Path, evidence: Evidence) -> Path:
    """README.md of the checkpoint `model`, with what was measured."""
    card = model_card(evidence, base_model=hub_base(evidence.manifest))
    return write_text(model / "README.md", card, force=True)
