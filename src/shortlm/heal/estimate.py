"""What healing would take, before anything starts: steps, tokens, memory, floating-point operations, time.

Memory and operations are counted by a run of one micro-batch on shapes alone (torch's fake tensors) through the
model's own code and our loss. The time is measured here on the model with one and with two blocks of made-up
weights, or worked out from a rate that is given.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from shortlm.artifacts import HealEstimate, PhaseEstimate, provenance
from shortlm.checkpoint import locate
from shortlm.errors import ModelError, RecipeError, TextError
from shortlm.heal.batches import MicroBatch, micro_batch, split_evenly
from shortlm.heal.losses import Loss
from shortlm.heal.phases import Work, prepare_work
from shortlm.heal.step_count import step_count, warmup_steps
from shortlm.heal.teacher import teacher_of
from shortlm.heal.trainable import ADAPTED, check_method, make_trainable, precision
from shortlm.model import (
    ModelFiles,
    auto_class,
    block_count,
    compute_type,
    cut_config,
    facts_from_config,
    open_config,
    open_tokenizer,
    planned_device,
    quiet,
    tokens_per_call,
)  # fmt: skip
from shortlm.paths import user_path
from shortlm.recipe import HealSettings, ModelSettings, PhaseSettings, Plain, settings_of
from shortlm.sweep import LiveBytes, silent
from shortlm.text.records import Row

REPEATS = 5
HEAP = 1.6  # what the C library's heap takes for activations that come and go, measured (docs/log.md)
LIBRARIES = 120 * 2**20  # more of torch that is loaded with the first step on a CPU
ATTENTION = {  # on a CPU, which torch's counter leaves out
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda out, q, k, v, *_, **__: sdpa_backward_flop_count(out, q, k, v)
    ),
}
NF4 = 0.516  # bytes per weight, with its doubly quantised scales


@dataclass(frozen=True)
class Cluster:
    """Where it is to run: so many processes, each with a device of this rate (teraFLOP/s that are reached)."""

    processes: int = 1
    tflops: float | None = None
    sharded: bool = False


def estimate_healing(
    model: ModelSettings | Plain, settings: HealSettings | Mapping[str, object], cluster: Cluster | None = None
) -> HealEstimate:
    """What every phase takes. Reads the config and, where it is at hand, the data. Raises as `heal` does."""
    model, settings = settings_of(ModelSettings, model), settings_of(HealSettings, settings)
    cluster = cluster or Cluster()
    if cluster.tflops is not None and not 0 < cluster.tflops < 1e9:
        raise RecipeError(f"--tflops {cluster.tflops:g}: a rate above 0 is needed, in TFLOP/s of one device")
    files = _files_without_weights(model)
    started = time.perf_counter()
    phases = [_phase(files, phase, cluster) for phase in settings.phases]
    seconds = round(time.perf_counter() - started, 3)
    return HealEstimate(
        model=facts_from_config(model), phases=phases, provenance=provenance(str(files.device), None, seconds)
    )


def _files_without_weights(model: ModelSettings) -> ModelFiles:
    """The config and the tokenizer; the weights and the device need not be here."""
    folder, _ = locate(model.model, model.revision, weights=False)
    config = open_config(model)
    no_weights: Any = None
    tokenizer = open_tokenizer(folder, model.trust_remote_code)
    device, _ = planned_device(model.device)
    return ModelFiles(model, no_weights, config, compute_type(model, config), device, tokenizer)


def _is_here(files: ModelFiles) -> bool:
    return planned_device(files.settings.device)[1]


def _phase(files: ModelFiles, settings: PhaseSettings, cluster: Cluster) -> PhaseEstimate:
    check_method(files, settings)
    work = _work(files, settings, cluster.processes)
    per_row = work.tokens_per_row
    batch = _largest(work, settings)
    kind = precision(settings, files.device) if _is_here(files) else _usual(settings)
    with silent():
        traced = _traced(files, settings, batch, kind)
    parts = _parts(files, settings, traced, cluster)
    whole = math.ceil(work.steps * work.micro_batches / cluster.processes)
    flops = traced.flops * work.steps * work.micro_batches
    seconds, rate = _time(files, settings, batch, kind, whole, flops, cluster)
    return PhaseEstimate(
        method=settings.method, trainable=traced.trainable, steps=work.steps, rows_per_step=settings.batch,
        tokens_per_step=round(per_row * settings.batch), tokens=round(per_row * settings.batch * work.steps),
        micro_batches=work.micro_batches, processes=cluster.processes, parts=parts,
        peak_bytes=_peak(files, traced, parts), flops=flops, seconds=seconds, rate=rate,
    )  # fmt: skip


def _usual(settings: PhaseSettings) -> str:
    """Of an accelerator that is not here."""
    return "bfloat16" if settings.precision == "auto" else settings.precision


def _work(files: ModelFiles, settings: PhaseSettings, processes: int) -> Work:
    """The steps; where the data can't be read from here, rows are taken as full."""
    try:
        return prepare_work(files, settings, processes)
    except TextError:
        if not settings.data or any(user_path(source.data).exists() for source in settings.data):
            raise
    if settings.batch % processes:
        raise RecipeError(f"--batch {settings.batch}: is no multiple of the {processes} processes")
    if not (settings.steps or settings.tokens):
        raise RecipeError(
            f"{settings.data[0].data}: can't be read from here; give --steps or --tokens to plan without it"
        )
    row = Row(list(range(settings.length)), list(range(settings.length)))
    micro = settings.micro_tokens or tokens_per_call(files.device, training=True)
    count = processes * max(1, math.ceil(settings.batch * settings.length / micro / processes))
    steps = step_count(settings, settings.length, None)
    no_rows: Any = None
    return Work(no_rows, steps, warmup_steps(settings, steps), min(count, settings.batch), {}, 0, micro, [row])


