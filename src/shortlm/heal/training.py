"""transformers' Trainer with our data, our loss, and checkpoints that a killed run can always go on from.

The Trainer does the loop, accumulation, optimizer, schedule, mixed precision, DDP, FSDP, DeepSpeed and the state of a
checkpoint. Added here: micro-batches that come ready made, losses per target of the whole step, validation
by token, a check of every step, and a mark on checkpoints that are complete.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from shortlm.artifacts import LogEntry, Validation
from shortlm.errors import HealError, OutputError, RecipeError
from shortlm.heal.batches import MicroBatch, Steps
from shortlm.heal.checkpoints import checkpoint_folders, forget, last_checkpoint, mark_complete
from shortlm.heal.journal import Journal
from shortlm.heal.losses import Loss, evaluating
from shortlm.heal.processes import ranks
from shortlm.heal.resuming import ResumingTrainer
from shortlm.heal.writing import writing
from shortlm.recipe import HealSettings, ModelSettings, PhaseSettings


class HealTrainer(ResumingTrainer):
    """One phase of training."""

    def __init__(
        self, model: Any, args: TrainingArguments, steps: Steps, validation: dict[str, list[MicroBatch]], loss: Loss,
        journal: Journal, every: int, opened_by: ModelSettings,
    ):  # fmt: skip
        super().__init__(model, args, [_StepCallback(every, journal, steps)], opened_by)
        self.remove_callback(PrinterCallback)
        self.steps, self.validation, self.loss, self.journal = steps, validation, loss, journal
        self.loss_is_scaled_for_ga = True  # nothing is left to be divided by the number of accumulated batches
        self.model_accepts_loss_kwargs = True  # the same, as transformers before 5.20 asks it
        self.model_preparation_time = 0.0

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches of this process as they are: nothing to batch, to shard or to shuffle.

        Every new iterator draws a number; from a generator of its own, dropout after a stop is as it would have been.
        """
        return DataLoader(self.steps, batch_size=None, generator=torch.Generator())

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's part of the mean over all targets of the step; gradients of processes are averaged."""
        loss = self.loss(model, inputs) / inputs["step_targets"] * self.args.world_size
        if not torch.isfinite(loss):
            raise self._bad_step(f"the loss is {float(loss.detach())}")
        return (loss, None) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient's norm, before the step is made with it."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(float(norm)):
            raise self._bad_step(f"the gradient's norm is {float(norm)}")
        return norm

    def _bad_step(self, what: str, after: bool = False) -> HealError:
        good = last_checkpoint(Path(str(self.args.output_dir)))
        where = f"the last good checkpoint is {good.folder}" if good else "there is no checkpoint yet"
        step = self.state.global_step if after else self.state.global_step + 1
        change = "" if after else "nothing was changed by it and "
        return HealError(
            f"step {step}: {what}; {change}{where}; try a smaller --lr, a longer --warmup or --precision float32"
        )

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Cross-entropy per target on every validation set; processes share the micro-batches."""
        self.journal.clock.stop()
        nats = {name: self._nats(batches) for name, batches in self.validation.items()}
        step, position = self.state.global_step, self.steps.positions[self.state.global_step]
        for name, value in nats.items():
            if not math.isfinite(value):
                raise self._bad_step(f"the validation loss on {name} is {value}", after=True)
        seconds = self.journal.clock.seconds()
        self.journal.add(Validation(step=step, tokens=position.tokens, seconds=seconds, nats_per_token=nats))
        metrics = {f"{metric_key_prefix}_{name}_loss": value for name, value in nats.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.journal.clock.start()
        return metrics

    def _nats(self, batches: list[MicroBatch]) -> float:
        model, world = self.model_wrapped, self.args.world_size
        sums = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad(), evaluating(model), self.compute_loss_context_manager():
            for first in range(0, len(batches), world):  # all take part every time, as sharded models need
                i = first + self.args.process_index
                batch = self._prepare_inputs(batches[min(i, len(batches) - 1)])
                found = self.loss.nats(model, batch)
                if i < len(batches):
                    sums += torch.tensor([float(found), len(batch["targets"])])
        sums = self.accelerator.reduce(sums.float() if self.args.device.type == "mps" else sums.to(self.args.device))
        return float(sums[0] / sums[1])

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's checkpoint, then its mark; only then older ones go."""
        self.journal.clock.stop()
        folder, step = Path(str(self.args.output_dir)), self.state.global_step
        current = folder / f"checkpoint-{step}"
        try:
            with writing(current):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    mark_complete(current, self.steps.positions[step], self.journal.clock.seconds())
        except OutputError:
            if self.args.should_save:  # half of it would only fill the disk
                shutil.rmtree(current, ignore_errors=True)
            raise
        if self.args.should_save:
            forget(folder, {step, self.journal.best(set(checkpoint_folders(folder)))})
        self.journal.clock.start()


