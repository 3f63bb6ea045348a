"""The verb: a cut checkpoint and the dense one give a repaired checkpoint, checked, with its manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from shortlm.artifacts import Manifest, RepairStep, ValidationLoss, provenance
from shortlm.checkpoint import Draft, earlier_steps, locate, refuse_target, with_step, written
from shortlm.errors import ModelError, RepairError, TextError
from shortlm.keys import fingerprint, key_of, model_key
from shortlm.model import ModelFiles, facts_from_config, find_anatomy, meta_model, open_files, output_projection
from shortlm.paths import user_path
from shortlm.progress import is_main
from shortlm.recipe import ModelSettings, RepairSettings, TextSettings
from shortlm.repair.fitting import Fitting
from shortlm.repair.kept_weights import KeptWeights
from shortlm.repair.methods import Repair, read_method
from shortlm.repair.pairing import Pairing, paired
from shortlm.repair.states import Side
from shortlm.repair.writing import Files
from shortlm.statistics import stderr
from shortlm.sweep import BlockCaller, Ranks, Say, Tail, auto_batch_size, joined_ranks
from shortlm.text import Windows, open_windows

PLENTY = 5  # tokens for each unknown, below which a warning is given
CLOSE = 0.01  # nats per token by which the written model's loss may differ from the walk's in half types


def repair(
    model: ModelSettings, against: ModelSettings, text: TextSettings, settings: RepairSettings, out: Path | str,
    blocks: Sequence[int] | None = None, force: bool = False, say: Say | None = None, key: str | None = None,
    always: bool = False,
) -> Manifest:  # fmt: skip
    """Write the cut `model`, repaired against the dense one, to the folder `out`, whole or not at all.

    `blocks` are the dense model's indices of the cut one's blocks, where no manifest tells. Under torchrun the
    processes share the windows. A repair that makes the loss on validation windows worse raises RepairError with the
    figures; with `always` the cut model's own weights are written instead, and the step says so. What was interrupted
    goes on from the weights that were solved for. Raises ModelError if the models don't fit together, TextError for too
    little text.
    """
    say, out, started = say or (lambda line: None), user_path(out), time.perf_counter()
    how = read_method(settings.method)
    cut, dense = open_files(model), open_files(against)
    refuse_target(cut.checkpoint, out, force)
    refuse_target(dense.checkpoint, out, force)
    pairing = paired(cut, dense, blocks)
    files = Files(cut.checkpoint, meta_model(cut.config, model.trust_remote_code))
    _refuse_unsolvable(files, how, pairing)
    earlier = earlier_steps(cut.checkpoint, len(pairing.blocks))
    text = text.model_copy(update={"sequences": settings.calibration + settings.validation})
    windows = open_windows(text.for_model(against.model), dense.tokenizer or cut.tokenizer, dense.config.vocab_size)
    if len(windows.ids_BT) < (wanted := settings.calibration + settings.validation):
        raise TextError(
            f"{windows.facts.source}: holds {len(windows.ids_BT)} windows, --calibration and --validation "
            f"need {wanted}; give more text, or smaller numbers"
        )
    windows = windows.part(slice(wanted))
    with joined_ranks() as ranks:
        kept = KeptWeights(_folder(model, against, text, settings, pairing, out), is_main())
        fitting = _fitted(cut, dense, windows, pairing, how, settings, files, ranks, kept)
        loss, firsts = _losses(fitting)
        _warn(fitting, say if is_main() else lambda line: None)
        manifest = None
        if is_main():
            worse = how.name != "none" and not loss.repaired <= loss.cut
            if worse and not always:
                kept.forget()
                raise RepairError(
                    f"{how}: the loss on {settings.validation} windows would be {loss.repaired:.4f}, without repair it "
                    f"is {loss.cut:.4f} (dense {loss.dense:.4f}); nothing was written; give more --calibration windows"
                )
            computed = {} if worse else files.solved(fitting.folds, kept) | files.scaled(fitting.folds)
            config_json = (cut.checkpoint.folder / "config.json").read_text(encoding="utf-8")
            draft = Draft(cut.checkpoint, files.pieces(computed), config_json)
            with written(draft, out, force, 5_000_000_000, False) as part:
                if not worse:
                    _check(model, part, windows, settings.calibration, firsts)
                seconds = round(time.perf_counter() - started, 3)
                step = RepairStep(
                    method=str(how), against=facts_from_config(against), blocks=pairing.blocks, folds=fitting.folds,
                    depths=fitting.depths, loss=loss, delivered=not worse, data=windows.facts,
                    validation=settings.validation, bytes_before=cut.checkpoint.nbytes, bytes_after=draft.nbytes,
                    provenance=provenance(str(cut.device), str(cut.dtype).removeprefix("torch."), seconds, key),
                )  # fmt: skip
                manifest = with_step(earlier, cut.checkpoint, facts_from_config(model), step)
                manifest.save(part / "manifest.json")
        kept.forget()
    return manifest or Manifest.load(out / "manifest.json")


def _refuse_unsolvable(files: Files, how: Repair, pairing: Pairing) -> None:
    """Raise ModelError before any work for weights that can't be solved for or written."""
    anatomy = find_anatomy(files.model)
    for j in range(pairing.first if how.solves else 0, len(pairing.blocks) if how.solves or how.scales else 0):
        for part in how.parts if how.solves else ("attention", "ffn"):
            if projection := output_projection(anatomy, j, part):
                files.stored(j, f"{projection.path}.weight")


