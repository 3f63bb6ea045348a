"""Checkpoints that are missing, damaged or foreign: one clear error each."""

from __future__ import annotations

import json
import struct

import pytest
from architectures import save_tiny

from shortlm.checkpoint import open_checkpoint, read_header
from shortlm.errors import ModelError
from shortlm.model import open_model, quiet
from shortlm.recipe import ModelSettings


def first_shard(folder):
    return sorted(folder.glob("model-*.safetensors"))[0]


def failure(folder) -> str:
    with pytest.raises(ModelError) as error:
        open_checkpoint(str(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_reads_every_tensor(llama_folder):
    from safetensors import safe_open

    checkpoint = open_checkpoint(str(llama_folder))
    assert len(list(llama_folder.glob("*.safetensors"))) > 1
    for entry in checkpoint.tensors.values():
        with safe_open(entry.file, "pt") as file:
            assert tuple(file.get_slice(entry.name).get_shape()) == entry.shape
        raw = entry.file.read_bytes()[entry.begin : entry.begin + entry.nbytes]
        assert len(raw) == entry.nbytes


def test_missing_shard(llama_copy):
    shard = first_shard(llama_copy)
    shard.unlink()
    assert failure(llama_copy) == f"{shard}: shard is missing; download it again"


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_shard(llama_copy, keep):
    shard = first_shard(llama_copy)
    raw = shard.read_bytes()
    shard.write_bytes(raw[:keep])
    assert f"{shard}: shard is cut short" in failure(llama_copy)


def test_shard_with_bytes_too_many(llama_copy):
    shard = first_shard(llama_copy)
    shard.write_bytes(shard.read_bytes() + b"more")
    assert f"{shard}: shard is damaged" in failure(llama_copy)


def test_corrupt_header(llama_copy):
    shard = first_shard(llama_copy)
    raw = shard.read_bytes()
    shard.write_bytes(raw[:8] + b"?" + raw[9:])
    assert "shard is damaged, its header: is not valid JSON" in failure(llama_copy)


def f32(begin: int, end: int, **changed) -> dict:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]} | changed


