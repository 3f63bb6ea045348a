"""Tensors of a result: copied, sliced, computed. Each equals what plain loading and indexing gives."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import load_file, save_file

from shortlm.checkpoint import Computed, Copy, Slice, arrays, copying, gathering, pieces, read_header, write_shards
from shortlm.errors import ModelError

TYPES = {
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def tensor(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 20
    return values.to(dtype)


def raw(value: torch.Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def stored(folder: Path, **tensors: torch.Tensor):
    """The entries of tensors in a file."""
    save_file(tensors, folder / "source.safetensors")
    return read_header(folder / "source.safetensors")


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for path in sorted(folder.glob("model*.safetensors")) for n, t in load_file(path).items()}


def written(folder: Path, *made, size: int = 10**9) -> dict[str, torch.Tensor]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    assert write_shards(list(made), out, size) == sum(piece.nbytes for piece in made)
    return loaded(out)


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and raw(found) == raw(expected)


# --- slices


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_and_columns_of_every_type(tmp_path, dtype):
    w = tensor(7, 5, dtype=TYPES[dtype])
    entry = stored(tmp_path, w=w)["w"]
    rows, columns = [5, 0, 3], [4, 1]
    found = written(
        tmp_path, Slice("rows", entry, {0: rows}), Slice("columns", entry, {1: columns}),
        Slice("both", entry, {0: rows, 1: columns}), Slice("all", entry, {}),
    )  # fmt: skip
    assert same(found["rows"], w[rows]) and same(found["columns"], w[:, columns]) and same(found["all"], w)
    assert same(found["both"], w[rows][:, columns])


@st.composite
def slices(draw) -> tuple[list[int], dict[int, list[int]]]:
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    axes = draw(st.sets(st.integers(0, len(shape) - 1)))
    return shape, {axis: draw(st.lists(st.integers(0, shape[axis] - 1), max_size=8)) for axis in axes}


@given(slices(), st.sampled_from([1, 8, 40, 2**20]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_indices_along_any_axes(tmp_path_factory, monkeypatch, made, buffer):
    """Also with a buffer that holds less than a row, where rows are taken apart."""
    shape, kept = made
    monkeypatch.setattr(gathering, "BUFFER", buffer)
    folder = tmp_path_factory.mktemp("slices")
    w = tensor(*shape, dtype=torch.bfloat16)
    piece = Slice("s", stored(folder, w=w)["w"], kept)
    expected = w
    for axis, indices in kept.items():
        expected = expected.index_select(axis, torch.tensor(indices, dtype=torch.int64))
    assert piece.shape == tuple(expected.shape)
    assert same(written(folder, piece)["s"], expected)


def test_a_scalar_stays_whole(tmp_path):
    entry = stored(tmp_path, w=torch.tensor(3.5))["w"]
    assert written(tmp_path, Slice("s", entry, {}))["s"] == 3.5


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({2: [0]}, "of shape [3, 2] can't be sliced: it has no axis 2"),
        ({-1: [0]}, "it has no axis -1"),
        ({0: [0, 3]}, "index 3 of axis 0 is not in 0..2"),
        ({1: [-1]}, "index -1 of axis 1 is not in 0..1"),
    ],
)
def test_indices_of_another_tensor(tmp_path, kept, message):
    entry = stored(tmp_path, w=tensor(3, 2))["w"]
    with pytest.raises(ModelError) as error:
        Slice("s", entry, kept)
    assert message in str(error.value) and str(entry.file) in str(error.value)


def test_types_of_less_than_a_byte_are_not_sliced(tmp_path):
    path = tmp_path / "four.safetensors"
    header = json.dumps({"w": {"dtype": "F4", "shape": [2, 4], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\1\2\3\4")
    entry = read_header(path)["w"]
    with pytest.raises(ModelError, match=r"F4 packs several values into a byte\); convert the checkpoint first"):
        Slice("s", entry, {0: [1]})
    (tmp_path / "out").mkdir()
    write_shards([Copy("c", entry)], tmp_path / "out", 10**9)
    copied = read_header(tmp_path / "out" / "model.safetensors")["c"]
    assert (copied.shape, copied.nbytes) == ((2, 4), 4)


def test_a_source_that_shrinks_before_it_is_sliced(tmp_path):
    entry = stored(tmp_path, w=tensor(30, 20))["w"]
    os.truncate(entry.file, entry.begin + 100)
    with pytest.raises(ModelError, match=r"shard ended while 'w' was copied; was it changed meanwhile\?"):
        written(tmp_path, Slice("s", entry, {1: [0, 3]}))


def peak(work) -> int:
    """Bytes that Python and NumPy held at most."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SHAPES = [
    ((4000, 2000, 4), {0: range(0, 4000, 2)}), ((4000, 2000, 4), {1: range(0, 2000, 3)}), ((4000, 2000, 4), {2: [0]}),
    ((4000, 2000, 4), {0: [3999, 0, 1, 7]}), ((4000, 2000, 4), {0: [5] * 2000}),  # one row again and again
    ((2, 4000, 4000), {1: range(0, 4000, 3)}), ((2, 4000, 4000), {0: [1]}),  # rows of 16 MB, as stacked experts
]  # fmt: skip


