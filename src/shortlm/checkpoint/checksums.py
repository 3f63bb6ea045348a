"""SHA256SUMS of the weights, for `sha256sum -c`."""

from __future__ import annotations

import hashlib
from pathlib import Path

BUFFER = 2**20


def write_checksums(folder: Path) -> Path:
    """One line per weight file in `folder`. Returns the path of SHA256SUMS."""
    target = folder / "SHA256SUMS"
    lines = [f"{_digest(path)}  {path.name}\n" for path in sorted(folder.glob("*.safetensors"))]
    target.write_text("".join(lines), encoding="utf-8")
    return target


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(BUFFER))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
