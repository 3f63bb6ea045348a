"""The end of the path: one self-contained HTML page, report.md, results.json and .csv, and a model card.

All take one Evidence, the JSON artifacts of a set of models. A section of the page is one file in sections/.

No model is ever opened here, and what artifacts say (names, prompts, texts) is treated as untrusted text.
"""

from shortlm.report.card import hub_base, is_hub_id, model_card, write_card
from shortlm.report.evidence import Evidence, History, evidence_from_files
from shortlm.report.headline import headline
from shortlm.report.learning import loss_chart
from shortlm.report.markdown import write_markdown
from shortlm.report.page import write_page
from shortlm.report.results import write_results
from shortlm.report.section import Section
from shortlm.report.sections import SECTIONS

__all__ = [
    "SECTIONS", "Evidence", "History", "Section", "evidence_from_files", "headline", "hub_base", "is_hub_id",
    "loss_chart", "model_card", "write_card", "write_markdown", "write_page", "write_results",
]  # fmt: skip