def written(path, header, data: int = 8):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * data)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"w": f32(0, 8, shape=[3])}, "shard is damaged ('w': 8 bytes for F32 [3])"),
        ([], "shard is damaged (its header is a list, no mapping)"),
        (b"null", "shard is damaged (its header is a NoneType, no mapping)"),
        ({"v": f32(0, 8), "w": f32(4, 8)}, "shard is damaged ('w' overlaps another tensor)"),
        ({"v": f32(0, 8), "w": f32(0, 8)}, "shard is damaged ('w' overlaps another tensor)"),
        ({"w": f32(4, 8)}, "shard is damaged ('w' leaves a hole before it)"),
        ({"__metadata__": [], "w": f32(0, 8)}, "__metadata__ of its header is no mapping of texts"),
        ({"__metadata__": ["pt"], "w": f32(0, 8)}, "__metadata__ of its header is no mapping of texts"),
        ({"__metadata__": {"format": 5}, "w": f32(0, 8)}, "__metadata__ of its header is no mapping of texts"),
        ({"w": 5}, "shard is damaged (entry 'w' of its header)"),
        ({"w": f32(0, 8, more=1)}, "shard is damaged (entry 'w' of its header)"),
        ({"w": f32(0, 8, dtype=5)}, "(entry 'w' of its header: {'data_offsets': [0, 8], 'dtype': 5,"),
        ({"w": f32(0, 8, dtype="F31")}, "entry 'w' of its header: "),
        ({"w": f32(0, 8, shape=[2.0])}, "entry 'w' of its header: "),
        ({"w": f32(0, 8, shape=[True, 2])}, "entry 'w' of its header: "),
        ({"w": f32(0, 8, shape=[-1, -2])}, "entry 'w' of its header: "),
        ({"w": f32(0, 8, shape=[2] + [1] * 64)}, "entry 'w' of its header: "),
        ({"w": f32(0, 8, shape=[0, 10**30])}, "entry 'w' of its header: "),
        ({"w": f32(0, 8, data_offsets=[0.0, 8.0])}, "entry 'w' of its header: "),
        ({"w": f32(0, 8, data_offsets=[-8, 0])}, "entry 'w' of its header: "),
        ({"w": f32(0, 8, data_offsets=[8, 0])}, "'w': -8 bytes for F32 [2]"),
        (b'{"w": {}, "w": {}}', "its header: is not valid JSON ('w' stands there twice)"),
        (b"[" * 100_000, "its header: is nested too deeply"),
        (b" " * (32 * 2**20 + 1), "its header has 33,554,433 bytes, at most 33,554,432 are read; save it in several"),
        ({"w" * 5000: 5}, "shard is damaged (entry 'www"),
        ({"v": f32(4, 8), "w": f32(0, 4), "none": f32(4, 4)}, None),
        ({"__metadata__": {"format": "pt"}, "w": f32(0, 8)}, None),
    ],
)  # fmt: skip
def test_headers(tmp_path, header, message):
    path = written(tmp_path / "model.safetensors", header)
    if message is None:
        assert sum(entry.nbytes for entry in read_header(path).values()) == 8
        return
    with pytest.raises(ModelError) as error:
        read_header(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("outside", ["../x.safetensors", "/etc/passwd", "a/../../x", "C:\\x.safetensors", "..\\x"])
def test_index_that_points_outside(llama_copy, outside):
    index = llama_copy / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = outside
    index.write_text(json.dumps(content))
    assert "which is outside the folder; this index is not trusted" in failure(llama_copy)


def test_index_that_names_a_tensor_the_shard_lacks(llama_copy):
    index = llama_copy / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.extra.weight"] = first_shard(llama_copy).name
    index.write_text(json.dumps(content))
    assert "lacks tensor 'model.extra.weight'" in failure(llama_copy)


def test_index_that_is_no_json(llama_copy):
    (llama_copy / "model.safetensors.index.json").write_text("{")
    assert "index.json: is not valid JSON" in failure(llama_copy)


@pytest.mark.parametrize(
    "content",
    [None, [], {}, *({"weight_map": m} for m in ([], {}, {"w": 5}, {"w": ""}, {"w": "x" * 300}, {"w": "a\0b"}))],
)  # fmt: skip
def test_index_that_is_none(llama_copy, content):
    (llama_copy / "model.safetensors.index.json").write_text(json.dumps(content))
    assert "index.json: is not a valid index; download the checkpoint again" in failure(llama_copy)


def test_no_weights_and_pickles(llama_copy):
    for path in llama_copy.glob("model*"):
        path.unlink()
    assert "has no weights" in failure(llama_copy)
    (llama_copy / "pytorch_model.bin").write_bytes(b"")
    assert "holds pickled .bin weights only; save it as safetensors first" in failure(llama_copy)


def test_no_such_folder(tmp_path):
    assert "no such folder (and no hub id" in failure(tmp_path / "nothing")
    assert "has no config.json" in failure(tmp_path)
    file = tmp_path / "file"
    file.touch()
    assert "is a file; a checkpoint folder or a hub id is needed" in failure(file)


def test_hub_id_that_cannot_be_fetched():
    assert "is no folder here and can't be fetched from the hub" in failure("nobody/nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "lama"}, "unknown architecture 'lama'; did you mean 'llama'?"),
        ({"hidden_size": 64}, "mismatched weights"),
        ({"num_hidden_layers": 7}, "missing weights (first: model.layers.6."),
        ({"num_hidden_layers": 5}, "unexpected weights (first: model.layers.5."),
        ({"model_type": "x", "auto_map": {"AutoConfig": "c.C"}}, "needs the code that comes with it"),
    ],
)
def test_config_that_does_not_fit(llama_copy, change, message):
    path = llama_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError) as error:
        open_model(ModelSettings(model=str(llama_copy)))
    assert message in str(error.value)


def test_config_that_is_no_json(llama_copy):
    (llama_copy / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"is not valid JSON .*; download the checkpoint again"):
        open_model(ModelSettings(model=str(llama_copy)))


def test_device_that_is_not_there(llama_folder):
    with pytest.raises(ModelError, match="device 'cuda:99' is not there; known here: cpu"):
        open_model(ModelSettings(model=str(llama_folder), device="cuda:99"))


def test_tied_and_untied_counts(tmp_path):
    with quiet():
        save_tiny("llama", tmp_path / "tied", tie_word_embeddings=True)
        save_tiny("llama", tmp_path / "untied", tie_word_embeddings=False)
    tied, untied = (open_model(ModelSettings(model=str(tmp_path / n))).facts for n in ("tied", "untied"))
    assert untied.parameters - tied.parameters == 96 * 32
    assert sum(tied.block_parameters) < tied.parameters
