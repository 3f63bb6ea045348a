"""Open a model for work: config, tokenizer and weights, loaded strictly.

`from_pretrained` fills missing weights with random numbers; here every missing, unexpected or
mismatched tensor is an error.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shortlm.artifacts import ModelFacts
from shortlm.checkpoint import Checkpoint, locate, open_checkpoint
from shortlm.documents import read_json
from shortlm.errors import ModelError, did_you_mean, library_errors, shortened, shown
from shortlm.model.anatomy import Anatomy, block_count, block_parameters, find_anatomy, sublayer_parameters
from shortlm.model.devices import fits, free_memory, pick_device
from shortlm.model.guard import meta_model
from shortlm.model.language import auto_class, text_config
from shortlm.model.mtp import mtp_names
from shortlm.model.own_type import architecture_of
from shortlm.model.reading import DTYPES
from shortlm.model.streaming import DiskBlocks
from shortlm.recipe import ModelSettings, Plain, settings_of

MOST_CONFIG = 2**24  # bytes of config.json


@dataclass(frozen=True)
class OpenModel:
    """A loaded model with all that the stages ask of it. `tokenizer` is None where the folder has none."""

    model: Any
    tokenizer: Any
    anatomy: Anatomy
    checkpoint: Checkpoint
    facts: ModelFacts
    disk: DiskBlocks | None = None  # where the blocks are, if not in memory
    memory: str | None = None  # the budget that the settings give

    @property
    def device(self) -> torch.device:
        """Where the model's input has to be."""
        return self.disk.device if self.disk else self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> str:
        """The compute type, as float32."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def context(self) -> int | None:
        """The longest sequence that its positions allow, if the config names one."""
        return context_of(self.model.config)

    def refuse_beyond_context(self, prompt: int, new: int, option: str) -> None:
        """Raise ModelError if a prompt with its continuation is longer than the context."""
        if self.context is not None and prompt + new > self.context:
            raise ModelError(
                f"{self.facts.name}: {prompt} tokens of prompt and {new} new ones are more than its context of "
                f"{self.context}; give a smaller {option}"
            )


@dataclass(frozen=True)
class ModelFiles:
    """A model whose files are found and checked, before any weight is read: enough to plan by."""

    settings: ModelSettings
    checkpoint: Checkpoint
    config: Any
    dtype: torch.dtype
    device: torch.device
    tokenizer: Any

    def fits(self) -> bool:
        """Whether the weights fit in the memory that is free."""
        width = None if self.settings.dtype == "auto" else self.dtype.itemsize
        return fits(self.checkpoint.nbytes_as(width), free_memory(self.device))

    def open(self, streamed: bool) -> OpenModel:
        """The model, with its blocks in memory or left on disk."""
        settings, checkpoint = self.settings, self.checkpoint
        if streamed:
            disk = DiskBlocks(checkpoint, self.config, self.dtype, self.device, settings.trust_remote_code)
            model, anatomy = disk.model, disk.anatomy
        else:
            disk, model = None, load_strictly(checkpoint.folder, self.config, settings)
            anatomy = find_anatomy(model)
        facts = facts_of(model, settings.model, checkpoint.revision)
        return OpenModel(model, self.tokenizer, anatomy, checkpoint, facts, disk, settings.memory)


def open_files(settings: ModelSettings) -> ModelFiles:
    """Find and check a model's files. Raises ModelError for anything missing, damaged or unknown."""
    checkpoint, config = open_checkpoint(settings.model, settings.revision), open_config(settings)
    _refuse_more_blocks_than_tensors(checkpoint, block_count(config))
    dtype, device = compute_type(settings, config, checkpoint), pick_device(settings.device)
    tokenizer = open_tokenizer(checkpoint.folder, settings.trust_remote_code)
    return ModelFiles(settings, checkpoint, config, dtype, device, tokenizer)


def _refuse_more_blocks_than_tensors(checkpoint: Checkpoint, n_blocks: int) -> None:
    if n_blocks > len(checkpoint.tensors):
        raise ModelError(
            f"{checkpoint.folder}: config.json says {n_blocks} blocks and the files hold {len(checkpoint.tensors)} "
            "tensors in all; are these files of another model?"
        )


def open_model(settings: ModelSettings | Plain) -> OpenModel:
    """Load the model that `settings` name. Raises ModelError for anything missing, damaged or unknown."""
    return open_files(settings_of(ModelSettings, settings)).open(streamed=False)


def open_for_scoring(settings: ModelSettings) -> OpenModel:
    """The same, with the blocks left on disk if `settings.stream` says so or the model would not fit in memory."""
    files = open_files(settings)
    return files.open(settings.stream == "on" or (settings.stream == "auto" and not files.fits()))


