"""The command line: one thin command per verb, in the order of the path. Heavy imports stay inside the commands."""

from shortlm.cli import cut_commands, width_command, repair_command, heal_command, measure_commands, run_command  # isort: skip (in this order they add their commands)
from shortlm.cli.application import app
from shortlm.cli.waiting import spin_briefly

spin_briefly()  # none of the imports above has imported torch

__all__ = ["app", "cut_commands", "heal_command", "measure_commands", "repair_command", "run_command", "width_command"]
