"""One run on one model: transformers' own `generate`, timed from outside, with a mark at the first token.

Shapes: B sequences, T tokens of the prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from shortlm.artifacts import BenchedModel, Timing
from shortlm.bench.cases import Case
from shortlm.bench.gauge import Gauge
from shortlm.bench.memory import Peak, bytes_of_cache, weight_bytes
from shortlm.clock import Moments, mark, seconds, wait
from shortlm.errors import ModelError
from shortlm.model import OpenModel, quiet, sampling_options, vocabulary
from shortlm.recipe import BenchSettings


class Runner:
    """A model in memory that can be run on cases."""

    def __init__(self, opened: OpenModel, settings: BenchSettings, role: str):
        self.opened, self.settings, self.role, self.device = opened, settings, role, opened.device
        self.model: Any = opened.model
        if not self.model.can_generate():
            raise ModelError(f"{opened.facts.name}: can't generate text, so its decoding can't be timed")
        self.names = inspect.signature(self.model.forward).parameters
        if settings.compile:
            self.model.forward = torch.compile(self.model.forward)
        self.weights, self.warm = weight_bytes(self.model), False

    @property
    def facts(self) -> BenchedModel:
        """For the artifact."""
        opened = self.opened
        return BenchedModel(
            role=self.role, model=opened.facts, weight_bytes=self.weights, context=opened.context, dtype=opened.dtype
        )

    def prompt(self, case: Case) -> torch.Tensor:
        """Its token ids, B x T, on the device."""
        return case.prompt(self.opened.tokenizer, vocabulary(self.model.config), self.device)

    def time(self, case: Case, seed: int) -> Timing:
        """One timed run; what isn't the model's work stays outside. Raises torch.OutOfMemoryError."""
        ids_BT, tokens = self.prompt(case), Moments(self.device)
        mask_BT = torch.ones_like(ids_BT)
        torch.manual_seed(seed)
        wait(self.device)
        with Gauge(self.device) as gauge, torch.no_grad(), quiet():
            start = mark(self.device)
            self._computed(ids_BT, mask_BT, case, tokens)
            end = mark(self.device)
            wait(self.device)
        first_token = seconds(start, tokens.moments[0]) if tokens.moments else None
        return Timing(
            seconds=seconds(start, end), first_token=first_token, utilisation=gauge.utilisation, joules=gauge.joules
        )

    def run(self, ids_BT: torch.Tensor, case: Case, seed: int = 0, moments: Moments | None = None) -> Any:
        """Prefill, then write exactly `output_tokens`; returns what the model or `generate` returns."""
        torch.manual_seed(seed)
        with torch.no_grad(), quiet():
            return self._computed(ids_BT, torch.ones_like(ids_BT), case, moments)

    def _computed(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, case: Case, moments: Moments | None) -> Any:
        w = case.workload
        options: Any = sampling_options(self.model, w.temperature, w.top_k, w.top_p)
        if not case.output_tokens:
            return self.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=True, **self._last_logits())
        return self.model.generate(
            input_ids=ids_BT, attention_mask=mask_BT, min_new_tokens=case.output_tokens,
            max_new_tokens=case.output_tokens, pad_token_id=0, disable_compile=True, return_dict_in_generate=True,
            stopping_criteria=[moments] if moments else None, **self._cache(), **options,
        )  # fmt: skip

    def memory(self, case: Case) -> tuple[int, int | None]:
        """Peak bytes with the weights, and bytes of the KV cache at the end, in a run that isn't timed.

        It is run uncompiled. Raises what torch raises where memory runs out.
        """
        self.forget_cache()
        if self.device.type == "cuda" and not self.warm:  # libraries take workspaces once, which are no one's peak
            self.run(self.prompt(case), case)
            self.warm = True
        with self._uncompiled(), Peak(self.model, self.device, self.weights) as peak:
            out = self.run(self.prompt(case), case)
        return peak.bytes, bytes_of_cache(out)

    def forget_cache(self) -> None:
        """A static cache never shrinks: transformers remembers the longest so far."""
        if hasattr(self.model, "_previous_max_cache_length"):
            del self.model._previous_max_cache_length

    @contextmanager
    def _uncompiled(self) -> Generator[None, None, None]:
        compiled = vars(self.model).pop("forward", None)
        try:
            yield
        finally:
            if compiled is not None:
                self.model.forward = compiled

    def _cache(self) -> dict[str, Any]:
        return {"cache_implementation": "static"} if self.settings.cache == "static" else {}

    def _last_logits(self) -> dict[str, Any]:
        """Only the next token's logits are wanted, as in serving, where the model can leave the others out."""
        return {"logits_to_keep": 1} if "logits_to_keep" in self.names else {}
