"""What commands print for people: small tables and lines on standard output."""

from shortlm.console.checkpoints import show_manifest, show_repair, show_width
from shortlm.console.choosing import show_certainty, show_plan
from shortlm.console.exporting import show_gguf, show_push, show_quantized
from shortlm.console.healing import show_heal_estimate, show_healing
from shortlm.console.measuring import show_benchmark, show_measurement
from shortlm.console.printing import Grid, out, tell
from shortlm.console.recipes import show_recipes
from shortlm.console.scores import show_scores, show_work

__all__ = [
    "Grid",
    "out",
    "show_benchmark",
    "show_certainty",
    "show_gguf",
    "show_heal_estimate",
    "show_healing",
    "show_manifest",
    "show_measurement",
    "show_plan",
    "show_push",
    "show_quantized",
    "show_recipes",
    "show_repair",
    "show_scores",
    "show_width",
    "show_work",
    "tell",
]
