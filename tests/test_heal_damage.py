"""What a stopped healing left and something has damaged since: one line that names the file, and nothing is deleted."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shortlm.artifacts import Healing
from shortlm.errors import HealError, OutputError, ShortLMError
from shortlm.heal import heal, training
from shortlm.recipe import HealSettings, ModelSettings, PhaseSettings

PHASE = {"data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 4, "held_out": 4, "lr": 1e-3,
         "eval_every": 2, "micro_tokens": 100, "precision": "float32"}  # fmt: skip


class Killed(BaseException):
    """Nothing catches it."""


def settings() -> HealSettings:
    return HealSettings(phases=[PhaseSettings(**PHASE, method=m, steps=6) for m in ("lora", "cpt")], log_every=1)


def healed(model: Path, out: Path, force: bool = False) -> Healing:
    return heal(ModelSettings(model=str(model), device="cpu"), settings(), out, force)


@pytest.fixture(scope="module")
def stopped(llama_folder, tmp_path_factory) -> dict[str, Path]:
    """The folders of healings that were killed in the first phase (lora) and in the second (cpt)."""
    made = {}
    for method, last in (("lora", 5), ("cpt", 11)):
        folder = tmp_path_factory.mktemp(method)
        calls, plain = iter(range(1, 100)), training.HealTrainer.training_step

        def step(self, *args, calls=calls, last=last, plain=plain, **kwargs):
            if next(calls) > last:
                raise Killed
            return plain(self, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.HealTrainer, "training_step", step)
            with pytest.raises(Killed):
                healed(llama_folder, folder / "out")
        made[method] = folder
    return made


@pytest.fixture()
def place(stopped, tmp_path):
    """A copy of such a folder; without sizes in the marks, as older versions wrote them, if asked."""

    def copied(method: str, sizes: bool = True) -> Path:
        folder = Path(shutil.copytree(stopped[method], tmp_path / "copy"))
        for path in folder.rglob("complete.json"):
            mark = json.loads(path.read_bytes())
            assert mark["files"]["trainer_state.json"] > 0
            if not sizes:
                del mark["files"]
            path.write_text(json.dumps(mark), encoding="utf-8")
        return folder

    return copied


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(llama_folder: Path, folder: Path) -> str:
    """What is told; nothing is changed."""
    before = everything(folder)
    with pytest.raises((HealError, OutputError)) as error:
        healed(llama_folder, folder / "out")
    after = everything(folder)
    assert {**before, "out.healing/lock": b""} == {**after, "out.healing/lock": b""}
    text = str(error.value)
    assert "\n" not in text and len(text) < 1000
    return text


def cut_short(old: bytes) -> bytes:
    return old[: len(old) // 2]


def noise(old: bytes) -> bytes:
    return random.Random(5).randbytes(len(old))


DAMAGES = {
    "cut short": cut_short, "empty": lambda old: b"", "noise": noise, "null": lambda old: b"null",
    "list": lambda old: b"[1, 2]", "text": lambda old: b'"x"', "number": lambda old: b"7", "object": lambda old: b"{}",
    "nested": lambda old: b"[" * 100_000, "digits": lambda old: b'{"keys": ' + b"7" * 5000 + b"}",
}  # fmt: skip
LORA, CPT = "out.healing/phase-1/checkpoint-4", "out.healing/phase-2/checkpoint-4"
FILES = {
    "out.healing/state.json": ("lora", "give --force to start anew, or another --out"),
    "out.healing/phase-1/done.json": ("cpt", "delete it to train phase 1 again"),
    f"{LORA}/complete.json": ("lora", f"{LORA} to go on from the checkpoint before it"),
    f"{LORA}/trainer_state.json": ("lora", f"{LORA} to go on from the checkpoint before it"),
    f"{LORA}/optimizer.pt": ("lora", f"{LORA} to go on from the checkpoint before it"),
    f"{LORA}/scheduler.pt": ("lora", f"{LORA} to go on from the checkpoint before it"),
    f"{LORA}/rng_state.pth": ("lora", f"{LORA} to go on from the checkpoint before it"),
    f"{LORA}/adapter_model.safetensors": ("lora", f"{LORA} to go on from the checkpoint before it"),
    f"{CPT}/model.safetensors": ("cpt", f"{CPT} to go on from the checkpoint before it"),
    "out.healing/phase-1/model/model.safetensors": ("cpt", "out.healing/phase-1 to train phase 1 again"),
    "out.healing/phase-1/model/config.json": ("cpt", "out.healing/phase-1 to train phase 1 again"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "damage"),
    [(f, d) for f in FILES for d in DAMAGES if f.endswith("json") or d in ("cut short", "empty", "noise", "null")],
)
def test_a_damaged_file_is_told(llama_folder, place, file, damage):
    method, way_out = FILES[file]
    folder = place(method, sizes=False)
    path = folder / file
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    told = refused(llama_folder, folder)
    named = path if file.endswith((".json", ".pt", ".pth")) and "model/" not in file else path.parent
    assert str(named) in told and way_out in told, told


@pytest.mark.parametrize("damage", [cut_short, None], ids=["cut short", "gone"])
@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "scheduler.pt", "model.safetensors", "config.json"])
def test_the_mark_knows_the_sizes(llama_folder, place, name, damage):
    folder = place("cpt")
    path = folder / CPT / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    told = refused(llama_folder, folder)
    assert told.startswith(f"{path}: is damaged (it ") and told.endswith("before it, or from the beginning")


def changed(path: Path, **values) -> None:
    content = json.loads(path.read_bytes())
    for name, value in values.items():
        inner = content
        *before, last = name.split("__")
        for part in before:
            inner = inner[part]
        inner[last] = value
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "values",
    [{"position": None}, {"position__step": 3}, {"position__step": "4"}, {"position__step": -1},
     {"position__step": 4.5}, {"seconds": "x"}, {"seconds": -1}, {"seconds": None}, {"position__data": None},
     {"position__data": []},
     {"position__data": {}}, {"position__data__given": [-1]}, {"position__data__sources": [{}]},
     {"position__data__sources": [{"at": -5, "pass": 0, "left": [], "starts": []}]},
     {"position__data__sources": [{"at": 5, "pass": 0, "left": [10**9], "starts": []}]}, {"files": {"x": 1}},
     {"files": {"../../state.json": 1}}, {"files": None}],
    ids=str,
)  # fmt: skip
def test_marks_that_make_no_sense_are_told(llama_folder, place, values):
    folder = place("lora")
    changed(folder / LORA / "complete.json", **values)
    told = refused(llama_folder, folder)
    assert f"{folder / LORA}" in told and "is damaged" in told and "to go on from the checkpoint before it" in told


@pytest.mark.parametrize(
    "values",
    [{"global_step": 3}, {"global_step": "4"}, {"log_history": 5}, {"max_steps": "x"}, {"stateful_callbacks": 5},
     {"train_batch_size": []}, {"epoch": "x"}],
    ids=str,
)  # fmt: skip
def test_states_of_the_trainer_that_make_no_sense(llama_folder, place, values):
    """They are told, or do no harm."""
    folder = place("lora")
    changed(folder / LORA / "trainer_state.json", **values)
    changed(folder / LORA / "complete.json", files={})
    try:
        assert [p.steps for p in healed(llama_folder, folder / "out").phases] == [6, 6]
    except ShortLMError as error:
        assert f"{folder / LORA}" in str(error) and "to go on from the checkpoint before it" in str(error)
        assert not {"global_step"} & values.keys() or "it tells of step" in str(error)
    else:
        assert "global_step" not in values


def test_lines_of_the_log(llama_folder, place):
    folder = place("cpt")
    log = folder / "out.healing/log.jsonl"
    good = log.read_bytes()
    lines = good.splitlines(keepends=True)
    wrong = [lines[2].replace(b'"phase": 1', b'"phase": "1"'), lines[2].replace(b'"step": ', b'"step": 0.5, "x": ')]
    wrong += [b"null", b"[]", b"7", b"{}", b'{"phase": 1}', lines[2][:-20], b"\x00\xff", b"[" * 100_000]
    for bad in wrong:
        log.write_bytes(b"".join([*lines[:2], bad.rstrip(b"\n") + b"\n", *lines[3:]]))
        told = refused(llama_folder, folder)
        assert told == f"{log}: is damaged (line 3 is no entry of the log); delete this line to go on without it"
    log.write_bytes(good + lines[-1][:20])  # a killed process began to write it
    assert len(healed(llama_folder, folder / "out").phases[1].log) == 6


class Evil:
    def __reduce__(self):
        return (Path.write_text, (Path("ran"), "x"))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_code_in_a_pickle_never_runs(llama_folder, place, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder = place("cpt", sizes=False)
    for write in (lambda path: torch.save(Evil(), path), lambda path: path.write_bytes(pickle.dumps(Evil()))):
        write(folder / CPT / name)
        assert str(folder / CPT / name) in refused(llama_folder, folder)
    assert not (tmp_path / "ran").exists()


def test_states_of_another_model_are_told(llama_folder, place):
    folder = place("cpt", sizes=False)
    path = folder / CPT / "optimizer.pt"
    state = torch.load(path, weights_only=True)
    state["state"][0]["exp_avg"] = torch.zeros(3)
    torch.save(state, path)
    assert "exp_avg of shape [3] for [" in refused(llama_folder, folder)
    scheduler = folder / CPT / "scheduler.pt"
    torch.save(torch.load(scheduler, weights_only=True) | {"last_epoch": 1}, scheduler)
    assert "it tells of step 1" in refused(llama_folder, folder)


def test_an_adapter_that_lacks_tensors_is_told(llama_folder, place):
    folder = place("lora", sizes=False)
    path = folder / LORA / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(dict(list(tensors.items())[1:]), path)
    assert "its tensors are not the adapter's (first: " in refused(llama_folder, folder)


def test_the_ways_out_lead_out(llama_folder, place):
    folder, out = place("cpt"), Path("out.healing")
    (folder / CPT / "optimizer.pt").write_bytes(b"")
    refused(llama_folder, folder)
    shutil.rmtree(folder / CPT)  # as told
    (folder / out / "phase-1" / "model" / "model.safetensors").write_bytes(b"")
    refused(llama_folder, folder)
    shutil.rmtree(folder / out / "phase-1")
    (folder / out / "state.json").write_bytes(b"null")
    refused(llama_folder, folder)
    done = healed(llama_folder, folder / "out", force=True)
    assert [len(p.log) for p in done.phases] == [6, 6] and not (folder / out).exists()


def test_the_best_checkpoint_may_be_gone(llama_folder, stopped, place, monkeypatch):
    folder = place("cpt")
    log = folder / "out.healing" / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:  # so that step 2, which has no checkpoint any more, is the best
        if line["phase"] == 2 and line["step"] == 2 and "nats_per_token" in line:
            line["nats_per_token"] = dict.fromkeys(line["nats_per_token"], 0.001)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert healed(llama_folder, folder / "out").phases[1].kept_step in (4, 6)


def test_folders_of_other_names_stay(llama_folder, place):
    folder = place("lora")
    mine = folder / LORA.replace("checkpoint-4", "checkpoint-4 copy")
    (mine / "x").mkdir(parents=True)
    other = folder / LORA.replace("checkpoint-4", "checkpoint-5")
    shutil.copytree(folder / LORA, other)
    (other / "complete.json").unlink()  # this one is of a process that was killed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.HealTrainer, "training_step", lambda *a, **k: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            healed(llama_folder, folder / "out")
    assert mine.is_dir() and not other.exists()
