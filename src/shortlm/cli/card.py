"""README.md of a checkpoint that a command has written: its model card, from the folder's own files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shortlm.cli.result import say


def add_card(folder: Path) -> None:
    """Write the card of a cut, repaired or healed checkpoint; one that tells of no cut gets none.

    In a process of its own where torch is not loaded: the libraries of reports take more memory than such a cut.
    """
    if "torch" in sys.modules:
        return draw_card_of(folder)
    command = [sys.executable, "-c", f"from {__name__} import main; main()", str(folder)]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}  # nothing is imported from the current folder
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        say(f"{folder / 'README.md'}: no model card could be written ({reason}); the checkpoint is whole")


def draw_card_of(folder: Path) -> None:
    """The same in this process."""
    from shortlm.artifacts import Healing, manifest_of
    from shortlm.outputs import write_text
    from shortlm.report import Evidence, model_card

    manifest, healing = manifest_of(folder), folder / "healing.json"
    if manifest is None or manifest.plan is None:
        return
    known = Evidence(folder.name, manifest=manifest, healing=Healing.load(healing) if healing.is_file() else None)
    base = None if manifest.base_path or manifest.base.name == "embedded" else manifest.base.name
    write_text(folder / "README.md", model_card(known, base_model=base), force=True)


def main() -> None:
    """The other process."""
    draw_card_of(Path(sys.argv[1]))
