"""transformers' Trainer going on from a checkpoint, which it reads strictly.

The Trainer itself skips tensors that have other names, files that are not there, and takes over what it finds in the
rest; pickles it reads as tensors and plain values only (`weights_only`), so that no code in them runs. Here everything
that does not fit is an error that names the file and the way out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerState, TrainingArguments

from shortlm.errors import ShortLMError, is_out_of_memory, reason, shown
from shortlm.heal.adapters import ADAPTER, refuse_other_adapter
from shortlm.heal.checkpoints import hint_for
from shortlm.heal.processes import load_whole
from shortlm.heal.remains import damaged, readable
from shortlm.model import load_strictly
from shortlm.recipe import ModelSettings


class ResumingTrainer(Trainer):
    """`opened_by`: how the user had the model opened, which holds for its checkpoints too."""

    def __init__(self, model: Any, args: TrainingArguments, callbacks: list[Any], opened_by: ModelSettings):
        super().__init__(model=model, args=args, callbacks=callbacks)
        self._opened_by, self._begun = opened_by, False

    def start(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint if there is one. What fails then before the first step is the checkpoint's fault."""
        if checkpoint is None:
            self.train()
            return
        self._check_state(checkpoint)
        try:
            self.train(resume_from_checkpoint=str(checkpoint))
        except Exception as error:
            if self._begun or isinstance(error, ShortLMError) or is_out_of_memory(error):
                raise
            raise damaged(checkpoint, reason(error), hint_for(checkpoint)) from error

    def training_step(self, *args: Any, **options: Any) -> Any:
        """Forwards and backwards."""
        self._begun = True
        return super().training_step(*args, **options)

    def _check_state(self, folder: Path) -> None:
        path = folder / "trainer_state.json"
        with readable(path, hint_for(folder)):
            state = TrainerState.load_from_json(str(path))
        if type(state.global_step) is not int or f"checkpoint-{state.global_step}" != folder.name:
            raise damaged(path, f"it tells of step {shown(state.global_step)}", hint_for(folder))
        for name, usual in vars(TrainerState()).items():
            kind = (int, float) if isinstance(usual, (int, float)) else type(usual)
            if usual is not None and not isinstance(getattr(state, name), kind):
                raise damaged(path, f"{name}: {shown(getattr(state, name))}", hint_for(folder))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Strictly: where files name tensors otherwise than the modules do (experts), the Trainer would skip them."""
        folder = Path(resume_from_checkpoint)
        target: Any = self.model if model is None else model
        with readable(folder, hint_for(folder)):
            if self.is_fsdp_enabled:
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            elif (folder / ADAPTER).is_file():
                refuse_other_adapter(target, folder)
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            else:
                self._load_whole(folder, target)

    def _load_whole(self, folder: Path, target: Any) -> None:
        load_whole()
        # Whether code in the folder may run is the user's to say, never the checkpoint's.
        own = {"model": str(folder), "revision": None, "dtype": "float32", "device": "cpu"}
        settings = self._opened_by.model_copy(update=own)
        target.load_state_dict(load_strictly(folder, target.config, settings).state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The Trainer loads both, as plain tensors and numbers (`weights_only`); here they are checked."""
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        self._check_scheduler(folder / "scheduler.pt")
        path = folder / "optimizer.pt"
        with readable(path if path.exists() else folder, hint_for(folder)):
            super()._load_optimizer_and_scheduler(checkpoint)
            optimizer: Any = self.optimizer
            for parameter, state in optimizer.state.items():
                for name in {"exp_avg", "exp_avg_sq"} & state.keys():
                    if state[name].shape != parameter.shape:
                        raise ValueError(f"{name} of shape {list(state[name].shape)} for {list(parameter.shape)}")

    def _check_scheduler(self, path: Path) -> None:
        """It takes whatever attributes it is given."""
        if type(self.lr_scheduler) is not LambdaLR:
            return
        with readable(path, hint_for(path.parent)):
            saved = torch.load(path, map_location="cpu", weights_only=True)
            step, rates = saved["last_epoch"], saved["base_lrs"]
            if step != self.state.global_step or rates != self.lr_scheduler.base_lrs:
                raise ValueError(f"it tells of step {shown(step)} and rates of {shown(rates)}")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Random numbers go on as they would have."""
        if checkpoint is not None:
            path = Path(checkpoint)
            alone = self.args.world_size == 1
            file = path / ("rng_state.pth" if alone else f"rng_state_{self.args.process_index}.pth")
            with readable(file, hint_for(path)):
                super()._load_rng_state(checkpoint)