def compute_type(settings: ModelSettings, config: Any, checkpoint: Checkpoint | None = None) -> torch.dtype:
    """The type to compute in; 'auto' is that of the config, or else of the files, as in transformers."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    if config.dtype is not None:
        return config.dtype
    found = {DTYPES.get(entry.dtype) for entry in checkpoint.tensors.values()} if checkpoint else set()
    return next((t for t in (torch.bfloat16, torch.float16) if t in found), torch.float32)


def open_config(settings: ModelSettings) -> Any:
    """The model's config. Raises ModelError for an unknown architecture, naming the nearest known one."""
    from transformers import AutoConfig

    folder, _ = locate(settings.model, settings.revision, weights=False)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: has no config.json; a Hugging Face checkpoint folder is needed")
    _raw_config(folder)  # before a library meets what is no JSON
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except Exception as error:  # validators of all architectures, with all their ways to fail
        raise _unreadable(folder, error) from error
    block_count(config)
    config.return_dict = True  # outputs are read by name, and no others than the logits, whatever the file says
    config.output_attentions = config.output_hidden_states = False
    return config


def _raw_config(folder: Path) -> Any:
    hint = "; download the checkpoint again"
    return read_json(folder / "config.json", ModelError, MOST_CONFIG, hint, infinity=True)


def _unreadable(folder: Path, error: Exception) -> ModelError:
    from transformers import CONFIG_MAPPING

    fields = _raw_config(folder)
    if not isinstance(fields, dict):
        return ModelError(f"{folder / 'config.json'}: holds no settings; download the checkpoint again")
    name = fields.get("model_type")
    if "auto_map" in fields:
        return ModelError(f"{folder}: needs the code that comes with it; read it, then give --trust-remote-code")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        known = [str(key) for key in CONFIG_MAPPING]
        return ModelError(f"{folder}: unknown architecture {shown(name)}; {did_you_mean(str(name), known)}")
    return ModelError(f"{folder / 'config.json'}: can't be used ({_last_line(error)})")


def _last_line(error: Exception) -> str:
    """Validators of configs say what is wrong at the end."""
    return shortened((str(error).strip().splitlines() or [type(error).__name__])[-1], 200)


def context_of(config: Any) -> int | None:
    """The longest sequence that the positions of a config allow, if it names one."""
    found = getattr(text_config(config), "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def load_strictly(folder: Path, config: Any, settings: ModelSettings) -> Any:
    """The model in evaluation mode, without gradients, on its device; every tensor accounted for."""
    with library_errors(ModelError, f"{folder}: can't be loaded"), quiet():
        _ask_to_unpack(config)
        loaded: Any = auto_class(config).from_pretrained(
            folder,
            config=config,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            ignore_mismatched_sizes=True,  # so that they are told in `info`, and refused below
            output_loading_info=True,
        )
    model, info = loaded
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        wrong = {str(key) for key in info.get(kind) or ()} - {*mtp_names(config, map(str, info.get(kind) or ()))}
        if wrong:
            first = sorted(wrong)[0]
            kind = kind.replace("_keys", "")
            raise ModelError(f"{folder}: {kind} weights (first: {first}); the files don't fit config.json")
    return model.requires_grad_(False).eval().to(pick_device(settings.device))


def _ask_to_unpack(config: Any) -> None:
    """Integer weights of compressed-tensors become the numbers they stand for as they are loaded.

    transformers would unpack all of them at the first forward, after everything here has looked at the modules.
    """
    packed = getattr(config, "quantization_config", None)
    if isinstance(packed, dict) and packed.get("quant_method") == "compressed-tensors":
        packed["dequantize"] = True


def open_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint, or None if the folder has none (token ids can be given instead)."""
    from transformers import AutoTokenizer

    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json", "spiece.model")
    if not any((folder / name).is_file() for name in names):
        return None
    with library_errors(ModelError, f"{folder}: its tokenizer can't be read", "download its files again"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def facts_of(model: Any, name: str, revision: str | None = None) -> ModelFacts:
    """Counts that a config alone gives too: works on a meta model."""
    anatomy = find_anatomy(model)
    total = sum(p.numel() for p in model.parameters())  # parameters() gives a tied tensor once
    counts = block_parameters(anatomy)
    if not total:
        raise ModelError(f"{name}: its config makes a model without parameters")
    return ModelFacts(
        name=name, revision=revision, architecture=architecture_of(model.config), n_blocks=len(counts),
        block_parameters=counts, attention_parameters=sublayer_parameters(anatomy.blocks, anatomy.attention),
        ffn_parameters=sublayer_parameters(anatomy.blocks, anatomy.ffn), parameters=total,
        auto_class=auto_class(model.config).__name__,
    )  # fmt: skip


def facts_from_config(settings: ModelSettings) -> ModelFacts:
    """The same facts without reading any weights."""
    config = open_config(settings)
    _, revision = locate(settings.model, settings.revision, weights=False)
    return facts_of(meta_model(config, settings.trust_remote_code), settings.model, revision)


@contextmanager
def quiet() -> Generator[None, None, None]:
    """transformers' own bars and load reports off for a while."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
