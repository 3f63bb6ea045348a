"""With an image: a cut composite model equals the original without the blocks, fed by the type's own image processor.

The processors are those that need Pillow alone; where a type has none, its inputs are made by hand.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from cut_of_every_type import largest, random_model, returning_their_input
from every_type import removable, tiny_config_of, tiny_fields

from shortlm.choose import plan_by_hand
from shortlm.cut import cut
from shortlm.errors import ModelError
from shortlm.model import find_anatomy, open_model, quiet
from shortlm.recipe import CutSettings, ModelSettings

SIDE = 28
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
LONGEST = {"size": {"longest_edge": SIDE}, "max_image_size": {"longest_edge": SIDE}, "do_image_splitting": False}
PIXELS = {"size": {"shortest_edge": SIDE**2, "longest_edge": 4 * SIDE**2}, "patch_size": 14}
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "aya_vision": ("GotOcr2ImageProcessorPil", {**SQUARE, "crop_to_patches": False}),
    "gemma3": ("Gemma3ImageProcessorPil", SQUARE),
    "gemma4": ("Gemma4ImageProcessorPil", {"patch_size": 14, "max_soft_tokens": 70}),
    "glm4v": ("Glm4vImageProcessorPil", PIXELS),
    "glm4v_moe": ("Glm4vImageProcessorPil", PIXELS),
    "idefics3": ("Idefics3ImageProcessorPil", LONGEST),
    "internvl": ("GotOcr2ImageProcessorPil", SQUARE),
    "llava": ("LlavaImageProcessorPil", CROPPED),
    "mistral3": ("PixtralImageProcessorPil", {"size": {"longest_edge": 2 * SIDE}, "patch_size": 14}),
    "ovis2": ("Ovis2ImageProcessorPil", SQUARE),
    "paligemma": ("SiglipImageProcessorPil", SQUARE),
    "qwen2_5_vl": ("Qwen2VLImageProcessorPil", PIXELS),
    "qwen2_vl": ("Qwen2VLImageProcessorPil", PIXELS),
    "qwen3_5": ("Qwen2VLImageProcessorPil", PIXELS),
    "qwen3_5_moe": ("Qwen2VLImageProcessorPil", PIXELS),
    "qwen3_vl": ("Qwen2VLImageProcessorPil", PIXELS),
    "qwen3_vl_moe": ("Qwen2VLImageProcessorPil", PIXELS),
    "smolvlm": ("SmolVLMImageProcessorPil", LONGEST),
}
FOR_THE_PROCESSOR = ("num_crops", "num_soft_tokens_per_image")  # that is, to make the prompt, not for the model
BROKEN = pytest.mark.skipif(
    version("transformers").startswith("5.24."), reason="the forward of llama4 in transformers 5.24 fails on text alone"
)
BY_HAND = ("lfm2_vl", pytest.param("llama4", marks=BROKEN))


def tiny(name: str) -> Any:
    config = tiny_config_of(name)
    if name == "gemma3":
        config.mm_tokens_per_image = 4
    if name == "qwen2_5_vl":
        config.vision_config.window_size = 56
    if name == "llama4":
        vision = config.vision_config
        vision.intermediate_size = 128  # four patches of hidden size 32 become one
        vision.projector_input_dim = vision.projector_output_dim = vision.vision_output_dim = 32
    if name == "gemma4":
        vision = {"model_type": "gemma4_vision", **tiny_fields("gemma4_vision")}
        return type(config).from_dict(config.to_dict() | {"vision_config": vision})
    return config


def image_inputs(name: str, seed: int) -> dict[str, torch.Tensor]:
    pixels = np.random.default_rng(seed).random((84, 84, 3) if name in ("gemma4", "mistral3") else (SIDE, SIDE, 3))
    if name == "llama4":
        return {"pixel_values": torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]}
    if name == "lfm2_vl":
        patches = torch.tensor(pixels, dtype=torch.float32).reshape(1, 4, 14 * 14 * 3)
        shape = {"spatial_shapes": torch.tensor([[2, 2]]), "pixel_attention_mask": torch.ones(1, 4, dtype=torch.long)}
        return {"pixel_values": patches, **shape}
    import transformers
    from PIL import Image

    kind, settings = PROCESSORS[name]
    image = Image.fromarray((pixels * 255).astype("uint8"))
    given = getattr(transformers, kind)(**settings)(images=[image], return_tensors="pt")
    return {key: value for key, value in given.items() if key not in FOR_THE_PROCESSOR}


@torch.no_grad()
def inputs_with(model: Any, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A prompt with as many places for the image as its features take."""
    found = model.get_image_features(**given)
    features = getattr(found, "pooler_output", None)
    features = found.last_hidden_state if features is None else features
    places = sum(map(len, features)) if isinstance(features, (list, tuple)) else features.flatten(0, -2).shape[0]
    config = model.config
    image = getattr(config, "image_token_id", None) or config.image_token_index
    ids_BT = torch.tensor([[5, 6, 7] + [image] * places + [8, 9, 10]])
    kinds = "mm_token_type_ids" in inspect.signature(model.forward).parameters
    return {"input_ids": ids_BT, **given} | ({"mm_token_type_ids": (ids_BT == image).long()} if kinds else {})


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs, use_cache=False).logits


@pytest.mark.parametrize("name", [*PROCESSORS, *BY_HAND])
def test_with_an_image_a_cut_model_equals_the_original_without_the_blocks(name, tmp_path):
    with quiet():
        model = random_model(tiny(name))
        removed = removable(model.config)
        model.save_pretrained(tmp_path / "whole")
    settings = ModelSettings(model=str(tmp_path / "whole"))
    cut(settings, plan_by_hand(open_model(settings).facts, removed), CutSettings(), tmp_path / "cut")
    with quiet():
        result, told = type(model).from_pretrained(tmp_path / "cut", output_loading_info=True)
    assert not any(told.values())
    inputs, other = (inputs_with(model, image_inputs(name, seed)) for seed in (0, 1))
    blocks = find_anatomy(model).blocks
    with returning_their_input(blocks, removed, lambda: logits(model, inputs)):
        expected, of_other = logits(model, inputs), logits(model, other)
    assert largest(expected, of_other) > 1e-3  # the image counts
    assert largest(expected, logits(model, inputs)) > 1e-2  # and so do the blocks
    assert largest(expected, logits(result, inputs)) < 1e-4


def test_blocks_that_an_image_enters_behind_have_to_stay(tmp_path):
    with quiet():
        random_model(tiny("qwen3_vl")).save_pretrained(tmp_path / "whole")
    settings = ModelSettings(model=str(tmp_path / "whole"))
    plan = plan_by_hand(open_model(settings).facts, [1, 4])
    with pytest.raises(ModelError, match=r"features of images enter behind blocks 0 to 2.*--protect 0,1,2"):
        cut(settings, plan, CutSettings(), tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