def _largest(work: Work, settings: PhaseSettings) -> MicroBatch:
    """The largest micro-batch of a step made of the sample's rows."""
    rows = [work.sample[i % len(work.sample)] for i in range(settings.batch)]
    groups = split_evenly(rows, work.micro_batches)
    return micro_batch(max(groups, key=lambda g: len(g) * len(g[0].ids)), work.pad)


@dataclass(frozen=True)
class Traced:
    """Of one micro-batch: bytes beyond the weights, operations forwards and backwards, and the weights themselves."""

    activations: int
    flops: float
    parameters: int
    trainable: int
    trainable_bytes: int
    frozen_bytes: int


def _traced(files: ModelFiles, settings: PhaseSettings, batch: MicroBatch, kind: str) -> Traced:
    """Gradients are there already, as from the micro-batch before."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    own = settings.method in ADAPTED and kind != "float32"
    dtype = files.dtype if own else torch.float32
    plain = settings.model_copy(update={"method": "lora"}) if settings.method == "qlora" else settings
    with quiet(), torch.device("meta"):
        model = make_trainable(_empty(files, dtype), plain)
    with FakeTensorMode(allow_non_fake_inputs=True), quiet():
        _as_if_filled(model)
        if settings.checkpointing:
            newer = getattr(model, "activation_checkpointing_enable", None)
            (newer or model.gradient_checkpointing_enable)({"use_reentrant": False})
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        held = sum(p.numel() * p.element_size() for p in trained)
        loss = Loss.unchecked(model)
        with LiveBytes(model) as live, FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
                nats = loss.nats(model, batch)
            nats.backward()
    frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    count, parameters = (sum(p.numel() for p in ps) for ps in (trained, model.parameters()))
    return Traced(live.peak, float(counter.get_total_flops()), parameters, count, held, frozen)


def _as_if_filled(model: Any) -> None:
    """Fake tensors on the CPU in place of meta ones, which know no device; tied weights stay tied."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.nn.Parameter(torch.empty(old.shape, dtype=old.dtype), old.requires_grad)
                module._parameters[name] = made.setdefault(id(old), new)
        for name, old in module._buffers.items():
            if old is not None:
                module._buffers[name] = torch.empty(old.shape, dtype=old.dtype)


def _empty(files: ModelFiles, dtype: torch.dtype, config: Any = None) -> Any:
    options = {"trust_remote_code": True} if files.settings.trust_remote_code else {}
    config = config or files.config
    return auto_class(config).from_config(config, dtype=dtype, **options).requires_grad_(False)


