"""Text sources and token windows."""

from shortlm.text.windows import Windows, open_windows, windows_from_ids

__all__ = ["Windows", "open_windows", "windows_from_ids"]
