"""The same cases on vLLM, where it is installed: an engine of its own for each model, one after the other.

vLLM takes its memory at the start, so peaks, breakdowns and limits are not asked of it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from shortlm.artifacts import BenchedModel, Cell, Timing
from shortlm.bench.cases import Case
from shortlm.bench.gauge import Gauge
from shortlm.bench.time_limit import ENOUGH, TimeLimit
from shortlm.clock import mark, seconds, wait
from shortlm.errors import ModelError, RecipeError
from shortlm.model import ModelFiles, facts_from_config, vocabulary
from shortlm.recipe import BenchSettings


class VllmFleet:
    """What bench asks of a fleet, on vLLM."""

    together, name = False, "vllm"

    def __init__(self, files: list[ModelFiles], settings: BenchSettings, roles: list[str]):
        if settings.limits or settings.cache != "dynamic":
            raise RecipeError("--backend vllm: manages its own memory; leave out --limits and --cache")
        try:
            self.vllm: Any = import_module("vllm")
        except ImportError as error:
            raise ModelError("--backend vllm: vLLM is not installed here; install it, or take transformers") from error
        self.files, self.settings, self.roles = files, settings, roles
        self.cells: dict[tuple[str, Case], Cell] = {}
        self.breakdowns: list[Any] = []
        self.limits: list[Any] = []
        self.left_out: list[str] = []

    def models(self) -> list[BenchedModel]:
        """From the configs: the engines are gone by now."""
        return [
            BenchedModel(
                role=role,
                model=facts_from_config(f.settings),
                weight_bytes=f.checkpoint.nbytes_as(f.dtype.itemsize),
                dtype=str(f.dtype).removeprefix("torch."),
            )
            for f, role in zip(self.files, self.roles, strict=True)
        ]

    def measure(self, found: list[Case], say: Callable[[str], object]) -> None:
        """Every model on every case, an engine at a time."""
        self.time = TimeLimit(self.settings.minutes, len(self.files) * len(found))
        for files, role in zip(self.files, self.roles, strict=True):
            self._visit(files, role, found, say)
            gc.collect()

    def _visit(self, files: ModelFiles, role: str, found: list[Case], say: Callable[[str], object]) -> None:
        longest = max(case.prompt_tokens + max(case.output_tokens, 1) for case in found)
        engine = self.vllm.LLM(
            model=str(files.checkpoint.folder), dtype=str(files.dtype).removeprefix("torch."), max_model_len=longest,
            max_num_seqs=max(case.batch for case in found), enable_prefix_caching=False,
            trust_remote_code=files.settings.trust_remote_code, enforce_eager=not self.settings.compile,
        )  # fmt: skip
        for case in found:
            cell = self.cells[role, case] = case.cell(role)
            if not self.time.begin():
                cell.failed = f"left out, {self.time.reason}"
                continue
            say(f"batch {case.batch}, prompt {case.prompt_tokens}, output {case.output_tokens}")
            ended = self.time.rounds_until(ENOUGH)
            for number in range(-case.workload.warmup, case.workload.runs):
                if ended(number):
                    break
                timing = self._time(engine, files, case)
                cell.runs += [timing] * (number >= 0)

    def _time(self, engine: Any, files: ModelFiles, case: Case) -> Timing:
        w, device = case.workload, files.device
        ids_BT = case.prompt(files.tokenizer, vocabulary(files.config), torch.device("cpu"))
        prompts = [{"prompt_token_ids": row} for row in ids_BT.tolist()]
        tokens = max(case.output_tokens, 1)  # reading alone ends with a token
        options: dict[str, Any] = {"temperature": w.temperature, "top_p": w.top_p, "top_k": w.top_k or -1}
        sampling = self.vllm.SamplingParams(
            max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=False, **options
        )
        with Gauge(device) as gauge:
            start = mark(torch.device("cpu"))
            engine.generate(prompts, sampling, use_tqdm=False)
            wait(device)
            end = mark(torch.device("cpu"))
        return Timing(seconds=seconds(start, end), utilisation=gauge.utilisation, joules=gauge.joules)
