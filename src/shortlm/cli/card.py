"""README.md of a checkpoint that a command has written: its model card, from the folder's own files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shortlm.cli.result import say


def add_card(folder: Path) -> None:
    """Write the card of a checkpoint that has a manifest.

    In a process of its own where torch is not loaded: the libraries of reports take more memory than such a cut.
    """
    if "torch" in sys.modules:
        return main(folder)
    command = [sys.executable, "-c", f"from {__name__} import main; main()", str(folder)]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}  # nothing is imported from the current folder
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        say(f"{folder / 'README.md'}: no model card could be written ({reason}); the checkpoint is whole")


def main(folder: Path | None = None) -> None:
    """In this process, which may be the other one."""
    from shortlm.report import write_card

    write_card(folder or Path(sys.argv[1]))
