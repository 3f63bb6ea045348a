"""`python -m hostile [KIND ...]` in tests/: runs all cases (of these kinds) and prints what is wrong as it is found."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from hostile import KINDS, cases
from hostile.running import fault
from hostile.world import make_world

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        world = make_world(Path(folder) / "sound")
        for kind in sys.argv[1:] or KINDS:
            wrong, start = 0, time.time()
            for number, case in enumerate(cases(kind)):
                if found := fault(case, world, Path(folder) / f"{kind}-{number}"):
                    wrong += 1
                    print(f"{kind}: {case.name}: {found}", flush=True)
            print(f"{kind}: {wrong} of {len(cases(kind))} wrong, {time.time() - start:.0f} s", flush=True)