@pytest.mark.parametrize(("shape", "kept"), SHAPES)
def test_slicing_takes_a_few_buffers_of_memory(tmp_path, shape, kept):
    w = torch.zeros(shape, dtype=torch.uint8)  # 32 MB
    entry = stored(tmp_path, w=w)["w"]
    written(tmp_path, Slice("s", entry, {0: [1]}))  # imports
    assert peak(lambda: written_only(tmp_path, Slice("s", entry, kept))) < 6 * gathering.BUFFER


def written_only(folder: Path, *made) -> None:
    (folder / "out").mkdir(exist_ok=True)
    write_shards(list(made), folder / "out", 10**9)


# --- computed


def of(value, dtype="F32", shape=None, name="c") -> Computed:
    return Computed(name, dtype, tuple(value.shape if shape is None else shape), lambda: value)


@pytest.mark.parametrize("dtype", TYPES)
def test_computed_tensors_of_every_type(tmp_path, dtype):
    w = tensor(6, 4, dtype=TYPES[dtype])
    found = written(tmp_path, of(w, dtype, name="plain"), of(w.T, dtype, name="transposed"),
                    of(w[::2, 1:], dtype, name="view"))  # fmt: skip
    assert same(found["plain"], w) and same(found["transposed"], w.T) and same(found["view"], w[::2, 1:])


ARRAYS = [
    np.arange(6.0).reshape(2, 3), np.float32(3.5).reshape(()), np.zeros((0, 3), "u1"),
    np.arange(12, dtype=np.int16)[::2], np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)),
]  # fmt: skip


@pytest.mark.parametrize("value", ARRAYS)
def test_computed_arrays(tmp_path, value):
    dtype = {"float64": "F64", "float32": "F32", "uint8": "U8", "int16": "I16"}[str(value.dtype)]
    assert same(written(tmp_path, of(value, dtype))["c"], torch.from_numpy(np.array(value, order="C")))


