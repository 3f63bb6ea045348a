"""What has to be known before a checkpoint's files are touched: its shorter config, and that the cut is sound.

That takes transformers, whose import alone costs some 350 MB. Where this process has not imported it, another one
does the work and ends before the first byte is copied: the surgery itself needs a fifth of that, whatever the model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from shortlm import errors
from shortlm.artifacts import CutPlan, Form, ModelFacts
from shortlm.cut.surgery import Surgery
from shortlm.errors import ModelError, PlanError, library_errors
from shortlm.leftovers import scratch_folder
from shortlm.plans import plan_by_hand
from shortlm.recipe import ModelSettings
from shortlm.units import Unit, check_units, unit_list


class CheckedCut(BaseModel):
    """The plan for the model that it is for, how names of blocks begin in its files, and what is to be written."""

    plan: CutPlan  # whose parameters_after are those of the result
    facts: ModelFacts
    prefix: str
    form: Form
    config_json: str  # that the written weights are loaded by
    foreign_json: str | None = None  # of another project's type, in the end in its place
    dropped: list[str] = []  # tensors of blocks that stay
    zeroed: list[str] = []
    mtp: list[str] = []  # tensors of heads for multi-token prediction; where `drop_mtp`, they go
    drop_mtp: bool = False
    per_block: dict[str, int] = {}  # tensors outside the blocks with a part for each, and the axis of these parts

    @property
    def became_of_mtp(self) -> Literal["kept", "dropped"] | None:
        """For the manifest."""
        return ("dropped" if self.drop_mtp else "kept") if self.mtp else None

    @property
    def surgery(self) -> Surgery:
        """What becomes of the files' tensors."""
        dropped = [*self.dropped, *(self.mtp if self.drop_mtp else [])]
        return Surgery(
            self.prefix, self.plan.kept, self.facts.n_blocks, dropped, self.zeroed, self.mtp, self.per_block
        )  # fmt: skip


class Request(BaseModel):
    """What another process is asked."""

    model: ModelSettings
    plan: CutPlan | None = None
    units: list[str] = []
    form: Form | Literal["auto"] = "auto"
    mtp: Literal["keep", "drop"] = "keep"


def planned(
    model: ModelSettings, what: CutPlan | Sequence[Unit | int], form: Form | Literal["auto"] = "auto",
    mtp: Literal["keep", "drop"] = "keep",
) -> CheckedCut:  # fmt: skip
    """Check a plan, or a list of what to remove, against the model. Raises ModelError or PlanError."""
    given = {"plan": what} if isinstance(what, CutPlan) else {"units": [str(unit) for unit in what]}
    request = Request.model_validate({"model": model, "form": form, "mtp": mtp, **given})
    return _planned_here(request) if "transformers" in sys.modules else _planned_elsewhere(request)


def _planned_elsewhere(request: Request) -> CheckedCut:
    with scratch_folder("plan") as folder:
        answer = folder / "answer.json"
        command = [sys.executable, "-c", f"from {__name__} import main; main({str(answer)!r})"]
        environment = os.environ | {"PYTHONSAFEPATH": "1"}  # nothing is imported from the current folder
        done = subprocess.run(
            command, input=request.model_dump_json(), text=True, stdout=subprocess.DEVNULL, env=environment
        )
        if not answer.exists():
            raise ModelError(f"{request.model.model}: its config can't be checked (exit status {done.returncode})")
        content = json.loads(answer.read_bytes())
    if "error" in content:
        raise getattr(errors, content["error"])(content["message"])
    return CheckedCut.model_validate(content)


def _planned_here(request: Request) -> CheckedCut:
    from shortlm.checkpoint import open_checkpoint
    from shortlm.cut.forms import result_of, without_empty_blocks
    from shortlm.model import (
        cut_config,
        facts_of,
        find_anatomy,
        guard,
        meta_model,
        mtp_names,
        names_in_model,
        open_config,
        open_tokenizer,
        plain_config,
        prefix_of_blocks,
        without_mtp,
    )

    model, trust = request.model, request.model.trust_remote_code
    source = open_checkpoint(model.model, model.revision)
    open_tokenizer(source.folder, trust)
    config = open_config(model)
    before = meta_model(config, trust)
    facts, anatomy = facts_of(before, model.model, source.revision), find_anatomy(before)
    plan = request.plan or plan_by_hand(facts, unit_list(",".join(request.units), "units"))
    _check_plan(plan, facts)
    plan, plain = without_empty_blocks(plan, anatomy), plain_config(config)
    shorter, mtp = cut_config(plain, plan.kept), mtp_names(config, source.tensors)
    if request.mtp == "drop":
        shorter = without_mtp(shorter)
    parts = guard(plain, shorter, plan.kept, trust)
    result = result_of(request.form, source, before, shorter, plan)
    after = facts_of(meta_model(result.config, trust), model.model).parameters
    return CheckedCut(
        plan=plan.model_copy(update={"model": facts, "parameters_after": after}), facts=facts,
        prefix=prefix_of_blocks(before, source), form=result.form, config_json=_as_json(result.config),
        foreign_json=json.dumps(result.foreign, indent=2) + "\n" if result.foreign else None,
        dropped=result.dropped, zeroed=result.zeroed, mtp=mtp, drop_mtp=bool(mtp) and request.mtp == "drop",
        per_block={file: parts[name] for file, name in names_in_model(before, source).items() if name in parts},
    )  # fmt: skip


def _as_json(config: Any) -> str:
    """As save_pretrained writes it."""
    with scratch_folder("config") as folder:
        with library_errors(ModelError, f"{config.model_type}: its config can't be written"):
            config.save_pretrained(folder)
        return (folder / "config.json").read_text(encoding="utf-8")


def _check_plan(plan: CutPlan, facts: ModelFacts) -> None:
    check_units(plan.units, facts.n_blocks, "plan")
    if plan.model.n_blocks != facts.n_blocks or plan.model.block_parameters != facts.block_parameters:
        raise PlanError(
            f"the plan is for {plan.model.name} ({plan.model.n_blocks} blocks, {plan.model.parameters:,} parameters), "
            f"this model is {facts.name} ({facts.n_blocks} blocks, {facts.parameters:,} parameters); make a new plan"
        )


def main(answer: str) -> None:
    """The other process: a request on standard input, the answer in a file."""
    try:
        content = _planned_here(Request.model_validate_json(sys.stdin.read())).model_dump(mode="json")
    except errors.ShortLMError as error:
        content = {"error": type(error).__name__, "message": str(error)}
    except ImportError as error:
        content = {"error": "ModelError", "message": f"the config can't be checked without {error.name} ({error})"}
    Path(answer).write_text(json.dumps(content), encoding="utf-8")
