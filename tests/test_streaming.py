"""Blocks on disk: the same scores as in memory, one block in memory at a time, faults told by name."""

from __future__ import annotations

import pytest
import torch
from architectures import ARCHITECTURES, BLOCKS, save_tiny
from safetensors.torch import load_file, save_file

from shortlm.checkpoint import open_checkpoint
from shortlm.errors import ModelError
from shortlm.model import open_for_scoring, open_model, quiet
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
