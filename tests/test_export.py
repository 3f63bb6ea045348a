"""`export`: to mergekit, and to GGUF by a stand-in of llama.cpp's converter; with the real one and llama.cpp (slow)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from shortlm.artifacts import load_plan
from shortlm.cut import cut
from shortlm.embedded import model_path
from shortlm.errors import ExportError, OutputError
from shortlm.export import export_gguf, export_mergekit
from shortlm.export.environment import Tool, python_with
from shortlm.export.llama_cpp import NEEDED
from shortlm.export.pre_tokenizer import PATTERNS, pre_tokenizer_name
from shortlm.units import unit_list

CONVERTER = """
import argparse, json, sys
from pathlib import Path
from conversion.base import TextModel

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--outfile")
    parser.add_argument("--outtype")
    args = parser.parse_args()
    print("(1/2) reading")
    if (Path(args.model) / "fail").exists():
        Path(args.outfile).write_text("half")
        raise ValueError("tensor 'x' can't be mapped")
    Path(args.outfile).write_text(json.dumps([args.outtype, TextModel().get_vocab_base_pre(None)]))
"""
BASE = """
class TextModel:
    def get_vocab_base_pre(self, tokenizer):
        raise NotImplementedError("BPE pre-tokenizer was not recognized")
"""


@pytest.fixture
def llama_cpp(tmp_path, monkeypatch) -> dict[str, object]:
    """Options that name a checkout of which only the converter's form is real."""
    monkeypatch.setenv("SHORTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shortlm.export.gguf.CONVERTING", Tool("converter", ("x",), "json", "nothing"))
    checkout = tmp_path / "llama.cpp"
    (checkout / "conversion").mkdir(parents=True)
    (checkout / "conversion" / "base.py").write_text(BASE)
    (checkout / "convert_hf_to_gguf.py").write_text(CONVERTER)
    return {"llama_cpp": str(checkout), "python": sys.executable, "check": False}


def test_the_converter_is_told_the_type_and_how_the_tokenizer_splits(llama_cpp, tmp_path):
    written = export_gguf("embedded", llama_cpp, tmp_path / "m.gguf")
    assert json.loads((tmp_path / "m.gguf").read_text()) == ["f32", "gpt-2"]
    assert (written.outtype, written.bytes) == ("f32", (tmp_path / "m.gguf").stat().st_size)
    with pytest.raises(OutputError, match="the output file exists"):
        export_gguf("embedded", llama_cpp, tmp_path / "m.gguf")


def test_a_converter_that_fails_is_quoted_and_leaves_its_log_alone(llama_copy, llama_cpp, tmp_path):
    (llama_copy / "fail").touch()
    with pytest.raises(ExportError) as error:
        export_gguf(str(llama_copy), llama_cpp, tmp_path / "out" / "m.gguf")
    said = str(error.value)
    assert f"converting {llama_copy} failed (ValueError: tensor 'x' can't be mapped); the log is " in said
    log = Path(said.rpartition("the log is ")[2])
    assert "(1/2) reading" in log.read_text() and not list((tmp_path / "out").iterdir())


def test_a_checkout_without_a_converter_is_named(llama_cpp, tmp_path):
    with pytest.raises(ExportError, match=r"holds no convert_hf_to_gguf.py; give a checkout of llama.cpp"):
        export_gguf("embedded", llama_cpp | {"llama_cpp": str(tmp_path)}, tmp_path / "m.gguf")


def test_what_gguf_cannot_say_is_refused_with_what_it_can(tmp_path, llama_cpp):
    cut("embedded", unit_list("4.attention,6.ffn", "units"), out=tmp_path / "own")
    with pytest.raises(ExportError, match=r"can't be said in GGUF; cut the original again with --as zeroed"):
        export_gguf(str(tmp_path / "own"), llama_cpp, tmp_path / "m.gguf")
    cut("embedded", unit_list("6.ffn", "units"), {"form": "nemotron-nas"}, tmp_path / "nas")
    with pytest.raises(ExportError, match=r"llama.cpp drops the attention too where a block of nemotron-nas has no FF"):
        export_gguf(str(tmp_path / "nas"), llama_cpp, tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "gpt-2"),
        ({"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}, None),
        ({"type": "Metaspace"}, None),
        (None, None),
    ],
)
def test_how_a_tokenizer_splits_has_a_name_only_where_it_is_known(tmp_path, said, name):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": said}))
    assert pre_tokenizer_name(tmp_path) == name


@pytest.mark.parametrize(("pattern", "name"), PATTERNS.items())
def test_splitting_by_a_known_pattern_has_a_name(tmp_path, pattern, name):
    steps = [{"type": "Split", "pattern": {"Regex": pattern}}, {"type": "ByteLevel", "use_regex": False}]
    content = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert pre_tokenizer_name(tmp_path) == name
    steps[0]["pattern"]["Regex"] += "?"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert pre_tokenizer_name(tmp_path) is None


