"""The end of the path: one self-contained HTML page and a model card, drawn from the JSON artifacts alone.

No model is ever opened here, and what artifacts say (names, prompts, texts) is treated as untrusted text.
"""

from shortlm.report.card import model_card
from shortlm.report.learning import loss_chart
from shortlm.report.page import write_page

__all__ = ["loss_chart", "model_card", "write_page"]