def test_what_needs_a_gradient_and_parts_smaller_than_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BUFFER", 8)
    w = torch.nn.Parameter(tensor(3, 4, 5))
    assert same(written(tmp_path, of(w))["c"], w.detach())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (tensor(2, 3), r"c: F32 \[2, 3\] was computed for it, BF16 \[2, 3\] was announced; nothing was written"),
        (tensor(3, 2, dtype=torch.bfloat16), r"c: BF16 \[3, 2\] was computed for it, BF16 \[2, 3\] was announced"),
        (np.zeros((2, 3), ">f4"), r"c: >f4 \[2, 3\] was computed for it"),
        (np.zeros((2, 3), complex), r"c: complex128 \[2, 3\] was computed for it"),
        ([[1, 2, 3]] * 2, r"c: list \[\] was computed for it"),
        (None, r"c: NoneType \[\] was computed for it"),
    ],
)
def test_another_type_or_shape_than_was_announced(tmp_path, value, told):
    with pytest.raises(ModelError, match=told):
        written(tmp_path, of(value, "BF16", (2, 3)))


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64", "F8_E5M2", "F8_E4M3"])
@pytest.mark.parametrize("wild", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused(tmp_path, dtype, wild):
    kind = TYPES[dtype]
    w = torch.full((5, 3), -torch.finfo(kind).max, dtype=torch.float64)
    assert same(written(tmp_path, of(w.to(kind), dtype))["c"], w.to(kind))
    w[3, 1] = wild
    if torch.isfinite(w.to(kind).float()).all():
        pytest.skip("this type has no infinity")
    told = rf"c: NaN or infinity was computed for it \(first at \[3, 1\], as {dtype}\); nothing was written; compute"
    with pytest.raises(ModelError, match=told):
        written(tmp_path, of(w.to(kind), dtype))


def test_nan_far_behind_is_found_at_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BUFFER", 40)
    w = tensor(40, 30)
    w[31, 7] = float("inf")
    with pytest.raises(ModelError, match=r"first at \[31, 7\]"):
        written(tmp_path, of(w))
    with pytest.raises(ModelError, match=r"first at \[\]"):
        written(tmp_path, of(torch.tensor(float("nan"))))


def test_one_computed_tensor_is_alive_at_a_time(tmp_path):
    """The earlier ones are gone when the next one is computed, and beside it there are a few MiB."""
    alive: list[weakref.ref] = []
    size = 8 * 2**20

    def compute():
        assert [ref() for ref in alive if ref() is not None] == []
        value = np.ones((2**10, size // 2**12), np.float32)
        alive.append(weakref.ref(value))
        return value

    made = [Computed(f"c{i}", "F32", (2**10, size // 2**12), compute) for i in range(4)]
    written_only(tmp_path, of(np.ones(3, np.float32)))  # imports
    assert peak(lambda: written_only(tmp_path, *made)) < size + 6 * 2**20
    assert len(alive) == 4 and loaded(tmp_path / "out")["c3"].sum() == size // 4


@pytest.mark.parametrize("shape", [(2, 2000, 4000), (4000, 4000), (16_000_000,)])
def test_a_result_that_lies_backwards_is_not_copied_as_a_whole(tmp_path, shape):
    """16 MB, in rows of 8 MB and of 4 KB, and of one byte."""
    value = np.ones(shape, np.uint8)[tuple(slice(None, None, -1) for _ in shape)]
    written_only(tmp_path, of(np.ones(3, np.float32)))  # imports
    assert peak(lambda: written_only(tmp_path, of(value, "U8"))) < 4 * arrays.BUFFER


def test_an_error_of_the_computation_passes_through(tmp_path):
    def broken():
        raise ModelError("the matrix can't be inverted")

    with pytest.raises(ModelError, match="the matrix can't be inverted"):
        written(tmp_path, Computed("c", "F32", (2,), broken))


# --- all together


def test_a_mixed_write_in_shards(tmp_path):
    sources = {f"w{i}": tensor(8, 6, dtype=torch.bfloat16, seed=i) for i in range(6)}
    entries = stored(tmp_path, **sources)
    made, expected = [], {}
    for i in range(6):
        entry, w = entries[f"w{i}"], sources[f"w{i}"]
        made += [Copy(f"copy.{i}", entry), Slice(f"slice.{i}", entry, {0: [1, 7], 1: [0, 2, 5]}),
                 Computed(f"made.{i}", "F32", (8, 6), lambda w=w: w.float() * 2)]  # fmt: skip
        expected |= {f"copy.{i}": w, f"slice.{i}": w[[1, 7]][:, [0, 2, 5]], f"made.{i}": w.float() * 2}
    found = written(tmp_path, *made, size=400)
    assert found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_bytes())
    assert len(shards) > 3 and index["metadata"]["total_size"] == sum(t.nbytes for t in expected.values())
    assert all(name in load_file(tmp_path / "out" / shard) for name, shard in index["weight_map"].items())
    for shard in shards:
        assert sum(entry.nbytes for entry in read_header(shard).values()) <= 400
        assert all(entry.begin % 2 == 0 for entry in read_header(shard).values())


def test_every_tensor_begins_at_a_multiple_of_its_width(tmp_path):
    """Else torch could not view the bytes: three of fp8 before four of float32, say."""
    w = tensor(3, 3, dtype=torch.float8_e4m3fn)
    found = written(tmp_path, Slice("a", stored(tmp_path, w=w)["w"], {0: [0], 1: [0, 1, 2]}), of(tensor(4), name="b"),
                    of(tensor(5, dtype=torch.bfloat16), "BF16", name="c"))  # fmt: skip
    assert same(found["a"], w[:1]) and same(found["b"], tensor(4)) and same(found["c"], tensor(5, dtype=torch.bfloat16))
    entries = read_header(tmp_path / "out" / "model.safetensors")
    assert [entries[name].begin % 4 for name in "bc"] == [0, 0]


def test_two_tensors_of_one_name(tmp_path):
    entry = stored(tmp_path, w=tensor(2))["w"]
    with pytest.raises(ModelError, match="two tensors would be called 'c'; nothing was written"):
        written(tmp_path, Copy("c", entry), of(tensor(2)))


def test_short_writes_are_gone_on_with(tmp_path):
    """One write may take less than it is given: a full pipe, more than 2 GiB."""

    class Slow:
        def __init__(self):
            self.taken = b""

        def write(self, data):
            self.taken += bytes(data[:7])
            return len(data[:7])

    target = Slow()
    copying.append(np.arange(50, dtype=np.uint8), target)
    assert target.taken == bytes(range(50))


def test_the_header_comes_before_anything_is_computed(tmp_path):
    done = []
    made = [Computed(name, "F32", (2,), lambda name=name: done.append(name) or tensor(2)) for name in "abc"]
    assert [p.nbytes for p in made] == [8, 8, 8] and done == []
    written(tmp_path, *made)
    assert done == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["copy", "slice"])
def test_no_torch_is_imported_and_no_numpy_for_copies(tmp_path, kind):
    stored(tmp_path, w=tensor(4, 4))
    code = (
        "import sys; from pathlib import Path; from shortlm.checkpoint import Copy, Slice, read_header, write_shards\n"
        f"entry = read_header(Path({str(tmp_path / 'source.safetensors')!r}))['w']\n"
        f"made = Copy('c', entry) if {kind!r} == 'copy' else Slice('c', entry, {{0: [1]}})\n"
        f"write_shards([made], Path({str(tmp_path)!r}), 100); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(pieces.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["False", str(kind == "slice")], done.stderr
