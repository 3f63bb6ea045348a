"""Text sources and token windows."""

from shortlm.text.mixed_windows import open_mixture
from shortlm.text.windows import Windows, open_windows, windows_from_ids

__all__ = ["Windows", "open_mixture", "open_windows", "windows_from_ids"]
