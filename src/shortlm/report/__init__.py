"""The end of the path: one self-contained HTML page, report.md, results.json and .csv, and a model card.

All are drawn from the JSON artifacts alone.

No model is ever opened here, and what artifacts say (names, prompts, texts) is treated as untrusted text.
"""

from shortlm.report.card import model_card
from shortlm.report.headline import headline
from shortlm.report.learning import loss_chart
from shortlm.report.markdown import write_markdown
from shortlm.report.page import write_page
from shortlm.report.results import write_results

__all__ = ["headline", "loss_chart", "model_card", "write_markdown", "write_page", "write_results"]
