"""Settings of the stages that score, choose, cut and evaluate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from shortlm.errors import RecipeError
from shortlm.recipe.base import Settings, Size
from shortlm.units import ATTENTION, BLOCK, FFN

WIKITEXT = {"text": "Salesforce/wikitext", "subset": "wikitext-2-raw-v1", "split": "train", "field": "text"}
# No honest use has more; what is beyond would run for days, or out of memory, before anything is said.
MOST_WINDOWS = MOST_TOKENS = 10_000_000
DEFAULT_CRITERIA = ["ppl", "taylor", "bi", "angular", "magnitude"]


class ModelSettings(Settings):
    """Which model, and how it is opened."""

    named_by = "model"

    model: str = Field("embedded", description="A checkpoint folder, a hub id, or 'embedded' (the tiny model inside).")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Compute type; 'auto' is the checkpoint's own."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps; 'auto' takes the first accelerator there is.")
    stream: Literal["auto", "on", "off"] = Field(
        "auto", description="Score with blocks read from disk one by one; 'auto': if the model would not fit in memory."
    )
    memory: Size | None = Field(
        None,
        description="Budget of score, repair, bench --limits, e.g. 6GiB: of the process, or an accelerator's memory.",
    )
    trust_remote_code: bool = Field(False, description="Allow model code that comes with the checkpoint.")


def _count_or_auto(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    number = int(value) if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MOST_WINDOWS:
        raise ValueError(f"must be a whole number, 0 to {MOST_WINDOWS:,}, or auto")
    return number


class TextSettings(Settings):
    """Which text, and how it becomes token windows."""

    named_by = "text"

    text: str = Field(
        "auto",
        description="A .txt, .jsonl or .json file, a hub data set, or 'embedded' (a made-up world); "
        "'auto': that world for the embedded model, WikiText-2 from the hub for others.",
    )
    field: str = Field("text", description="The field of a .jsonl or .json file or data set that holds the text.")
    subset: str | None = Field(None, description="Configuration of a hub data set, e.g. wikitext-2-raw-v1.")
    split: str = Field("train", description="Split of a hub data set.")
    name: str | None = Field(None, description="What it is called in results; its source if empty.")
    ids: str | None = Field(None, description="Token ids instead of text: a .json or .npy file, sequences x tokens.")
    sequences: Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)] = Field(
        10, description="How many windows; 0 for all of the text; 'auto', for a search: until the choice is stable."
    )
    skip: int = Field(0, ge=0, le=MOST_WINDOWS, description="Windows passed over first, to hold them out.")
    length: int = Field(128, ge=2, le=MOST_TOKENS, description="Tokens per window (a BOS comes on top).")
    bos: Literal["auto", "every", "first", "none", "auto-first"] = Field(
        "auto",
        description="BOS token on every window, on the first only, or none; 'auto': every, if the tokenizer adds one, "
        "'auto-first': the first, if it does.",
    )
    documents: int = Field(0, ge=0, le=MOST_WINDOWS, description="Only so many documents of the source; 0 for all.")
    shuffle: bool = Field(False, description="Shuffle the documents of the source first, by the seed.")
    packing: Literal["joined", "documents"] = Field(
        "joined", description="Windows of the joined text, or one random window from each long enough document."
    )
    separator: str = Field("\n\n", max_length=1000, description="What joins two documents.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the embedded text and of random windows.")

    @property
    def data_name(self) -> str:
        """The name that a local file for it is given under: 'wikitext-2, BOS on every window' -> 'wikitext-2'."""
        return (self.name or self.text).partition(",")[0]

    @property
    def count(self) -> int:
        """The number of windows, for what needs one. Raises RecipeError for 'auto'."""
        if self.sequences == "auto":
            raise RecipeError("--sequences auto: is for a method of choose that asks the model; give a number")
        return self.sequences

    def for_model(self, model: str) -> TextSettings:
        """The same with 'auto' replaced by the text that suits this model."""
        if self.text != "auto":
            return self
        found = {"text": "embedded"} if model == "embedded" else WIKITEXT
        return self.model_copy(update=found)


Units = list[Literal["blocks", "attention", "ffn", "all"]]


def parts_of(units: Units) -> list[str]:
    """What is meant of every block, in the order of PARTS."""
    names = {"blocks": BLOCK, "attention": ATTENTION, "ffn": FFN}
    return [part for name, part in names.items() if name in units or "all" in units]


class ScoreSettings(Settings):
    """Which criteria score the blocks, or their sublayers."""

    criteria: list[str] = Field(
        DEFAULT_CRITERIA,
        min_length=1,
        max_length=100,
        description="Criteria, each as name or name:preset (bi:shortgpt) or name:key=value (magnitude:p=2).",
    )
    units: Units = Field(
        ["blocks"],
        min_length=1,
        max_length=100,
        description="What is scored: blocks, attention, ffn, several of them as attention,ffn, or all three.",
    )
    batch_size: int = Field(
        0, ge=0, le=1_000_000, description="Sequences that are computed together; 0: as many as run fastest."
    )
    resamples: int = Field(
        200, ge=0, le=10_000, description="Bootstrap resamples of the sequences for the stability of the ranks."
    )
    check: bool = Field(
        True,
        description="First compare some sequences with the model's own forward; from disk that reads all once more.",
    )
    select: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{0,4}(:.+)?$",
        description="Only find so many least important blocks, by ppl, with fewer block forwards: a race. "
        "As 4, or with what to protect as 4:ends (else +).",
    )

    def parts(self) -> list[str]:
        """What is scored of every block, in the order of PARTS."""
        return parts_of(self.units)

    def race(self) -> tuple[int, str]:
        """How many blocks to find, and the rule that protects others. Asked where `select` is set."""
        count, _, rule = (self.select or "").partition(":")
        return int(count), rule or "+"


class ChooseSettings(Settings):
    """How many blocks go, and which."""

    criterion: str | None = Field(None, description="The criterion that chooses; the first one scored when empty.")
    method: str = Field(
        "one-shot",
        max_length=100,
        description="one-shot (the lowest scores), contiguous (the best run of neighbours by scores), or one that "
        "asks the model: auto (the best that the work allows), greedy, beam, evolutionary, local-search, runs, "
        "exhaustive, race; with options as beam:width=8, greedy:sleb.",
    )
    units: Units = Field(
        ["blocks"],
        min_length=1,
        max_length=100,
        description="What may go: blocks, attention,ffn (each by itself), one of them, or all.",
    )
    blocks: int | None = Field(None, ge=0, le=100_000, description="Budget: this many blocks go.")
    drop: str | None = Field(
        None, description="Budget: this share of the blocks goes, e.g. 25% (nearest whole number)."
    )
    drop_params: str | None = Field(None, description="Budget: this share of all parameters goes, e.g. 20% (nearest).")
    to_params: str | None = Field(None, description="Budget: at most this many parameters stay, e.g. 5.5B.")
    drop_kv: str | None = Field(None, description="Budget: at least this share of the KV cache goes, e.g. 30%.")
    speed_up: float | None = Field(
        None, gt=1, le=1000, description="Budget: decoding so many times as fast, by the measured time of every unit."
    )
    protect: str = Field(
        "+",
        description="Blocks never removed: '+' (first four and last two), 'ends', 'last', 'none', or a list as 0,1,-1.",
    )

    def parts(self) -> list[str]:
        """What may go of every block, in the order of PARTS."""
        return parts_of(self.units)


class FilesSettings(Settings):
    """The weight files of a checkpoint that is written."""

    shard_size: Size = Field("5GB", description="Largest size of one output file.")
    checksums: bool = Field(False, description="Also write SHA256SUMS of the weights, for `sha256sum -c`.")


class WritingSettings(FilesSettings):
    """How a checkpoint is written, whatever was done to it."""

    verify: bool = Field(
        True,
        description="Equivalence check: compare the written model with the original in which the same is left out.",
    )


class CutSettings(WritingSettings):
    """How the shorter checkpoint is written."""

    old_names = {"prove": "verify"}
    option_names = {"form": "as"}

    form: Literal["auto", "plain", "shortlm", "nemotron-nas", "zeroed"] = Field(
        "auto",
        description="How blocks without attention or FFN are written: shortlm (our own type, in transformers after "
        "'import shortlm'), nemotron-nas (Llamas for vLLM), zeroed (loads everywhere, no faster); "
        "'auto': shortlm. Whole blocks alone are always plain.",
    )
    mtp: Literal["keep", "drop"] = Field(
        "keep",
        description="Heads for multi-token prediction behind the last block (DeepSeek-V3, GLM-4.5, Qwen3-Next): keep "
        "them (they were trained on the whole model, so engines accept fewer of their guesses), or drop them.",
    )
