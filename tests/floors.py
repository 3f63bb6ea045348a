"""The oldest versions that pyproject.toml allows, as constraints for pip: `python tests/floors.py > floors.txt`.

torch stays what the Makefile pins, for its CPU build; development tools are left out. Needs Python 3.11.
"""

from __future__ import annotations

import re
from pathlib import Path

import tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def floors() -> dict[str, str]:
    """The lower bound of every dependency, of the extras' too."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wishes = [*project["dependencies"], *(w for extra in extras if extra != "dev" for w in extras[extra])]
    bounds = [re.match(r"([\w-]+)[^>]*>=([\d.]+)", wish) for wish in wishes]
    return {bound[1]: bound[2] for bound in bounds if bound and bound[1] != "torch"}


if __name__ == "__main__":
    for name, version in floors().items():
        print(f"{name}=={version}")