def test_a_cut_as_a_recipe_for_mergekit(llama_folder, tmp_path):
    cut(str(llama_folder), [1, 3, 4], out=tmp_path / "a")
    cut(str(tmp_path / "a"), [0], out=tmp_path / "b")  # block 0 of what was left
    export_mergekit(str(tmp_path / "b"), tmp_path / "b.yaml")
    content = yaml.safe_load((tmp_path / "b.yaml").read_text())
    ranges = [source["layer_range"] for s in content["slices"] for source in s["sources"]]
    assert [i for low, high in ranges for i in range(low, high)] == [2, 5]
    assert {source["model"] for s in content["slices"] for source in s["sources"]} == {str(llama_folder)}
    assert content["merge_method"] == "passthrough" and content["dtype"] == "float32"
    with pytest.raises(ExportError, match="has no manifest of shortlm, which tells which blocks stayed"):
        export_mergekit(str(llama_folder), tmp_path / "c.yaml")
    cut(str(llama_folder), unit_list("2.ffn", "units"), out=tmp_path / "d")
    with pytest.raises(ExportError, match="mergekit can say which whole blocks stay and nothing else"):
        export_mergekit(str(tmp_path / "d"), tmp_path / "d.yaml")
    assert load_plan(tmp_path / "b").removed == [0]


def test_an_environment_has_its_own_packages_and_ours_and_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLM_CACHE", str(tmp_path / "cache"))
    tool, said = Tool("odd-tool", (str(_wheel(tmp_path)),), "oddtool", "a moment"), []
    python = python_with(tool, None, said.append)
    code = "import oddtool, torch, shortlm; print(oddtool.__file__, torch.__file__)"
    own, ours = subprocess.check_output([python, "-c", code], text=True).split()
    assert own.startswith(str(tmp_path)) and ours == torch.__file__
    assert python_with(tool, None, said.append) == python and len(said) == 1 and "(a moment; once)" in said[0]
    missing = Tool("no-tool", (str(tmp_path / "none-1.0-py3-none-any.whl"),), "none", "a moment")
    with pytest.raises(ExportError, match=r"no-tool can't be installed \(.*\); the log is .*; without network, give"):
        python_with(missing, None, said.append)
    with pytest.raises(ExportError, match=r"has no oddtool \(ModuleNotFoundError: .*\); install .* there, or leave"):
        python_with(tool, sys.executable, said.append)


def test_a_tool_that_is_here_already_needs_no_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLM_CACHE", str(tmp_path / "cache"))
    here = Tool("here", ("x",), "json, xml.dom", "nothing")
    assert python_with(here, None, print) == Path(sys.executable) and not (tmp_path / "cache").exists()


def test_the_extra_is_what_the_converter_imports():
    said = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f"gguf = {json.dumps(list(NEEDED))}" in said


def _wheel(folder: Path) -> Path:
    """A package of one empty module."""
    import zipfile

    path = folder / "oddtool-1.0-py3-none-any.whl"
    info = "oddtool-1.0.dist-info/"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("oddtool.py", "")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: oddtool\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    return path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_llama_cpp_writes_the_same_text(tmp_path):
    """llama.cpp is compiled for this once, in an environment that is kept: needs the package index and a compiler."""
    cut("embedded", [4, 5, 6], out=tmp_path / "cut")
    found = export_gguf(str(tmp_path / "cut"), None, tmp_path / "m.gguf").agreement
    assert (found.same, found.tokens) == (72, 72)
    small = export_gguf(str(tmp_path / "cut"), {"outtype": "q4_k_m"}, tmp_path / "q4.gguf")
    assert small.bytes < 0.3 * (tmp_path / "m.gguf").stat().st_size and small.agreement.same > 0
    cut("embedded", unit_list("4.attention,6.ffn", "units"), {"form": "zeroed"}, tmp_path / "zeroed")
    assert export_gguf(str(tmp_path / "zeroed"), None, tmp_path / "z.gguf").agreement.same == 72


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_another_model_under_the_name_is_noticed_by_what_it_writes(tmp_path, monkeypatch):
    """The converter is shown other weights than transformers."""
    shutil.copytree(model_path(), tmp_path / "model")
    shutil.copytree(model_path(), tmp_path / "other")
    path = tmp_path / "other" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.3.mlp.down_proj.weight"] *= -3
    save_file(tensors, path, {"format": "pt"})
    from shortlm.export import gguf

    real = gguf.work

    def other(python, script, job, what):
        swapped = {"model": str(tmp_path / "other")} if script == "convert.py" else {}
        return real(python, script, job | swapped, what)

    monkeypatch.setattr(gguf, "work", other)
    with pytest.raises(ExportError, match=r"llama.cpp computes something else from the file than transformers"):
        export_gguf(str(tmp_path / "model"), None, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
