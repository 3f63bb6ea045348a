"""What becomes of a finished checkpoint: fewer bits, other formats, the hub."""

from shortlm.export.gguf import GgufExport, export_gguf
from shortlm.export.mergekit import export_mergekit
from shortlm.export.pushing import Push, push
from shortlm.export.quantizing import quantize

__all__ = ["GgufExport", "Push", "export_gguf", "export_mergekit", "push", "quantize"]
