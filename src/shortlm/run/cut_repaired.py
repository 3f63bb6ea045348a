"""`cut --repair`: the model is cut, then repaired against itself; only the repaired checkpoint stays."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from shortlm.artifacts import CutPlan, Manifest
from shortlm.cut import cut
from shortlm.keys import key_of
from shortlm.leftovers import clear_leftovers, hidden_folder
from shortlm.outputs import refuse_existing
from shortlm.paths import user_path
from shortlm.recipe import CutSettings, ModelSettings, RepairSettings, TextSettings
from shortlm.repair import read_method, repair
from shortlm.run.folder import Say
from shortlm.units import Unit


def cut_repaired(
    model: ModelSettings, plan: CutPlan | Sequence[Unit | int], settings: CutSettings, text: TextSettings,
    repairing: RepairSettings, out: Path | str, force: bool = False, say: Say = lambda line: None,
) -> Manifest:  # fmt: skip
    """Write the repaired model without the units of `plan` to `out`, whole or not at all.

    The same command goes on where a repair was interrupted. Raises what `cut` and `repair` raise.
    """
    out = user_path(out)
    refuse_existing(out, force)
    read_method(repairing.method)
    out.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(out.parent)
    room = hidden_folder(out, "partial")
    try:
        manifest = cut(model, plan, settings, room / "cut")
        assert manifest.plan is not None
        shorter = model.model_copy(update={"model": str(room / "cut"), "revision": None})
        base = key_of("cut", [str(unit) for unit in manifest.plan.units], settings)
        return repair(shorter, model, text, repairing, out, force=force, say=say, base=base)
    finally:
        shutil.rmtree(room, ignore_errors=True)