def _fitted(
    cut: ModelFiles, dense: ModelFiles, windows: Windows, pairing: Pairing, how: Repair, settings: RepairSettings,
    files: Files, ranks: Ranks, kept: KeptWeights,
) -> Fitting:  # fmt: skip
    streamed = "on" in (cut.settings.stream, dense.settings.stream)
    if not streamed and cut.settings.stream == "auto":
        streamed = not (cut.fits() and dense.fits())
    opened = [files.open(streamed) for files in (dense, cut)]
    callers = [BlockCaller(one.model, one.anatomy, one.disk) for one in opened]
    if min(settings.calibration, settings.validation) < ranks.size:
        raise RepairError(f"each of {ranks.size} processes needs a --calibration and a --validation window; give more")
    calibration, validation = (
        part.part(ranks.share(len(part.ids_BT)))
        for part in (windows.part(slice(settings.calibration)), windows.part(slice(settings.calibration, None)))
    )
    size = auto_batch_size(len(calibration.ids_BT), windows.shape[1], callers[0].device)
    to_fit, to_validate = calibration.batches(size), validation.batches(size)
    sides = [Side.of(caller, to_fit + to_validate) for caller in callers]
    fitting = Fitting(
        sides[0],
        sides[1],
        Side.of(callers[1], to_validate),
        len(to_fit),
        pairing,
        how,
        settings,
        ranks,
        kept,
        files.stored,
    )
    fitting.run()
    return fitting


def _losses(fitting: Fitting) -> tuple[ValidationLoss, list[float]]:
    """Of all three models, and the repaired model's summed nats of the windows of this process's first batch."""
    n = fitting.fitted
    nats = [
        _nats(fitting.dense, n), _nats(fitting.untouched, 0), _nats(fitting.repaired, n)
    ]  # fmt: skip
    tokens_S = torch.cat([batch.keep_BT[:, 1:].logical_and(batch.keep_BT[:, :-1]).sum(1) for batch in
                          fitting.untouched.batches]).cpu()  # fmt: skip
    count = int(fitting.ranks.total(len(tokens_S)))
    gathered = [fitting.ranks.all_gather(nats_S, count) for nats_S in (*nats, tokens_S.double())]
    tokens_S = gathered.pop()
    dense, cut, repaired = (float(nats_S.sum() / tokens_S.sum()) for nats_S in gathered)
    difference_S = (gathered[2] - gathered[1]) / tokens_S.clamp_min(1)
    shares_S = tokens_S / tokens_S.sum()
    error = stderr(difference_S.tolist(), shares_S.tolist())
    if not all(map(torch.isfinite, (gathered[2].sum(), gathered[1].sum(), gathered[0].sum()))):
        raise ModelError("a loss on the validation windows is no number; compute in --dtype float32")
    loss = ValidationLoss(dense=dense, cut=cut, repaired=repaired, stderr=error, tokens=int(tokens_S.sum()))
    return loss, gathered[2].tolist()


def _nats(side: Side, start: int) -> torch.Tensor:
    """Summed over the tokens of each window of the batches from `start` on."""
    tail = Tail(side.caller)
    with tail.loaded():
        pairs = list(zip(side.states, side.batches, strict=True))[start:]
        return torch.cat([tail.nats(h_BTD, batch).sum(1).double().cpu() for h_BTD, batch in pairs])


def _check(model: ModelSettings, part: Path, windows: Windows, start: int, nats: list[float]) -> None:
    """The written model has the loss that the walk came to, on the first window of validation.

    Raises ModelError if not: this architecture writes its residual stream in other places too.
    """
    files = open_files(model.model_copy(update={"model": str(part), "revision": None}))
    opened = files.open(model.stream == "on" or (model.stream == "auto" and not files.fits()))
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    side = Side.of(caller, windows.part(slice(start, start + 1)).batches(1))
    for i in caller.visit():
        side.pass_block(i)
    found, tokens = float(_nats(side, 0)[0]), windows.shape[1] - 1
    allowed = (1e-4 if opened.dtype == "float32" else CLOSE) * tokens
    if not abs(found - nats[0]) <= allowed:
        raise ModelError(
            f"the repaired model's loss, as written, is {found / tokens:.5f} on a window where {nats[0] / tokens:.5f} "
            "was computed; nothing was written; this method doesn't fit this architecture: give another --method"
        )


def _warn(fitting: Fitting, say: Say) -> None:
    for fold in fitting.folds:
        if fold.unknowns and fold.tokens < PLENTY * fold.unknowns:
            say(
                f"{fold.tokens:,} tokens for {fold.unknowns:,} unknowns of each output: at least {PLENTY} times as "
                "many tokens are better; give more --calibration windows"
            )
            return


def _folder(
    model: ModelSettings, against: ModelSettings, text: TextSettings, settings: RepairSettings, pairing: Pairing,
    out: Path,
) -> Path:  # fmt: skip
    """Where weights are kept that were solved for, by what they depend on."""
    models = [model_key(one, locate(one.model, one.revision, weights=False)[1]) for one in (model, against)]
    key = key_of("repair", models, text, fingerprint(text.ids or text.text), settings, pairing.blocks)
    return out.parent / f".{out.name}.repair-{key[:12]}"
