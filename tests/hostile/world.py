"""Sound inputs, made once: two tiny checkpoints, an artifact of every kind, a text, token ids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from architectures import save_tiny
from made_by_hand import block_scores, cut_plan, data, facts, manifest, measurement, origin

from hostile.case import World
from shortlm.artifacts import BenchedModel, Benchmark, Cell, Healing, LogEntry, Phase, Timing, Validation
from shortlm.embedded import model_path
from shortlm.model import quiet

TEXT = "Mira keeps a goat in the mill. Tobin has the rope.\n" * 400


def make_world(folder: Path) -> World:
    """Write everything into an empty folder."""
    with quiet():
        for kind in ("llama", "qwen2"):
            save_tiny(kind, folder / kind, shard_size="60KB", vocab_size=1024, pad_token_id=None)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(model_path() / name, folder / kind / name)
    for name, artifact in ARTIFACTS.items():
        artifact().save(folder / f"{name}.json")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": TEXT[:500]}) + "\n" for _ in range(40)))
    (folder / "ids.json").write_text(json.dumps([[5 + i % 900 for i in range(64)]] * 12))
    return World(folder)


def benchmark() -> Benchmark:
    """Of two models on one workload."""
    roles = ("dense", "cut")
    runs = [Timing(seconds=1 + i / 100, first_token=0.1) for i in range(5)]
    return Benchmark(
        models=[BenchedModel(role=role, model=facts(), weight_bytes=7_000_000, context=256) for role in roles],
        device="CPU", backend="transformers", sampling="greedy decoding", interleaved=True,
        cells=[Cell(role=r, batch=1, prompt_tokens=64, output_tokens=64, runs=runs, peak_bytes=10**8) for r in roles],
        provenance=origin(),
    )  # fmt: skip


def healing() -> Healing:
    """One phase of ten steps."""
    log = [LogEntry(step=i, tokens=64 * i, targets=63 * i, loss=3 - i / 10, rate=1e-4, grad_norm=1.0, seconds=i)
           for i in (5, 10)]  # fmt: skip
    seen = [Validation(step=i, tokens=64 * i, seconds=i, nats_per_token={"text": 3 - i / 10}) for i in (0, 10)]
    phase = Phase(
        method="cpt", settings={"lr": 1e-4, "data": [{"data": "t.txt"}]}, data=data(), validation_data={"text": data()},
        trainable=1000, parameters=2000, steps=10, processes=1, precision="float32", log=log, validations=seen,
        kept_step=10, peak_bytes=10**8, seconds=12.0,
    )  # fmt: skip
    return Healing(model=facts(), phases=[phase], provenance=origin())


ARTIFACTS = {
    "scores": block_scores, "plan": cut_plan, "manifest": manifest, "eval": lambda: measurement("cut"),
    "bench": benchmark, "healing": healing,
}  # fmt: skip
