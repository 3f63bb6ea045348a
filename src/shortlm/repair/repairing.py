"""The verb: a cut checkpoint and the dense one give a repaired checkpoint, checked, with its manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from shortlm.artifacts import Fold, Manifest, RepairStep, ValidationLoss, provenance
from shortlm.checkpoint import Draft, earlier_steps, refuse_target, with_step, written
from shortlm.errors import RepairError
from shortlm.model import ModelFiles, facts_from_config
from shortlm.outputs import output_path
from shortlm.progress import is_main
from shortlm.recipe import ModelSettings, Plain, RepairSettings, TextSettings, settings_of
from shortlm.repair.fitting import Fitting, fit_beside
from shortlm.repair.kept_weights import KeptWeights
from shortlm.repair.planning import refuse_beyond_memory, streams
from shortlm.repair.sources import Batches, Sources, sources_of
from shortlm.repair.validation import check_written, losses
from shortlm.sweep import BlockCaller, Ranks, Say, Side, joined_ranks

PLENTY = 5  # tokens for each unknown, below which a warning is given
SHARD = 5_000_000_000


def repair(
    model: ModelSettings | Plain, against: ModelSettings | Plain, text: TextSettings | Plain | None = None,
    settings: RepairSettings | Mapping[str, object] | None = None, out: Path | str | None = None,
    blocks: Sequence[int] | None = None, force: bool = False, say: Say | None = None, key: str | None = None,
    always: bool = False, base: str | None = None,
) -> Manifest:  # fmt: skip
    """Write the cut `model`, repaired against the dense one, to the folder `out`, whole or not at all.

    `blocks` are the dense model's indices of the cut one's blocks, where no manifest tells. Under torchrun the
    processes share the windows. A repair that makes the loss on validation windows worse raises RepairError with the
    figures; with `always` the cut model's own weights are written instead, and the step says so. What was interrupted
    goes on from the weights that were solved for; `base` is the cut model's key, where its files are new each time.
    Raises ModelError if the models don't fit together, TextError for too little text.
    """
    say, out, started = say or (lambda line: None), output_path(out), time.perf_counter()
    model, against = settings_of(ModelSettings, model), settings_of(ModelSettings, against)
    text, settings = settings_of(TextSettings, text), settings_of(RepairSettings, settings)
    sources = sources_of(model, against, text, settings, blocks)
    for files in (sources.cut, sources.dense):
        refuse_target(files.checkpoint, out, force)
    refuse_beyond_memory(sources)
    with joined_ranks() as ranks:
        kept = KeptWeights(sources.folder(out, base), is_main())
        fitting = fitting_of(sources, sources.batches(ranks), ranks, kept)
        fit_beside(fitting.dense, [fitting])
        loss, nats = losses(fitting)
        if is_main():
            _warn(fitting.folds, say)
            delivered = _delivered(sources, loss, kept, always)
            result = _Result(sources, fitting, loss, nats, kept, delivered)
            result.write(out, force, started, key)
        ranks.total(0)  # all wait until it is written
        kept.forget()
    return Manifest.load(out / "manifest.json")


def fitting_of(
    sources: Sources, batches: tuple[Batches, Batches], ranks: Ranks, kept: KeptWeights | None = None,
    dense: Side | None = None,
) -> Fitting:  # fmt: skip
    """Both models before their first block; or, where `dense` is there, the cut one beside it."""
    streamed, (to_fit, to_validate) = streams(sources), batches
    if dense is None:
        dense = Side.of(caller_of(sources.dense, streamed), to_fit + to_validate)
    caller = caller_of(sources.cut, streamed)
    return Fitting(
        dense=dense, repaired=Side.of(caller, to_fit + to_validate), untouched=Side.of(caller, to_validate),
        fitted=len(to_fit), pairing=sources.pairing, how=sources.how, settings=sources.settings, ranks=ranks,
        kept=kept or KeptWeights(None), stored=sources.files.stored,
    )  # fmt: skip


def caller_of(files: ModelFiles, streamed: bool) -> BlockCaller:
    """The blocks of a model, in memory or on disk."""
    opened = files.open(streamed)
    return BlockCaller(opened.model, opened.anatomy, opened.disk)


def _delivered(sources: Sources, loss: ValidationLoss, kept: KeptWeights, always: bool) -> bool:
    """Whether the repair is an improvement. Raises RepairError if not, and that isn't to be written all the same."""
    worse = sources.how.name != "none" and not loss.repaired <= loss.cut
    if worse and not always:
        kept.forget()
        raise RepairError(
            f"{sources.how}: the loss on {sources.settings.validation} windows would be {loss.repaired:.4f}, without "
            f"repair it is {loss.cut:.4f} (dense {loss.dense:.4f}); nothing was written; give more --calibration "
            "windows"
        )
    return not worse


class _Result:
    """What is written."""

    def __init__(
        self, sources: Sources, fitting: Fitting, loss: ValidationLoss, nats: list[float], kept: KeptWeights,
        delivered: bool,
    ):  # fmt: skip
        self.sources, self.windows, self.fitting, self.loss = sources, sources.windows, fitting, loss
        self.nats, self.kept, self.delivered = nats, kept, delivered

    def write(self, out: Path, force: bool, started: float, key: str | None) -> None:
        cut, folds, files = self.sources.cut, self.fitting.folds, self.sources.files
        earlier = earlier_steps(cut.checkpoint, len(self.sources.pairing.blocks))
        computed = files.solved(folds, self.kept) | files.scaled(folds, self.fitting.norms) if self.delivered else {}
        config_json = (cut.checkpoint.folder / "config.json").read_text(encoding="utf-8")
        draft = Draft(cut.checkpoint, files.pieces(computed), config_json)
        with written(draft, out, force, SHARD, False) as part:
            if self.delivered:
                first = self.sources.settings.calibration
                window, scaled = self.windows.part(slice(first, first + 1)), self.sources.how.scales
                check_written(cut.settings, part, window, self.nats[0], scaled)
            seconds = round(time.perf_counter() - started, 3)
            step = self._step(draft.nbytes, seconds, key)
            with_step(earlier, cut.checkpoint, facts_from_config(cut.settings), step).save(part / "manifest.json")

    def _step(self, nbytes: int, seconds: float, key: str | None) -> RepairStep:
        sources, fitting = self.sources, self.fitting
        cut, dtype = sources.cut, str(sources.cut.dtype).removeprefix("torch.")
        return RepairStep(
            method=str(sources.how), against=facts_from_config(sources.dense.settings),
            blocks=sources.pairing.blocks, folds=fitting.folds, depths=fitting.depths, loss=self.loss,
            delivered=self.delivered, data=self.windows.facts, validation=sources.settings.validation,
            options=sources.options(), bytes_before=cut.checkpoint.nbytes, bytes_after=nbytes,
            provenance=provenance(str(cut.device), dtype, seconds, key),
        )  # fmt: skip


def _warn(folds: list[Fold], say: Say) -> None:
    for fold in folds:
        if fold.unknowns and fold.tokens < PLENTY * fold.unknowns:
            say(
                f"{fold.tokens:,} tokens for {fold.unknowns:,} unknowns of each output: at least {PLENTY} times as "
                "many tokens are better; give more --calibration windows"
            )
            return
