"""The command line: one thin command per verb, in the order of the path. Heavy imports stay inside the commands."""

from shortlm.cli import cutting, healing, measuring, running  # noqa: F401  each adds its commands
from shortlm.cli.application import app

__all__ = ["app"]
