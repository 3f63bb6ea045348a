"""Blocks on disk: the same scores as in memory, one block in memory at a time, faults told by name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from architectures import ARCHITECTURES, BLOCKS, save_tiny
from safetensors.torch import load_file, save_file

from shortlm.checkpoint import open_checkpoint
from shortlm.errors import ModelError
from shortlm.model import open_for_scoring, open_model, quiet
from shortlm.model.reading import read_rows
from shortlm.recipe import ModelSettings, ScoreSettings
from shortlm.score import CRITERIA, score_model
from shortlm.sweep import BlockCaller
from shortlm.text import windows_from_ids

IDS_BT = torch.randint(3, 96, (3, 16), generator=torch.Generator().manual_seed(0))
ALL = ScoreSettings(criteria=list(CRITERIA), batch_size=2, resamples=0)


def in_memory(block) -> bool:
    return not any(p.device.type == "meta" for p in block.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_streamed_scores_equal_those_in_memory(name, tmp_path):
    with quiet():
        save_tiny(name, tmp_path, shard_size="40KB")
    settings = ModelSettings(model=str(tmp_path), stream="on")
    streamed = open_for_scoring(settings)
    assert streamed.disk is not None and streamed.facts == open_model(settings).facts
    windows = windows_from_ids(IDS_BT, 96)
    ours = score_model(streamed, windows, ALL)
    plain = score_model(open_model(settings), windows, ALL)
    assert ours.block_forwards == plain.block_forwards
    for spec, result in plain.criteria.items():
        assert ours.criteria[spec].scores == pytest.approx(result.scores, rel=1e-6), spec


def test_one_block_is_in_memory_at_a_time(tmp_path):
    with quiet():
        save_tiny("llama", tmp_path)
    opened = open_for_scoring(ModelSettings(model=str(tmp_path), stream="on"))
    for i in opened.disk.visit(range(BLOCKS)):
        assert [j for j, block in enumerate(opened.anatomy.blocks) if in_memory(block)] == [i]
    assert not any(in_memory(block) for block in opened.anatomy.blocks)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_blocks_come_into_two_buffers(tmp_path, dtype):
    with quiet():
        save_tiny("llama", tmp_path)
    opened = open_for_scoring(ModelSettings(model=str(tmp_path), stream="on", dtype=dtype))
    places = []
    for i in opened.disk.visit(range(BLOCKS)):
        weights = list(opened.anatomy.blocks[i].parameters())
        places.append(min(p.data_ptr() for p in weights))
        assert all(p.untyped_storage().nbytes() == p.nbytes for p in weights)
    assert places == [places[0], places[1]] * (BLOCKS // 2)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "opt"])
def test_embeddings_and_head_stay_on_disk(name, tmp_path):
    """Of the embeddings only rows are read, the head comes for the tail; tied (gpt2, gemma2, opt) or not."""
    with quiet():
        save_tiny(name, tmp_path)
    opened = open_for_scoring(ModelSettings(model=str(tmp_path), stream="on"))
    table, head = opened.model.get_input_embeddings(), opened.anatomy.head
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    before = opened.disk.bytes_read
    caller.prepare(IDS_BT[:1, :3], torch.ones(1, 3, dtype=torch.bool))
    read = opened.disk.bytes_read - before - sum(e.nbytes for e in opened.disk.inside[0].values())
    assert read == 3 * table.weight.shape[1] * 4
    assert table.weight.device.type == head.weight.device.type == "meta"
    with opened.disk.head_in_memory():
        assert head.weight.device.type == "cpu"
    assert table.weight.device.type == head.weight.device.type == "meta"


def test_files_that_hold_a_tied_head_twice_leave_the_choice_to_transformers(tmp_path):
    with quiet():
        save_tiny("gpt2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    settings = ModelSettings(model=str(tmp_path), stream="on")
    opened = open_for_scoring(settings)
    assert opened.disk.table is opened.disk.head is None
    ours, plain = (score_model(o, windows_from_ids(IDS_BT, 96), ALL) for o in (opened, open_model(settings)))
    assert ours.criteria["ppl"].scores == pytest.approx(plain.criteria["ppl"].scores, rel=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_types(tmp_path, dtype):
    with quiet():
        save_tiny("llama", tmp_path)
    settings = ModelSettings(model=str(tmp_path), stream="on", dtype=dtype)
    scores = ScoreSettings(criteria=["ppl", "bi"], resamples=0)
    windows = windows_from_ids(IDS_BT, 96)
    ours, plain = (
        score_model(opened, windows, scores) for opened in (open_for_scoring(settings), open_model(settings))
    )
    assert ours.provenance.dtype == dtype
    assert ours.criteria["ppl"].scores == pytest.approx(plain.criteria["ppl"].scores, rel=1e-6)


def test_auto_streams_what_would_not_fit(tmp_path, monkeypatch):
    with quiet():
        save_tiny("llama", tmp_path)
    settings = ModelSettings(model=str(tmp_path))
    assert open_for_scoring(settings).disk is None
    size = open_checkpoint(str(tmp_path)).nbytes
    monkeypatch.setattr("shortlm.model.opening.free_memory", lambda device: size)
    assert open_for_scoring(settings).disk is not None


@pytest.mark.parametrize(
    ("damage", "message"), [("unlink", "shard has disappeared while it was needed"), ("truncate", "shard ended while")]
)
def test_a_shard_lost_during_the_sweep(tmp_path, damage, message):
    with quiet():
        save_tiny("llama", tmp_path, shard_size="40KB")
    opened = open_for_scoring(ModelSettings(model=str(tmp_path), stream="on"))
    with pytest.raises(ModelError, match=message):
        for i in opened.disk.visit(range(BLOCKS)):
            for shard in {entry.file for entry in opened.disk.inside[-1].values()} if i == 1 else ():
                shard.unlink() if damage == "unlink" else shard.write_bytes(b"")
    assert not any(in_memory(block) for block in opened.anatomy.blocks)


def test_the_heap_is_given_back_between_blocks(tmp_path, monkeypatch):
    """What calls of a block leave there would add up, by chance more or less of it, and no plan could be kept."""
    given = []
    monkeypatch.setattr("shortlm.model.streaming.give_back", lambda: given.append(1))
    with quiet():
        save_tiny("llama", tmp_path)
    opened = open_for_scoring(ModelSettings(model=str(tmp_path), stream="on"))
    assert list(opened.disk.visit(range(BLOCKS))) == list(range(BLOCKS))
    assert len(given) == BLOCKS


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_giving_back_makes_a_process_smaller():
    """Pieces of 1 MiB from the heap, every other one freed: the gaps are pages again."""
    code = """
