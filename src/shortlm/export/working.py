"""Run a script of `workers/` in a tool's environment: a job as JSON in, a result as JSON out, all else into a log."""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from shortlm.errors import ExportError
from shortlm.export.environment import cache_folder, last_lines, run_logged
from shortlm.progress import track

WORKERS = Path(__file__).parent / "workers"
STEP = re.compile(r"\((\d+)/(\d+)\)")  # how tools count their steps: (3/13)


def work(python: Path, script: str, job: dict[str, Any], what: str) -> Any:
    """What the script has found. `what` names the work, on the bar and in messages.

    Raises ExportError with the last lines of the log, and where it is, if the script fails.
    """
    log = cache_folder() / "logs" / f"{Path(script).stem}-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns()}.txt"
    with tempfile.TemporaryDirectory() as folder, track(what=what) as bar:
        asked, answer = Path(folder) / "job.json", Path(folder) / "result.json"
        asked.write_text(json.dumps(job))
        if run_logged([python, WORKERS / script, asked, answer], log, lambda line: _advance(bar, line)):
            raise ExportError(f"{what} failed ({last_lines(log)}); the log is {log}")
        result = json.loads(answer.read_text())
    log.unlink()  # only what went wrong is kept
    return result


def _advance(bar: Any, line: str) -> None:
    if step := STEP.search(line):
        done, bar.total = int(step[1]), int(step[2])
        bar.update(done - bar.n)