class _StepCallback(TrainerCallback):
    """When to validate, save and log; the clock and the bar."""

    def __init__(self, every: int, journal: Journal, steps: Steps):
        self.every, self.journal, self.steps = every, journal, steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.journal.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Validate and save every so many steps, and at the end."""
        last = state.global_step >= state.max_steps
        due = last or state.global_step % self.every == 0
        control.should_evaluate = control.should_save = due
        control.should_log = control.should_log or due  # a mean never reaches back behind a checkpoint
        self.journal.show(state.global_step, self.steps.positions[state.global_step].tokens)
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """A line of the log for every mean loss."""
        if logs and "loss" in logs:
            at = self.steps.positions[state.global_step]
            self.journal.add(
                LogEntry(
                    step=at.step, tokens=at.tokens, targets=at.targets, loss=logs["loss"], rate=logs["learning_rate"],
                    grad_norm=float(logs.get("grad_norm") or 0.0), seconds=self.journal.clock.seconds(),
                )
            )  # fmt: skip

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.journal.end()


def training_arguments(
    folder: Path, settings: PhaseSettings, heal: HealSettings, steps: int, warmup: int, accumulate: int,
    device: torch.device, bfloat16: bool,
) -> TrainingArguments:  # fmt: skip
    """Our settings in the Trainer's words. Raises RecipeError for what it refuses."""
    schedule = "cosine_with_min_lr" if settings.lowest else settings.schedule
    words: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": accumulate, "learning_rate": settings.lr, "warmup_steps": warmup,
        "lr_scheduler_type": schedule, "adam_beta1": settings.betas[0], "adam_beta2": settings.betas[1],
        "weight_decay": settings.weight_decay, "max_grad_norm": settings.clip, "optim": settings.optimizer,
        "bf16": bfloat16, "use_cpu": device.type == "cpu", "seed": settings.seed, "logging_steps": heal.log_every,
        "logging_nan_inf_filter": False, "eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True,
        "report_to": reporters(heal.report_to), "run_name": heal.name, "project": "shortlm",
        "ignore_data_skip": True, "remove_unused_columns": False, "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
    }  # fmt: skip
    if settings.lowest:
        words["lr_scheduler_kwargs"] = {"min_lr_rate": settings.lowest}
    try:
        arguments = TrainingArguments(**words | (_recomputing() if settings.checkpointing else {}))
        _on_one_device(arguments, device)
    except ValueError as error:  # an optimizer or a precision that is not there
        raise RecipeError(f"transformers' Trainer refuses these settings ({str(error).splitlines()[0]})") from error
    return arguments


def _on_one_device(arguments: TrainingArguments, device: torch.device) -> None:
    """A process alone would take all accelerators it sees, by threads, beginning with the first."""
    if device.type == "cuda" and ranks()[1] == 1:
        if device.index is not None:
            torch.cuda.set_device(device)
        _ = arguments.device  # which is set up at its first use
        arguments._n_gpu = 1
        arguments.__dict__["_setup_devices"] = torch.device("cuda", torch.cuda.current_device())


def reporters(names: str) -> list[str]:
    """Raises RecipeError for what is not installed."""
    from transformers.integrations import get_available_reporting_integrations

    here = get_available_reporting_integrations()
    wanted = [name.strip() for name in names.split(",") if name.strip() != "none"]
    for name in wanted:
        if name not in here:
            listed = ", ".join(sorted(here)) or "none"
            raise RecipeError(f"--report-to {name}: is not installed here (there is: {listed}); pip install {name}")
    return wanted


def _recomputing() -> dict[str, Any]:
    """Gradient checkpointing, which newer versions of transformers call by another name."""
    fields = TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}
