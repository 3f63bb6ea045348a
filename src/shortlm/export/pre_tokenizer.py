"""How a byte-level BPE tokenizer splits text, by the name that llama.cpp has for it.

llama.cpp's converter knows published tokenizers by a hash of some ids; one that was trained anew on the same splitting
has other ids. Its tokenizer.json says how it splits, which is what llama.cpp has to know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shortlm.documents import read_json
from shortlm.errors import ExportError

MOST_TOKENIZER = 2**28  # bytes
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST: "llama-bpe",
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST: "qwen2",
}


def pre_tokenizer_name(folder: Path) -> str | None:
    """None where tokenizer.json says of no splitting that has a name: the converter then knows best."""
    path = folder / "tokenizer.json"
    content = read_json(path, ExportError, MOST_TOKENIZER) if path.is_file() else None
    said = content.get("pre_tokenizer") if isinstance(content, dict) else None
    steps = said.get("pretokenizers", [said]) if isinstance(said, dict) else []
    kinds = [step.get("type") for step in steps if isinstance(step, dict)]
    if kinds == ["ByteLevel"]:
        return "gpt-2" if steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space") else None
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        return PATTERNS.get(_pattern(steps[0]))
    return None


def _pattern(split: dict[str, Any]) -> str:
    pattern = split.get("pattern")
    return str(pattern.get("Regex")) if isinstance(pattern, dict) else ""
