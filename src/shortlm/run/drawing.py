"""What the evidence of a folder is drawn as: the page, report.md and the tables beside it, and the model's card."""

from __future__ import annotations

from pathlib import Path

from shortlm.outputs import write_text
from shortlm.report import Evidence, model_card, write_markdown, write_page, write_results


def draw(folder: Path, evidence: Evidence) -> Path:
    """report.html (returned), report.md, results.json and results.csv, in place of older ones."""
    page = write_page(folder / "report.html", evidence, force=True)
    write_markdown(folder / "report.md", evidence, force=True)
    write_results(folder, evidence, force=True)
    return page


def draw_card(model: Path, evidence: Evidence, source: str) -> Path:
    """README.md of the checkpoint `model`, which was made from `source`: a hub id, a folder or 'embedded'."""
    base = None if source == "embedded" or Path(source).exists() else source
    return write_text(model / "README.md", model_card(evidence, base_model=base), force=True)
