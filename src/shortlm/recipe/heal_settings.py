"""Settings of healing: a chain of training phases, each with its data, its budget and its method.

The presets (published settings, docs/healing.md) are YAML files of the same form in `presets/heal/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from shortlm.errors import RecipeError
from shortlm.recipe.base import Count, Settings, read_yaml, validated
from shortlm.recipe.presets import preset_path
from shortlm.recipe.stages import TextSettings

OPTIONS = re.compile(r"^(.*):([a-z_]+=.*)$", re.DOTALL)
FOR_ALL = {"precision", "micro_tokens", "checkpointing", "optimizer", "eval_every", "keep", "seed", "validate_on"}
FOR_ALL |= {"held_out", "clip"}  # what may be given for phases of different methods at once
MOST_STEPS = 100_000_000  # these bounds keep out slips of the pen, not plans: each is far beyond what was published
MOST_ROWS = 2**16  # of a step
Method = Literal["lora", "qlora", "cpt", "last-layers", "distill"]


class SourceSettings(Settings):
    """One source of training data. `FILE:key=value,key=value` is short for it."""

    data: str = Field(description="A .jsonl, .json or .txt file, a hub data set, or 'embedded' (the made-up world).")
    kind: Literal["auto", "text", "alpaca", "completion", "chat"] = Field(
        "auto",
        description="Plain text, or records: alpaca (instruction, input, output), completion (prompt, completion), "
        "chat (messages); 'auto': by the fields of the first record.",
    )
    weight: float = Field(1.0, ge=1e-6, le=1e6, description="Its share of the tokens, relative to the other sources.")
    field: str = Field("text", description="The field that holds the text of a document.")
    subset: str | None = Field(None, description="Configuration of a hub data set.")
    split: str = Field("train", description="Split of a hub data set.")
    seed: int = Field(2, ge=0, lt=2**63, description="Seed of the embedded text; other text than is scored by default.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = OPTIONS.match(value)
        options = dict(part.partition("=")[::2] for part in match[2].split(",")) if match else {}
        return {"data": match[1] if match else value} | options


class PhaseSettings(Settings):
    """One training phase: what is trained, on what, for how long."""

    method: Method = Field(
        "lora",
        description="lora, qlora (on a 4-bit base), cpt (all parameters), last-layers (head and last blocks), or "
        "distill (all parameters, towards the uncut model).",
    )
    data: list[SourceSettings] = Field([], description="Training data; several sources are mixed by weight.")
    held_out: float = Field(
        64, ge=0, le=100_000,
        description="Kept from training for validation: so many rows, or below 1 this share of the records.",
    )  # fmt: skip
    validate_on: list[TextSettings] = Field([], description="Further texts whose perplexity is watched.")
    length: int = Field(
        256, ge=8, le=2**24, description="Tokens per row: windows of text are full, records are cut off there."
    )
    separator: str = Field(
        "eos", description="Between documents of plain text: the eos or bos token, or a text such as '\\n\\n'."
    )
    attend: Literal["window", "document"] = Field(
        "window", description="Documents in one window are seen across the separator, or each on its own."
    )
    epochs: float | None = Field(None, gt=0, le=10_000, description="Budget: passes over the records.")
    tokens: Count | None = Field(None, description="Budget: tokens, e.g. 2M or 37B.")
    steps: int | None = Field(None, ge=1, le=MOST_STEPS, description="Budget: optimizer steps.")
    batch: int = Field(
        64, ge=1, le=MOST_ROWS, description="Rows per optimizer step, over all processes and accumulated."
    )
    micro_tokens: int = Field(0, ge=0, le=2**40, description="Tokens computed at a time; 0: what suits the device.")
    lr: float = Field(1e-4, gt=0, le=100, description="Peak learning rate (AdamW).")
    schedule: Literal["linear", "cosine", "constant"] = Field("cosine", description="How the rate falls.")
    lowest: float = Field(0.0, ge=0, lt=1, description="Where the cosine ends, as a share of the peak rate.")
    warmup: float = Field(
        0.03, ge=0, le=MOST_STEPS, description="Steps of linear warm-up, or below 1 this share of the steps."
    )
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay rates of AdamW's two means.")
    weight_decay: float = Field(0.0, ge=0, le=1000, description="AdamW's weight decay.")
    clip: float = Field(1.0, gt=0, le=1e12, description="Largest norm of the gradient.")
    rank: int = Field(8, ge=1, le=2**16, description="LoRA: rank.")
    alpha: int = Field(16, ge=1, le=2**20, description="LoRA: scale, relative to the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA: dropout before the adapters.")
    targets: str = Field(
        "blocks",
        description="LoRA: all matrices of the blocks, those of 'attention' or 'ffn', or names as q_proj,v_proj.",
    )
    last: int = Field(3, ge=1, le=10_000, description="last-layers: how many blocks are trained beside the head.")
    teacher: str | None = Field(None, description="distill: the uncut model; its manifest names it otherwise.")
    temperature: float = Field(1.0, ge=0.01, le=1000, description="distill: softens both distributions.")
    kl: float = Field(
        1.0, ge=0, le=1, description="distill: share of the teacher in the loss; the rest is cross-entropy."
    )
    hidden: float = Field(
        0.0, ge=0, le=1e6, description="distill: weight of the difference of hidden states, block by original block."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Type of matrix products; 'auto': bfloat16 where the device computes it fast."
    )
    checkpointing: bool = Field(False, description="Recompute activations backwards: less memory, a third more work.")
    optimizer: str = Field("adamw_torch", description="Any optimizer of transformers' Trainer.")
    eval_every: int = Field(
        0, ge=0, le=MOST_STEPS, description="Steps between validations and checkpoints; 0: ten of them."
    )
    keep: Literal["best", "last"] = Field("best", description="Which checkpoint is the result.")
    seed: int = Field(0, ge=0, lt=2**32, description="Order of the records, adapters, dropout.")

    @field_validator("data", mode="before")
    @classmethod
    def _one_source(cls, value: Any) -> Any:
        return [value] if isinstance(value, (str, dict)) else value

    @field_validator("betas")
    @classmethod
    def _rates(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("both must be from 0 to below 1")
        return value

    @model_validator(mode="after")
    def _one_budget(self) -> PhaseSettings:
        given = [name for name in ("epochs", "tokens", "steps") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one budget, not {' and '.join(given)}")
        if self.lowest and self.schedule != "cosine":
            raise ValueError(f"lowest belongs to the cosine schedule, not to {self.schedule}")
        return self


class HealSettings(Settings):
    """A chain of phases; each goes on where the one before ended."""

    name: str = Field("shortlm heal", description="Title of the recipe.")
    source: str | None = Field(None, description="Where these settings were published.")
    phases: list[PhaseSettings] = Field([PhaseSettings()], min_length=1, description="What is trained, in this order.")
    keep_adapter: bool = Field(
        False, description="Also keep the adapters; in a chain they belong to the result of the phase before."
    )
    report_to: str = Field("none", description="Where else to log: tensorboard, wandb, trackio; several as a,b.")
    log_every: int = Field(10, ge=1, le=MOST_STEPS, description="Steps between lines of log.jsonl.")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        """`preset: name` is replaced by that file; settings beside it are laid over all its phases."""
        if not isinstance(value, dict) or "preset" not in value:
            return value
        return laid_over(
            read_yaml(preset_path("heal", value["preset"])), {k: v for k, v in value.items() if k != "preset"}
        )


def healing_of(preset: str | None, recipe: Path | str | None, given: dict[str, Any]) -> HealSettings:
    """From a preset, a file, or `given` settings alone; these are laid over either. Raises RecipeError."""
    if preset and recipe:
        raise RecipeError("give --preset or --recipe, not both")
    path = preset_path("heal", preset) if preset else recipe
    if path is None:
        return validated(HealSettings, laid_over({}, given))
    return load_healing(path, given)


def load_healing(path: Path | str, given: dict[str, Any] | None = None) -> HealSettings:
    """Read a healing recipe (YAML), with `given` settings laid over it. Raises RecipeError."""
    return validated(HealSettings, laid_over(read_yaml(path), given or {}), str(path))


def laid_over(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Settings of phases go to every phase, a budget replaces the budget; the others go to the recipe."""
    budgets = {"epochs", "tokens", "steps"}
    own = {name: value for name, value in given.items() if name in HealSettings.model_fields}
    phase = {name: value for name, value in given.items() if name not in own}
    cleared = dict.fromkeys(budgets) if budgets & phase.keys() else {}
    given_phases = own.pop("phases", values.get("phases", [{}]))
    if not (isinstance(given_phases, list) and given_phases and all(isinstance(p, dict) for p in given_phases)):
        raise RecipeError("phases: a list of settings is needed, as - {method: cpt, tokens: 2M}")
    alone = sorted(phase.keys() - FOR_ALL)
    if alone and len({p.get("method") for p in given_phases}) > 1:
        raise RecipeError(
            f"'{alone[0]}' can't go for {len(given_phases)} phases of different methods; write a recipe file"
        )
    phases = [dict(p) | cleared | phase for p in given_phases]
    return {k: v for k, v in values.items() if k != "phases"} | own | {"phases": phases}
