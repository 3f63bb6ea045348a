"""Surgery on files: bytes, names, shards; whole outputs or none; inputs untouched."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from architectures import save_tiny

from shortlm.artifacts import Manifest, load_plan
from shortlm.checkpoint import carry_files, copying, editing, open_checkpoint, pieces
from shortlm.choose import plan_by_hand
from shortlm.cut import cut
from shortlm.errors import ModelError, OutputError, PlanError, RecipeError, ShortLMError
from shortlm.model import facts_from_config, open_model, quiet
from shortlm.recipe import CutSettings, ModelSettings, validated

REMOVED = [1, 4]


def cut_to(folder, out, removed=REMOVED, **settings):
    model = ModelSettings(model=str(folder))
    force = settings.pop("force", False)
    return cut(model, plan_by_hand(facts_from_config(model), removed), CutSettings(**settings), out, force)


def contents(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def tensors(folder):
    from safetensors.torch import load_file

    return {name: t for path in folder.glob("*.safetensors") for name, t in load_file(path).items()}


def test_kept_tensors_are_copied_under_their_new_names(llama_folder, tmp_path):
    before = contents(llama_folder)
    manifest = cut_to(llama_folder, tmp_path / "out")
    old, new = tensors(llama_folder), tensors(tmp_path / "out")
    for position, original in enumerate([0, 2, 3, 5]):
        name = "self_attn.q_proj.weight"
        assert torch.equal(new[f"model.layers.{position}.{name}"], old[f"model.layers.{original}.{name}"])
    assert torch.equal(new["model.embed_tokens.weight"], old["model.embed_tokens.weight"])
    assert not any(".layers.4." in name for name in new)
    assert contents(llama_folder) == before
    assert manifest.blocks == [0, 2, 3, 5]
    assert manifest.bytes_after == sum(t.numel() * 4 for t in new.values())
    assert manifest.equivalence.max_abs_difference <= 1e-4
    assert manifest.equivalence.max_abs_difference_cached <= 1e-4


def test_shards_are_split_again(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "one")
    cut_to(llama_folder, tmp_path / "many", shard_size="50KB")
    assert [p.name for p in (tmp_path / "one").glob("*.safetensors")] == ["model.safetensors"]
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(shards) > 2 and not (tmp_path / "many" / "model.safetensors").exists()
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors(tmp_path / "one").keys()
    assert all(torch.equal(t, tensors(tmp_path / "many")[n]) for n, t in tensors(tmp_path / "one").items())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tied_embeddings_and_types(tmp_path, tied, dtype):
    from architectures import tiny_model

    with quiet():
        tiny_model("llama", tie_word_embeddings=tied).to(getattr(torch, dtype)).save_pretrained(tmp_path / "m")
    manifest = cut_to(tmp_path / "m", tmp_path / "out")
    assert ("lm_head.weight" in tensors(tmp_path / "out")) is not tied
    assert manifest.equivalence.dtype == dtype
    facts = open_model(ModelSettings(model=str(tmp_path / "out"))).facts
    assert facts.parameters == manifest.plan.parameters_after


def test_a_cut_can_be_cut_again_and_repeated_from_its_manifest(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "first")
    cut_to(tmp_path / "first", tmp_path / "second", removed=[0])
    assert open_model(ModelSettings(model=str(tmp_path / "second"))).facts.n_blocks == 3
    plan = load_plan(tmp_path / "first")
    assert plan.removed == REMOVED
    cut(ModelSettings(model=str(llama_folder)), plan, CutSettings(), tmp_path / "again")
    names = ["model.safetensors", "config.json", "tokenizer.json"]
    assert all(contents(tmp_path / "first")[n] == contents(tmp_path / "again")[n] for n in names)


def test_files_carried_along(llama_copy, tmp_path):
    (llama_copy / "LICENSE").write_text("terms")
    (llama_copy / "README.md").write_text("the original's card")
    (llama_copy / "pytorch_model.bin").write_bytes(b"old")
    cut_to(llama_copy, tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"LICENSE", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "manifest.json"} <= names
    assert not {"README.md", "pytorch_model.bin", "model.safetensors.index.json"} & names


def test_what_exists_is_not_overwritten(llama_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    cut_to(llama_folder, out)  # an empty folder is free
    before = contents(out)
    with pytest.raises(
        OutputError, match=f"{out}: the output folder exists and is not empty; choose another --out, or give --force"
    ):
        cut_to(llama_folder, out)
    assert contents(out) == before
    cut_to(llama_folder, out, removed=[2], force=True)
    assert Manifest.load(out / "manifest.json").plan.removed == [2]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_force_never_deletes_what_shortlm_did_not_write(llama_folder, tmp_path, monkeypatch):
    out = tmp_path / "home"
    (out / "docs").mkdir(parents=True)
    (out / "docs" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files that shortlm did not write, which --force won't delete"):
        cut_to(llama_folder, out, force=True)
    assert (out / "docs" / "thesis.txt").read_text() == "mine"
    monkeypatch.chdir(tmp_path)
    for here in (".", str(tmp_path)):
        with pytest.raises(OutputError, match="is the current folder, or holds it"):
            cut_to(llama_folder, here, force=True)


def test_a_link_stays_a_link(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "real", verify=False)
    (tmp_path / "link").symlink_to("real")
    cut_to(llama_folder, tmp_path / "link", removed=[2], force=True, verify=False)
    assert (tmp_path / "link").is_symlink()
    assert Manifest.load(tmp_path / "real" / "manifest.json").plan.removed == [2]


def test_leftovers_of_killed_processes_are_cleared(llama_folder, tmp_path):
    node, dead = platform.node(), 2**22 + 1  # above any process id
    half = tmp_path / f".out.{node}-{dead}.abc.partial"
    other = tmp_path / f".out.{node}-{os.getpid()}.abc.partial"  # of a process that lives
    old = tmp_path / f".second.{node}-{dead}.abc.old" / "old"
    for folder in (half, other, old):
        folder.mkdir(parents=True)
    (old / "model.safetensors").write_text("the only copy")
    cut_to(llama_folder, tmp_path / "out", verify=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["out", other.name, "second"])
    assert (tmp_path / "second" / "model.safetensors").read_text() == "the only copy"


def test_links_that_lead_outside_are_not_carried(llama_copy, tmp_path):
    (tmp_path / "secret").write_text("key")
    (llama_copy / "notes.txt").symlink_to(tmp_path / "secret")
    cut_to(llama_copy, tmp_path / "out", verify=False)
    assert not (tmp_path / "out" / "notes.txt").exists()


def test_a_cut_of_a_cut_knows_the_first_blocks(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "first", verify=False)  # 0, 2, 3, 5 stay
    assert cut_to(tmp_path / "first", tmp_path / "second", removed=[1], verify=False).blocks == [0, 3, 5]


def test_the_model_itself_is_never_the_output(llama_copy):
    before = contents(llama_copy)
    for out in (llama_copy, llama_copy.parent):
        with pytest.raises(OutputError, match="the output would replace the model itself"):
            cut_to(llama_copy, out, force=True)
    assert contents(llama_copy) == before


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt(), ModelError("no match")])
def test_a_failure_leaves_nothing_and_keeps_what_was_there(llama_folder, tmp_path, monkeypatch, failure):
    out = tmp_path / "out"
    cut_to(llama_folder, out)
    before = contents(out)
    done = []

    def copy_then_fail(entry, target):
        done.append(entry.name)
        if len(done) == 5:
            raise failure
        target.write(b"\0" * entry.nbytes)

    monkeypatch.setattr(pieces, "copy_bytes", copy_then_fail)
    for target, force in [(tmp_path / "new", False), (out, True)]:
        done.clear()
        with pytest.raises((ShortLMError, KeyboardInterrupt)) as error:
            cut_to(llama_folder, target, force=force)
        if isinstance(failure, OSError):
            assert f"{target}: can't be written (no space left on device); free some space" in str(error.value)
    assert contents(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_disk_known_to_be_too_small(llama_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.terminal_size((0, 0)) and type("U", (), {"free": 10}))
    with pytest.raises(OutputError, match=r"needs [\d,]+ bytes and the disk has 10 free; free some space"):
        cut_to(llama_folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def damage_one_byte(monkeypatch) -> None:
    """Copies end with a wrong byte in one tensor."""
    real = pieces.copy_bytes

    def damage(entry, target):
        real(entry, target)
        if "layers.3.mlp.down_proj" in entry.name:
            target.seek(-1, 1)
            target.write(b"\x42")

    monkeypatch.setattr(pieces, "copy_bytes", damage)


def test_a_wrong_result_is_not_written(llama_folder, tmp_path, monkeypatch):
    """The equivalence check can fail: here tensors are copied with one byte changed."""
    damage_one_byte(monkeypatch)
    with pytest.raises(ModelError, match="the cut model's logits differ from the original's by"):
        cut_to(llama_folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_shrinks_meanwhile(llama_copy, tmp_path, monkeypatch):
    real = carry_files

    def shrink(source, folder):
        real(source, folder)
        shard = sorted(source.glob("*.safetensors"))[-1]
        os.truncate(shard, shard.stat().st_size - 8)

    monkeypatch.setattr(editing, "carry_files", shrink)
    with pytest.raises(ModelError, match="shard ended while"):
        cut_to(llama_copy, tmp_path / "out")


def test_a_plan_for_another_model(llama_folder, tmp_path):
    with quiet():
        save_tiny("llama", tmp_path / "other", intermediate_size=64)
    plan = plan_by_hand(facts_from_config(ModelSettings(model=str(tmp_path / "other"))), [1])
    with pytest.raises(PlanError, match=r"the plan is for .*other .* this model is .* make a new plan"):
        cut(ModelSettings(model=str(llama_folder)), plan, CutSettings(), tmp_path / "out")


def test_weights_beyond_the_config(tmp_path):
    from safetensors.torch import load_file, save_file

    with quiet():
        save_tiny("llama", tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    save_file(load_file(path) | {"model.layers.6.x.weight": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(ModelError, match="holds weights of block 6 beyond the 6 of its config"):
        cut_to(tmp_path / "m", tmp_path / "out")


def test_files_of_another_model(llama_copy, tmp_path):
    from safetensors.torch import load_file, save_file

    with quiet():
        save_tiny("llama", tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    save_file({n.replace("layers", "blocks"): t for n, t in load_file(path).items()}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"don't hold blocks 0..5 under 'model.layers.'"):
        cut_to(tmp_path / "m", tmp_path / "out")


@pytest.mark.parametrize("size", ["5XB", "0", "", "-1GB"])
def test_bad_shard_size(size):
    with pytest.raises(RecipeError, match=r"--shard-size: a size is needed, e.g. 5GB or 500MiB \(got "):
        validated(CutSettings, {"shard_size": size})


def test_whole_checkpoint_stays_readable_by_its_header(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "out", verify=False)
    checkpoint = open_checkpoint(str(tmp_path / "out"))
    assert checkpoint.nbytes == Manifest.load(tmp_path / "out" / "manifest.json").bytes_after


def test_copies_without_help_of_the_kernel(llama_folder, tmp_path, monkeypatch):
    cut_to(llama_folder, tmp_path / "kernel", verify=False)

    def unsupported(*args, **kwargs):
        raise OSError(errno.EXDEV, "other file system")

    monkeypatch.setattr(os, "copy_file_range", unsupported)
    monkeypatch.setattr(copying, "BUFFER", 1000)
    cut_to(llama_folder, tmp_path / "plain", verify=False)
    name = "model.safetensors"
    assert contents(tmp_path / "kernel")[name] == contents(tmp_path / "plain")[name]


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "gemma2"])
def test_an_equivalence_check_from_disk(name, tmp_path):
    with quiet():
        save_tiny(name, tmp_path / "m")
    model = ModelSettings(model=str(tmp_path / "m"), stream="on")
    check = cut(model, REMOVED, CutSettings(), tmp_path / "out").equivalence
    assert check.streamed and check.max_abs_difference <= 1e-5 and check.max_abs_difference_cached is None


def test_a_wrong_result_is_found_from_disk_too(llama_folder, tmp_path, monkeypatch):
    damage_one_byte(monkeypatch)
    with pytest.raises(ModelError, match="the cut model's logits differ from the original's by"):
        cut(ModelSettings(model=str(llama_folder), stream="on"), REMOVED, CutSettings(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_checksums_on_request(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "out", verify=False, checksums=True, shard_size="60KB")
    lines = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    found = {name: digest for digest, name in (line.split("  ") for line in lines)}
    weights = contents(tmp_path / "out")
    assert found == {name: digest for name, digest in weights.items() if name.endswith(".safetensors")}
    assert len(found) > 1
    cut_to(tmp_path / "out", tmp_path / "again", [1], verify=False)
    assert not (tmp_path / "again" / "SHA256SUMS").exists()


def test_the_surgery_needs_no_torch(llama_folder, tmp_path):
    """The config is checked in another process; both say the same of bad input."""
    code = "import sys; from shortlm.cli import app\n"
    code += f"command = ['cut', '-m', {str(llama_folder)!r}, '--no-verify', '--remove', sys.argv[1]]\n"
    code += "try: app([*command, '-o', 'out' + sys.argv[1]])\n"
    code += "finally: print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    for remove, status in (("1,4", 0), ("9", 2)):
        command = [sys.executable, "-c", code, remove]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (status, "False"), done.stderr
    assert done.stderr == "shortlm: blocks to remove: 9 is out of range; the model has blocks 0..5\n"
    cut_to(llama_folder, tmp_path / "here", verify=False)
    ours, other = contents(tmp_path / "here"), contents(tmp_path / "out1,4")
    assert ours.keys() | {"README.md"} == other.keys()  # the command writes a card
    assert all(ours[name] == other[name] for name in ours if name != "manifest.json")


@pytest.mark.parametrize("content", [b'{"name": "another tool"}', b"[]", b"\xff", b""])
def test_another_tools_manifest_is_no_business_of_ours(llama_copy, tmp_path, content):
    (llama_copy / "manifest.json").write_bytes(content)
    found = cut(ModelSettings(model=str(llama_copy)), [2], CutSettings(verify=False), tmp_path / "out")
    assert found.blocks == [0, 1, 3, 4, 5]
    assert (llama_copy / "manifest.json").read_bytes() == content


def test_another_models_manifest_is_noticed_before_the_copy(llama_copy, tmp_path, monkeypatch):
    settings = ModelSettings(model=str(llama_copy))
    cut(settings, [1, 2], CutSettings(verify=False), tmp_path / "shorter")
    shutil.copyfile(tmp_path / "shorter" / "manifest.json", llama_copy / "manifest.json")
    monkeypatch.setattr(editing, "write_shards", lambda *args: pytest.fail("copied"))
    with pytest.raises(ModelError, match=r"manifest\.json: tells of 4 blocks, the model has 6; it is another model's"):
        cut(settings, [3], CutSettings(verify=False), tmp_path / "out")
    assert not (tmp_path / "out").exists()
