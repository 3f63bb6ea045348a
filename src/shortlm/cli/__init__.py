"""The command line: one thin command per verb, in the order of the path. Heavy imports stay inside the commands."""

from shortlm.cli.waiting import spin_briefly

spin_briefly()

from shortlm.cli import cut_commands, heal_command, measure_commands, run_command  # noqa: E402, F401  each adds its commands
from shortlm.cli.application import app  # noqa: E402

__all__ = ["app"]
