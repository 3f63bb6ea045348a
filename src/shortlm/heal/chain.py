"""The verb: a chain of training phases gives a shortened model its quality back."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from shortlm.artifacts import Healing, Phase, provenance
from shortlm.errors import OutputError, ShortLMError
from shortlm.heal.checkpoints import clear_incomplete
from shortlm.heal.merging import make_room, write_merged
from shortlm.heal.phases import Work, prepare_work, train_phase
from shortlm.heal.processes import join_processes, ranks, wait_for_all
from shortlm.heal.remains import readable
from shortlm.heal.teacher import find_teacher
from shortlm.heal.trainable import check_method
from shortlm.heal.training import reporters
from shortlm.heal.workspace import Workspace, link_or_copy
from shortlm.heal.writing import writing
from shortlm.keys import fingerprint, key_of, phase_keys
from shortlm.model import ModelFiles, facts_from_config, open_files
from shortlm.outputs import output_path, whole_folder
from shortlm.progress import is_main
from shortlm.recipe import HealSettings, ModelSettings, Plain, settings_of
from shortlm.report import loss_chart
from shortlm.text.mixture import first_item

Say = Callable[[str], object]


def heal(
    model: ModelSettings | Plain, settings: HealSettings | Mapping[str, object] | None = None,
    out: Path | str | None = None, force: bool = False,
    say: Say = lambda line: None, base: str | None = None,
) -> Healing:  # fmt: skip
    """Train the model by every phase in turn and write a plain checkpoint to the folder `out`, whole or not at all.

    After a stop at any moment the same call goes on; a finished one is kept. Under accelerate or torchrun all
    processes call this. `base` (of `run`) stands for the model in the keys by which that is known.

    Raises ModelError, TextError, RecipeError for what does not fit, HealError for a step whose loss is no number,
    OutputError if `out` is in use.
    """
    model, settings, out = settings_of(ModelSettings, model), settings_of(HealSettings, settings), output_path(out)
    files = open_files(model)
    if out.resolve() == files.checkpoint.folder.resolve():
        raise OutputError(f"{out}: the output would replace the model itself; choose another --out")
    join_processes(files.device)
    with Workspace(out, phase_keys(base or key_of(model, fingerprint(model.model)), settings), force) as space:
        finished = space.finished()
        works = {} if finished else _checked(files, settings, space.trained(), say)
        wait_for_all()
        if finished:
            say(f"kept {out}")
        if is_main():
            space.remove() if finished else space.claim()
        wait_for_all()
        return finished or _healed(files, model, settings, works, space, say)


def _healed(
    files: ModelFiles, model: ModelSettings, settings: HealSettings, works: dict[int, Work], space: Workspace, say: Say
) -> Healing:
    """All phases that are not done yet, then the output."""
    started, records, device = time.perf_counter(), [], str(files.device)
    earlier = _earlier(files.checkpoint.folder)
    for number in range(1, len(settings.phases) + 1):
        record = space.done(number) or _phase(files, settings, number, works.pop(number), space, say)
        records.append(record)
        files = _trained(model, space.phase(number), number)
    wait_for_all()  # none needs the folder any more
    seconds = round(time.perf_counter() - started, 3)
    healing = Healing(
        model=facts_from_config(model), phases=[*earlier, *records],
        provenance=provenance(device, records[-1].precision, seconds, space.key),
    )  # fmt: skip
    if is_main():
        _deliver(space, healing, len(settings.phases))
    wait_for_all()
    return healing


def _trained(model: ModelSettings, phase: Path, number: int) -> ModelFiles:
    """The files of what a phase has given. Raises HealError if they were damaged since."""
    with readable(phase / "model", f"delete {phase} to train phase {number} again"):
        return open_files(model.model_copy(update={"model": str(phase / "model"), "revision": None}))


def _phase(
    files: ModelFiles, settings: HealSettings, number: int, work: Work, space: Workspace, say: Say
) -> Phase:  # fmt: skip
    folder = space.phase(number)
    if is_main():
        clear_incomplete(folder)
    wait_for_all()
    record = train_phase(files, settings.phases[number - 1], settings, number, work, folder, space.log, say)
    make_room()
    if is_main():
        shutil.rmtree(folder / "model", ignore_errors=True)  # of a process that was killed just here
        kept = folder / f"checkpoint-{record.kept_step}"
        record.merge_difference = write_merged(files, kept, folder / "model")
        space.finish(number, record, settings.keep_adapter)
    wait_for_all()
    return record


def _earlier(folder: Path) -> list[Phase]:
    """What a model that was healed before has been through."""
    path = folder / "healing.json"
    return Healing.load(path).phases if path.is_file() else []


def _deliver(space: Workspace, healing: Healing, phases: int) -> None:
    with writing(space.out), whole_folder(space.out, space.force) as part:
        link_or_copy(space.phase(phases) / "model", part)
        for number in range(1, phases + 1):
            adapter = space.phase(number) / "adapter"
            if adapter.is_dir():
                link_or_copy(adapter, part / ("adapter" if phases == 1 else f"adapter-{number}"))
            if (space.phase(number) / "runs").is_dir():  # TensorBoard's
                shutil.copytree(space.phase(number) / "runs", part / "runs" / f"phase-{number}")
        (part / "log.jsonl").write_bytes(space.log.read_bytes())
        (part / "loss.svg").write_text(loss_chart(healing), encoding="utf-8")
        healing.save(part / "healing.json", force=True)  # in place of an earlier one that was carried along
    space.remove()


def check_healing(model: ModelSettings, settings: HealSettings) -> None:
    """Raise ModelError, RecipeError or TextError for methods that can't be had and data that is not there, before the
    model that is to be healed exists. The first item of every source is read.
    """
    files = open_files(model)
    for phase in settings.phases:
        check_method(files, phase)
        for source in phase.data:
            first_item(source)
    reporters(settings.report_to)


def _checked(files: ModelFiles, settings: HealSettings, trained: set[int], say: Say) -> dict[int, Work]:
    """The work of every phase that is not `trained`; what does not fit is noticed before the first one is trained."""
    works = {}
    for number, phase in enumerate(settings.phases, start=1):
        where = f"phase {number}: " if len(settings.phases) > 1 else ""
        try:
            check_method(files, phase)
            if number not in trained:
                work = prepare_work(files, phase, ranks()[1])
                if phase.method == "distill":  # found from the model as it was given, not from that of a phase
                    work = dataclasses.replace(work, teacher=find_teacher(files, phase))
                works[number] = work
                if work.warmup >= work.steps:
                    say(f"{where}the peak rate is never reached: {work.steps} steps and a warm-up of {work.warmup}")
        except ShortLMError as error:
            raise type(error)(f"{where}{error}") from error
    reporters(settings.report_to)
    return works