import ctypes, psutil
from shortlm.heap import give_back
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallopt(-3, 2**25)  # nothing below 32 MiB is mapped alone
pieces = [libc.malloc(2**20) for _ in range(200)]
for piece in pieces: ctypes.memset(piece, 1, 2**20)
for piece in pieces[::2]: libc.free(piece)
before = psutil.Process().memory_info().rss
give_back()
print((before - psutil.Process().memory_info().rss) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 80


def test_matrices_that_are_transposed_are_refused_before_any_work(tmp_path):
    with quiet():
        save_tiny("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.2.mlp.up_proj.weight"
    tensors[name] = tensors[name].T.contiguous()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"of block 2 is \[32, 48\] in the files and \[48, 32\] by"):
        open_for_scoring(ModelSettings(model=str(tmp_path), stream="on"))


def test_a_row_beyond_the_table_is_not_read(tmp_path):
    with quiet():
        save_tiny("llama", tmp_path)
    opened = open_for_scoring(ModelSettings(model=str(tmp_path), stream="on"))
    with pytest.raises(ModelError, match=r"'model.embed_tokens.weight' has 96 rows, and row 96 is asked for"):
        read_rows(opened.disk.table, [3, 96])


def test_quantised_models_are_not_read_block_by_block(tmp_path):
    with quiet():
        save_tiny("llama", tmp_path)
    content = json.loads((tmp_path / "config.json").read_bytes())
    content["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="is quantised, which can't be read block by block; give --stream off"):
        open_for_scoring(ModelSettings(model=str(tmp_path), stream="on"))


@pytest.mark.parametrize(("count", "message"), [(100_000, "1 to 2,000 can be worked with"), (1_500, "tensors in all")])
def test_more_blocks_than_there_can_be(tmp_path, count, message):
    """Refused before a module is built for each."""
    with quiet():
        save_tiny("llama", tmp_path)
    content = json.loads((tmp_path / "config.json").read_bytes()) | {"num_hidden_layers": count}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message):
        open_model(ModelSettings(model=str(tmp_path)))
