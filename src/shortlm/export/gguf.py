"""The verb: a checkpoint as one GGUF file, by llama.cpp's own converter, and checked in llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shortlm.artifacts import Record
from shortlm.checkpoint import locate
from shortlm.documents import read_json
from shortlm.errors import ExportError, ModelError
from shortlm.export.environment import Say, python_with
from shortlm.export.greedy_check import Agreement, check_gguf
from shortlm.export.llama_cpp import CONVERTING, RUNNING, converter_in
from shortlm.export.pre_tokenizer import pre_tokenizer_name
from shortlm.export.working import work
from shortlm.model import ModelFiles, open_files
from shortlm.outputs import output_path, refuse_existing, whole_file
from shortlm.recipe import GgufSettings, ModelSettings, Plain, settings_of

CONVERTED = {"auto", "f32", "f16", "bf16", "q8_0"}  # what the converter writes itself
NAMES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class GgufExport(Record):
    """What was written."""

    path: str
    outtype: str
    bytes: int
    agreement: Agreement | None = None


def export_gguf(
    model: ModelSettings | Plain,
    settings: GgufSettings | Mapping[str, object] | None = None,
    out: Path | str | None = None,
    force: bool = False,
    say: Say = lambda line: None,
) -> GgufExport:
    """Write the model as the GGUF file `out`, whole or not at all.

    Raises ExportError for a model that the format can't hold, a converter that fails, and a file from which llama.cpp
    computes something else; OutputError if `out` is in use.
    """
    model, settings = settings_of(ModelSettings, model), settings_of(GgufSettings, settings)
    out = output_path(out)
    refuse_existing(out, force)
    refuse_inexpressible(model)
    files = open_files(model)
    _refuse_without_tokenizer(files)
    outtype = NAMES[str(files.dtype).removeprefix("torch.")] if settings.outtype == "auto" else settings.outtype
    tool = RUNNING if settings.check or outtype not in CONVERTED else CONVERTING
    python = python_with(tool, settings.python, say)
    converter = converter_in(settings.llama_cpp, python, say)
    with whole_file(out, force) as part:
        _convert(python, converter, files, outtype, part)
        agreement = check_gguf(files, python, part, outtype) if settings.check else None
    return GgufExport(path=str(out), outtype=outtype, bytes=out.stat().st_size, agreement=agreement)


def refuse_inexpressible(model: ModelSettings) -> None:
    """Raise ExportError for a form that llama.cpp doesn't know, or misunderstands; say which one it does."""
    folder, _ = locate(model.model, model.revision, weights=False)
    config = read_json(folder / "config.json", ModelError, 2**24, infinity=True)
    config = config if isinstance(config, dict) else {}
    again = "cut the original again with --as zeroed, which every format holds"
    if config.get("model_type") == "shortlm":
        raise ExportError(
            f"{model.model}: blocks without attention or FFN, or of uneven widths (our own type), can't be said in "
            f"GGUF; {again}, or remove whole blocks"
        )
    if any(_only_attention(block) for block in config.get("block_configs") or []):
        raise ExportError(
            f"{model.model}: llama.cpp drops the attention too where a block of nemotron-nas has no FFN; {again}"
        )
    if config.get("quantization_config"):
        raise ExportError(
            f"{model.model}: is quantised for vLLM; export the unquantised checkpoint with --type q4_k_m instead"
        )


def _only_attention(block: Any) -> bool:
    parts = [block.get(name) for name in ("attention", "ffn")] if isinstance(block, dict) else []
    gone = [bool(part.get("no_op")) if isinstance(part, dict) else False for part in parts]
    return gone == [False, True]


def _refuse_without_tokenizer(files: ModelFiles) -> None:
    if files.tokenizer is None:
        raise ExportError(f"{files.settings.model}: has no tokenizer, which a GGUF file holds; put its files there")


def _convert(python: Path, converter: Path, files: ModelFiles, outtype: str, part: Path) -> None:
    """In one go, or for types that the converter doesn't write, by llama.cpp from a larger file beside it."""
    name, folder = files.settings.model, files.checkpoint.folder
    direct = outtype in CONVERTED
    first = part if direct else part.with_name(part.name + ".first")
    job = {
        "converter": str(converter.resolve()), "model": str(folder.resolve()), "out": str(first.resolve()),
        "outtype": outtype if direct else NAMES[str(files.dtype).removeprefix("torch.")],
        "pre_tokenizer": pre_tokenizer_name(folder),
    }  # fmt: skip
    try:
        work(python, "convert.py", job, f"converting {name}")
        if not direct:
            job = {"model": str(first.resolve()), "out": str(part.resolve()), "quantize_to": outtype}
            work(python, "llama.py", job, f"quantising {name}")
    finally:
        if not direct:
            first.unlink(missing_ok=True)
