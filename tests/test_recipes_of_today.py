"""Recipes for models of today, each checked as before a run, on a tiny stand-in of its architecture and depth."""

from __future__ import annotations

import re
import shutil

import pytest
from architectures import BLOCKS, COMMON, GROUPED, WIDE

from shortlm.embedded import model_path
from shortlm.recipe import HealSettings, load_recipe, shipped
from shortlm.recipe.heal_settings import laid_over
from shortlm.recipe.shipped import FOLDER
from shortlm.run.checks import check_inputs, check_settings
from shortlm.score import plan_memory

TODAY = sorted(FOLDER.glob("today/*.yaml"))
TYPES = {"qwen3": "qwen3", "llama": "llama", "gemma-3-1b": "gemma3_text", "gemma-3-4b": "gemma3", "mistral": "mistral",
         "smollm3": "smollm3", "olmo-2": "olmo2", "olmo-3": "olmo3"}  # fmt: skip
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}


def stand_in(name: str, blocks: int, folder):
    """A tiny random checkpoint of the recipe's architecture with as many blocks, and the embedded model's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    kind = next(kind for start, kind in TYPES.items() if name.startswith(start))
    text = COMMON | WIDE | GROUPED | {"vocab_size": 1024, "pad_token_id": None}
    text |= {"num_hidden_layers": blocks, "max_position_embeddings": 2048}
    composite = kind == "gemma3"
    fields = {"text_config": text, "vision_config": VISION, "mm_tokens_per_image": 1} if composite else text
    auto = AutoModelForImageTextToText if composite else AutoModelForCausalLM
    auto.from_config(AutoConfig.for_model(kind, **fields)).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model_path() / file, folder / file)
    return folder


@pytest.mark.parametrize("path", TODAY, ids=lambda path: path.stem)
def test_dry_run(path, tmp_path):
    blocks = int(re.search(r"# (\d+) blocks", path.read_text(encoding="utf-8"))[1])
    assert blocks > BLOCKS
    model = {"model": str(stand_in(path.stem, blocks, tmp_path / "model"))}
    recipe = load_recipe(path)
    text = recipe.text.model_copy(update={"text": "embedded", "length": 32})
    heal = recipe.heal and HealSettings(**laid_over(recipe.heal.model_dump(), {"data": ["embedded"]}))
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=model), "text": text, "heal": heal})
    assert bool(recipe.repair) != bool(recipe.heal)
    check_settings(recipe)
    check_inputs(recipe, tmp_path / "run")
    (row,) = (row for row in plan_memory(recipe.model, text, recipe.score).rows if row.name == "ppl")
    said = re.sub(r"\s+#\s+", " ", path.read_text(encoding="utf-8"))
    each = int(re.search(r"Scoring is ([\d,]+) block forwards on each of 32 windows", said)[1].replace(",", ""))
    assert row.block_forwards == each * -(-recipe.text.count // row.batch_size)


def test_every_family_is_there():
    names = {name.partition("/")[2] for name in shipped() if name.startswith("today/")}
    assert all(any(name.startswith(start) for name in names) for start in TYPES)