def _parts(files: ModelFiles, settings: PhaseSettings, traced: Traced, cluster: Cluster) -> dict[str, int]:
    """What is in memory at the peak of training, of one process."""
    share = cluster.processes if cluster.sharded else 1
    frozen = traced.frozen_bytes
    if settings.method == "qlora":
        blocks = sum(facts_from_config(files.settings).block_parameters)  # embeddings and head are not quantised
        frozen = round(blocks * NF4) + (traced.parameters - traced.trainable - blocks) * files.dtype.itemsize
    parts = {
        "weights": (frozen + traced.trainable_bytes) // share,
        "gradients": traced.trainable_bytes // share,
        "optimizer": 2 * traced.trainable_bytes // share,
        "activations": round(traced.activations * (HEAP if files.device.type == "cpu" else 1.0)),
    }
    if cluster.processes > 1 and not cluster.sharded:
        parts["buckets of gradients"] = traced.trainable_bytes
    if settings.method == "distill":
        parts["teacher"] = _teacher_bytes(files, settings)
    if files.device.type == "cpu":
        parts["process"] = _process_bytes(settings) + LIBRARIES
    return parts


def _peak(files: ModelFiles, traced: Traced, parts: dict[str, int]) -> int:
    """Of training, or of writing the result, which has the model in float32 in the main memory."""
    merging = traced.parameters * (4 + files.dtype.itemsize) + parts.get("process", 0)
    return max(sum(parts.values()), merging if files.device.type == "cpu" else 0)


def _teacher_bytes(files: ModelFiles, settings: PhaseSettings) -> int:
    """The uncut model is larger than the student by the blocks that went."""
    folder, _ = locate(files.settings.model, files.settings.revision, weights=False)
    taught = teacher_of(folder, files.settings, settings)
    return facts_from_config(taught).parameters * compute_type(taught, open_config(taught)).itemsize


def _process_bytes(settings: PhaseSettings) -> int:
    """What Python and its libraries take, measured on this process."""
    if settings.method in ADAPTED:
        import peft  # noqa: F401
    import accelerate  # noqa: F401
    from transformers import Trainer  # noqa: F401

    return psutil.Process().memory_info().rss


def _time(
    files: ModelFiles, settings: PhaseSettings, batch: MicroBatch, kind: str, count: int, flops: float, cluster: Cluster
) -> tuple[float | None, str]:
    """Seconds of `count` micro-batches in each process."""
    if cluster.tflops:
        seconds = flops / (cluster.tflops * 1e12 * cluster.processes)
        return seconds, f"{cluster.tflops:g} TFLOP/s on each of {cluster.processes} devices, as given"
    if settings.method == "qlora":
        return None, "not measured for a 4-bit base; give --tflops"
    if not _is_here(files):
        return None, "the device is not here; give --tflops"
    try:
        few = settings.last if settings.method == "last-layers" else 1
        one, two = (_micro_batch_seconds(files, settings, batch, kind, few + more) for more in (0, 1))
    except ModelError:  # a model that can't be cut to so few blocks
        return None, "not measured: the model can't be made smaller"
    blocks = block_count(files.config)
    twice = 4 / 3 if settings.method == "distill" else 1.0  # the teacher's forward is a third of a step
    return (one + (blocks - few) * max(0.0, two - one)) * count * twice, "measured here on made-up blocks"


def _micro_batch_seconds(
    files: ModelFiles, settings: PhaseSettings, batch: MicroBatch, kind: str, blocks: int
) -> float:
    """Forward and backward of a model with so few blocks, median of a few."""
    own = settings.method in ADAPTED and kind != "float32"
    config = cut_config(files.config, list(range(blocks)))
    base = _empty(files, files.dtype if own else torch.float32, config).to(files.device)
    model = make_trainable(base, settings).train()
    loss, spent = Loss.unchecked(model), []
    moved = {name: t.to(files.device) if isinstance(t, torch.Tensor) else t for name, t in batch.items()}
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        with torch.autocast(files.device.type, torch.bfloat16, enabled=kind == "bfloat16"):
            nats = loss.nats(model, moved)
        nats.backward()
        if files.device.type != "cpu":
            torch.accelerator.synchronize(files.device)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])
