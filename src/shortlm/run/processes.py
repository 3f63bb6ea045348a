"""The processes of one job: they share scoring, repair and healing, and wait where the first one works alone."""

from __future__ import annotations

from shortlm.recipe import Recipe


def join(recipe: Recipe) -> None:
    """Meet the others before the first work, if there will be something to wait for."""
    if _waits(recipe):
        from shortlm.heal import join_processes
        from shortlm.model import pick_device

        join_processes(pick_device(recipe.model.device))


def meet(recipe: Recipe) -> None:
    """The first process cuts, all go on with what it has written."""
    if _waits(recipe):
        from shortlm.heal import wait_for_all

        wait_for_all()


def _waits(recipe: Recipe) -> bool:
    return bool(recipe.heal or recipe.repair) or recipe.rounds > 1
