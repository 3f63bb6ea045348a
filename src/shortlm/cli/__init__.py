"""The command line: one thin command per verb, in the order of the path. Heavy imports stay inside the commands."""

# they add their commands in this order
from shortlm.cli import cut_commands, width_command, repair_command, heal_command, measure_commands  # isort: skip
from shortlm.cli import run_command, export_commands, demo_command, recipes_command  # isort: skip
from shortlm.cli.application import app
from shortlm.cli.waiting import spin_briefly

spin_briefly()  # none of the imports above has imported torch

__all__ = [
    "app",
    "cut_commands",
    "demo_command",
    "export_commands",
    "heal_command",
    "measure_commands",
    "recipes_command",
    "repair_command",
    "run_command",
    "width_command",
]
