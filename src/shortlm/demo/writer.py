"""One model that writes a text: transformers' own `generate` in a thread, which goes on only when it has its turn.

So several models share a device fairly, token by token; the time of each is that of its own turns.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from queue import Queue
from threading import Semaphore, Thread
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from shortlm.bench import bytes_of_cache
from shortlm.errors import ModelError, reason
from shortlm.model import OpenModel, quiet, sampling_options

UNFINISHED = "\ufffd"  # what a tokenizer makes of the first bytes of a character


class StoppedError(Exception):
    """Raised inside `generate` where the visitor has enough."""


class Writer(BaseStreamer):
    """`step` lets it write one more token; `text`, `seconds` and `first` say how far it is."""

    def __init__(self, opened: OpenModel, ids: list[int], options: dict[str, Any], seed: int):
        """`options` are those of `generate`; the seed gives every model random numbers of its own."""
        self.opened, self.ids, self.options = opened, ids, options
        self.new: list[int] = []
        self.seconds, self.first, self.cache_bytes = 0.0, None, None
        self.finished, self.failure = False, ""
        self._turn, self._said, self._stopping, self._prompted = Semaphore(0), Queue[bool](), False, False
        self._random = _Random(opened.device, seed)
        self._thread = Thread(target=self._write, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """One more token, or the end."""
        if self.finished:
            return
        started = time.perf_counter()
        with self._random.own():
            self._turn.release()
            self.finished = not self._said.get()
        self.seconds += time.perf_counter() - started
        if self.first is None and self.new:
            self.first = self.seconds

    def stop(self) -> None:
        """End the work now; nothing is computed any more when this returns."""
        self._stopping = True
        self._turn.release()
        self._thread.join()
        self.finished = True

    @property
    def text(self) -> str:
        """What was written. A character is shown when all of its bytes are there."""
        tokenizer = self.opened.tokenizer
        prompt = tokenizer.decode(self.ids, skip_special_tokens=True)
        whole = tokenizer.decode([*self.ids, *self.new], skip_special_tokens=True)
        new = whole[len(prompt) :] if whole.startswith(prompt) else tokenizer.decode(self.new, skip_special_tokens=True)
        return new if self.finished else new.rstrip(UNFINISHED)

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate`: first with the prompt, then with every token."""
        if not self._prompted:
            self._prompted = True
            return
        self.new += value.flatten().tolist()
        self._said.put(True)
        self._wait()

    def end(self) -> None:
        """Called by `generate` behind the last token."""

    def _wait(self) -> None:
        self._turn.acquire()
        if self._stopping:
            raise StoppedError

    def _weigh(self, model: torch.nn.Module, args: Any, output: Any) -> None:
        self.cache_bytes = bytes_of_cache(output)

    def _write(self) -> None:
        try:
            self._wait()
            ids_BT = torch.tensor([self.ids], device=self.opened.device)
            with torch.no_grad(), quiet(), self.opened.model.register_forward_hook(self._weigh):
                self.opened.model.generate(
                    ids_BT, attention_mask=torch.ones_like(ids_BT), streamer=self, **self.options
                )  # fmt: skip
        except StoppedError:
            pass
        except Exception as error:  # of the model's code; told in the column, the others go on
            self.failure = reason(error)
        finally:
            self._said.put(False)


class _Random:
    """Random numbers of one writer among others that draw from the same generator."""

    def __init__(self, device: torch.device, seed: int):
        self.cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(self.cuda):
            torch.manual_seed(seed)
            self.states = self._get()

    def _get(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self.cuda)]

    @contextmanager
    def own(self) -> Generator[None, None, None]:
        """Within it the generator is this writer's; behind it, what it was."""
        with torch.random.fork_rng(self.cuda):
            torch.set_rng_state(self.states[0])
            for device, state in zip(self.cuda, self.states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self.states = self._get()


def options_of(
    opened: OpenModel, new_tokens: int, temperature: float, top_p: float, length_of_prompt: int
) -> dict[str, Any]:
    """Of `generate`, for greedy decoding at temperature 0."""
    if opened.context is not None and length_of_prompt + new_tokens > opened.context:
        raise ModelError(
            f"{length_of_prompt} tokens of prompt and {new_tokens} new ones are more than the context of "
            f"{opened.context}; ask for fewer, or shorten the prompt"
        )
    tokenizer = opened.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return sampling_options(opened.model, temperature, 0, top_p) | {"max_new_tokens": new_tokens, "pad_token_id": pad}
