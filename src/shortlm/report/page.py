"""report.html: one file that opens from disk, with everything inside; sections without data are left out.

Everything that artifacts say is untrusted text and goes through the templates' autoescape; only our own SVG
(whose texts matplotlib escapes) and the escaped JSON are inserted as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from shortlm.artifacts import Artifact
from shortlm.outputs import refuse_existing, write_text
from shortlm.report.evidence import Evidence
from shortlm.report.headline import headline, key_figures
from shortlm.report.section import Section, environment
from shortlm.report.sections import SECTIONS

HERE = Path(__file__).parent


def write_page(
    path: Path | str, evidence: Evidence, force: bool = False, sections: Sequence[Section] = SECTIONS
) -> Path:
    """Write the page, whole or not at all, and return its path.

    Raises OutputError if `path` exists and `force` is off.
    """
    refuse_existing(Path(path), force)
    page = environment().from_string((HERE / "page.html.jinja").read_text(encoding="utf-8"))
    text = page.render(
        title=evidence.title, headline=headline(evidence), figures=key_figures(evidence),
        sections=drawn(evidence, sections), artifacts=_inside(evidence.artifacts),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8").strip()),
    )  # fmt: skip
    return write_text(path, text, force)


def drawn(evidence: Evidence, sections: Sequence[Section]) -> list[dict[str, Any]]:
    """The sections that the evidence has something for, in their order."""
    return [
        {"id": section.id, "heading": section.heading, "body": section.body(evidence)}
        for section in sections
        if section.needs(evidence)
    ]


def _inside(artifacts: list[Artifact]) -> Markup:
    """All artifacts as JSON that can't end the script element it stands in."""
    plain = [artifact.model_dump(mode="json") for artifact in artifacts]
    text = json.dumps(plain, separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
