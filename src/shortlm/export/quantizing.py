"""The verb: a checkpoint whose linear layers hold integers, by llm-compressor, in the format compressed-tensors.

vLLM computes with the integers. transformers unpacks them, so that everything here measures such a model as any other.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shortlm.artifacts import DataFacts, LossChange, Manifest, QuantizeStep, provenance
from shortlm.checkpoint import carry_files, earlier_steps, open_checkpoint, refuse_target, with_step, write_checksums
from shortlm.errors import ExportError
from shortlm.export.environment import Say, Tool, python_with
from shortlm.export.quantizable import Layers, quantizable
from shortlm.export.working import work
from shortlm.model import ModelFiles, auto_class, context_of, facts_of, meta_model, open_files, open_model, vocabulary
from shortlm.outputs import output_path, whole_folder
from shortlm.recipe import ModelSettings, Plain, QuantizeSettings, TextSettings, settings_of
from shortlm.sizes import byte_size
from shortlm.statistics import stderr
from shortlm.sweep import BlockCaller, batched, sweep
from shortlm.text import Windows, open_windows

COMPRESSOR = Tool(
    "llm-compressor", ("llmcompressor==0.14.0.1",), "llmcompressor", "llmcompressor 0.14 and its transformers, 180 MB"
)


def quantize(
    model: ModelSettings | Plain,
    text: TextSettings | Plain | None = None,
    settings: QuantizeSettings | Mapping[str, object] | None = None,
    out: Path | str | None = None,
    force: bool = False,
    say: Say = lambda line: None,
) -> Manifest:
    """Write the quantised model to the folder `out`, whole or not at all.

    Windows of `text` calibrate it (not for rtn); the `held_out` ones behind them give both losses.
    Raises ExportError for a model or settings that can't be, or if the tool fails; OutputError if `out` is in use.
    """
    model, text = settings_of(ModelSettings, model), settings_of(TextSettings, text)
    settings, started, out = settings_of(QuantizeSettings, settings), time.perf_counter(), output_path(out)
    _refuse_unreadable()
    files = open_files(model)
    refuse_target(files.checkpoint, out, force)
    layers = quantizable(files.config, model.model, settings.group_size, model.trust_remote_code)
    calibration, held_out = _windows(files, text, settings)
    python = python_with(COMPRESSOR, settings.python, say)
    with whole_folder(out, force) as part:
        versions = _compressed(python, files, layers, calibration, settings, part)
        if settings.checksums:
            write_checksums(part)
        facts = facts_of(meta_model(files.config, model.trust_remote_code), model.model, files.checkpoint.revision)
        step = QuantizeStep(
            method=settings.method, bits=settings.bits, group_size=settings.group_size,
            act_order=settings.act_order and settings.method == "gptq", layers=len(layers.quantized),
            parameters=layers.parameters, tool=f"llm-compressor {versions['llmcompressor']}",
            data=_facts(calibration), loss=_loss_change(model, part, held_out) if held_out else None,
            bytes_before=files.checkpoint.nbytes, bytes_after=open_checkpoint(str(part)).nbytes,
            provenance=provenance(dtype=str(files.dtype).removeprefix("torch."), seconds=time.perf_counter() - started),
        )  # fmt: skip
        manifest = with_step(earlier_steps(files.checkpoint, facts.n_blocks), files.checkpoint, facts, step)
        manifest.save(part / "manifest.json")
    return manifest


def _refuse_unreadable() -> None:
    if find_spec("compressed_tensors") is None:
        raise ExportError(
            "what is written can't be read here without compressed-tensors; pip install 'shortlm[quantize]'"
        )


def _windows(
    files: ModelFiles, text: TextSettings, settings: QuantizeSettings
) -> tuple[Windows | None, Windows | None]:
    """Those that calibrate and those held out, no longer than the model's context."""
    n = text.count if settings.method == "gptq" else 0
    if not n + settings.held_out:
        return None, None
    longest = min(text.length, (context_of(files.config) or text.length) - 1)  # a BOS may come on top
    wanted = {"sequences": n + settings.held_out, "length": longest}
    windows = open_windows(
        text.for_model(files.settings.model).model_copy(update=wanted), files.tokenizer, vocabulary(files.config)
    )
    return windows.part(slice(n)) if n else None, windows.part(slice(n, None)) if settings.held_out else None


def _facts(windows: Windows | None) -> DataFacts | None:
    """Of the windows that calibrated, which the held-out ones were read together with."""
    if windows is None:
        return None
    told = {"sequences": len(windows.ids_BT), "tokens": int(windows.keep_BT.sum())}
    return windows.facts.model_copy(update=told)


def _compressed(
    python: Path, files: ModelFiles, layers: Layers, windows: Windows | None, settings: QuantizeSettings, part: Path
) -> dict[str, str]:
    """Lets the tool write its files, of which the weights and the description of their format are taken."""
    from safetensors.torch import save_file

    written = part / ".written"
    written.mkdir()
    ids = written / "windows.safetensors" if windows else None
    if windows and ids:
        save_file({"ids": windows.ids_BT, "keep": windows.keep_BT}, ids)
    job = settings.model_dump(include={"method", "bits", "group_size", "dampening"}) | {
        "model": str(files.checkpoint.folder.resolve()), "out": str(written / "model"),
        "ids": str(ids) if ids else None,
        "act_order": "static" if settings.act_order else None, "ignore": layers.ignored,
        "auto_class": auto_class(files.config).__name__, "dtype": str(files.dtype).removeprefix("torch."),
        "trust_remote_code": files.settings.trust_remote_code, "shard_size": byte_size(settings.shard_size),
    }  # fmt: skip
    versions = work(python, "compress.py", job, f"quantising {files.settings.model}")
    carry_files(files.checkpoint.folder, part)
    for path in (written / "model").glob("*.safetensors*"):
        path.rename(part / path.name)
    _write_config(files.checkpoint.folder, written / "model", part)
    shutil.rmtree(written)
    return versions


def _write_config(source: Path, written: Path, part: Path) -> None:
    """The source's own config.json, with what the tool says of the format added."""
    found = json.loads((written / "config.json").read_text(encoding="utf-8"))
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = found["quantization_config"]
    (part / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _loss_change(model: ModelSettings, part: Path, windows: Windows) -> LossChange:
    """Both models' losses on the same windows, one model in memory at a time.

    Raises ModelError if the written one can't be opened, every tensor accounted for.
    """
    before_S, tokens_S = _nats(model, windows)
    after_S, _ = _nats(model.model_copy(update={"model": str(part), "revision": None}), windows)
    shares_S = tokens_S / tokens_S.sum()
    change_S = (after_S - before_S) / tokens_S
    return LossChange(
        before=float(before_S.sum() / tokens_S.sum()), after=float(after_S.sum() / tokens_S.sum()),
        stderr=stderr(change_S.tolist(), shares_S.tolist()), tokens=int(tokens_S.sum()),
    )  # fmt: skip


def _nats(model: ModelSettings, windows: Windows) -> tuple[Any, Any]:
    """Summed over each window, and the tokens that were predicted."""
    opened = open_model(model)
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    batches, per_pass = batched(caller, windows, 0, None)
    losses = sweep(caller, batches, per_pass=per_pass)
    return losses.base_S, losses.tokens_S
