"""Configs and tokenizers: every field of a sound config replaced, and files that are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from architectures import tiny_config

from hostile.case import DEEP, HUGE, Case, World, replaced, some

COMMANDS = [
    ["plan-memory", "-m", "{in}/model", "-c", "bi", "--length", "16"],
    ["score", "-m", "{in}/model", "-c", "bi", "--text", "{w}/text.txt", "--sequences", "2", "--length", "16"],
    ["score", "-m", "{in}/model", "-c", "bi", "--text", "{w}/text.txt", "--sequences", "2", "--length", "16", "--stream=on"],
    ["cut", "-m", "{in}/model", "--remove", "2", "--no-verify", "-o", "out"],
]  # fmt: skip
VALUES = {
    "null": "null", "list": "[]", "text": '"x"', "negative": "-3", "1e308": "1e308", "1e9": "1000000000", "zero": "0",
    "mapping": '{"x": [1]}', "true": "true", "half": "0.5", "5000 digits": HUGE, "NaN": "NaN",
}  # fmt: skip
MORE = {
    "100,000 blocks": {"num_hidden_layers": 100_000}, "a billion blocks": {"num_hidden_layers": 10**9}, "quantized": {"quantization_config": {"quant_method": "gptq"}},
    "quantized by a list": {"quantization_config": []}, "quantized by nothing": {"quantization_config": {}}, "unknown type": {"model_type": "lama"},
    "type is a list": {"model_type": ["llama"]}, "remote code": {"auto_map": {"AutoConfig": "c.C"}, "model_type": "x"}, "layer types": {"layer_types": ["x"]},
    "layer types long": {"layer_types": ["full_attention"] * 10_000}, "scaled": {"rope_scaling": {"type": "x", "factor": -1}}, "wide": {"hidden_size": 10**7},
    "vocabulary": {"vocab_size": 10**12}, "dtype": {"dtype": "float7"}, "attention": {"_attn_implementation": "x"}, "t5": {"model_type": "t5"},
}  # fmt: skip
FILES = {
    "empty": b"", "null": b"null", "list": b"[]", "number": b"5", "not JSON": b"{", "binary": bytes(range(256)) * 9,
    "deep": DEEP.encode(), "UTF-16": '{"model_type": "llama"}'.encode("utf-16"), "mapping": b"{}", "half": None,
    "5000 digits": b'{"x": ' + HUGE.encode() + b"}",
}  # fmt: skip


def changed(file: str, content: bytes | None, model: str = "llama") -> Callable[[World, Path], object]:
    """A copy of the checkpoint with one file replaced; None: by its own first half."""

    def make(world: World, folder: Path) -> None:
        copy = Path(shutil.copytree(world[model], folder / "model"))
        old = (copy / file).read_bytes() if (copy / file).is_file() else b""
        (copy / file).write_bytes(old[: len(old) // 2] if content is None else content)

    return make


def cases() -> list[Case]:
    """Each by the commands in turn."""
    found = []
    for model in ("llama", "qwen2"):
        sound = json.loads(tiny_config(model, vocab_size=1024, pad_token_id=None).to_json_string(use_diff=False))
        for i, field in enumerate(sound):
            for k, (name, raw) in enumerate(VALUES.items()):
                make = changed("config.json", replaced(sound, (field,), raw).encode(), model)
                args = COMMANDS[(i + k) % len(COMMANDS)]
                found.append(Case(f"{args[0]} {model} {field} {name}", args, make, valid=True))
    found = some(found, 320, "configs")
    sound = json.loads(tiny_config("llama", vocab_size=1024, pad_token_id=None).to_json_string(use_diff=False))
    for name, more in MORE.items():
        for i, args in enumerate(COMMANDS):
            make = changed("config.json", json.dumps(sound | more).encode())
            found.append(Case(f"{args[0]} ({i}) llama {name}", args, make, valid=True))
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        for name, raw in FILES.items():
            for args in COMMANDS[1:4:2]:
                valid = file != "config.json"
                found.append(Case(f"{args[0]} {file} {name}", args, changed(file, raw), valid=valid))
    return found
