"""Write a Llama of any shape with random bf16 weights in shards, one block in memory at a time.

python benchmarks/random_checkpoint.py OUT [--blocks 32 --hidden 4096 --ffn 11008 --heads 32 --vocabulary 32000]
                                            [--device cuda]   (draws the numbers there: 7B in seconds)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig


def drawn(shape: tuple[int, int], std: float, device: str) -> torch.Tensor:
    """Normal numbers in bf16, in the processor's memory."""
    return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(std=std).cpu()


def block_tensors(config: LlamaConfig, i: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Block i: matrices of variance 1 / fan-in, so that states keep their size; norms of ones."""
    hidden, ffn, kv = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim
    shapes = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }  # fmt: skip
    tensors = {n: drawn(s, 0.5 * s[1] ** -0.5, device) for n, s in shapes.items()}
    tensors |= {n: torch.ones(hidden, dtype=torch.bfloat16) for n in ("input_layernorm", "post_attention_layernorm")}
    return {f"model.layers.{i}.{n}.weight": t for n, t in tensors.items()}


def write(out: Path, config: LlamaConfig, seed: int = 0, device: str = "cpu") -> None:
    """The checkpoint: one shard for what stands outside the blocks, one for every two blocks."""
    out.mkdir(parents=True)
    torch.manual_seed(seed)
    table = (config.vocab_size, config.hidden_size)
    outside = {
        "model.embed_tokens.weight": drawn(table, 1.0, device),
        "lm_head.weight": drawn(table, config.hidden_size**-0.5, device),
        "model.norm.weight": torch.ones(config.hidden_size, dtype=torch.bfloat16),
    }
    parts = [range(i, min(i + 2, config.num_hidden_layers)) for i in range(0, config.num_hidden_layers, 2)]
    names = [f"model-{i + 1:05d}-of-{len(parts) + 1:05d}.safetensors" for i in range(len(parts) + 1)]
    weight_map = dict.fromkeys(outside, names[0])
    save_file(outside, out / names[0], {"format": "pt"})
    for name, part in zip(names[1:], parts, strict=True):
        tensors = {n: t for i in part for n, t in block_tensors(config, i, device).items()}
        save_file(tensors, out / name, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config.architectures, config.dtype = ["LlamaForCausalLM"], torch.bfloat16
    config.save_pretrained(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    for name, value in {"blocks": 32, "hidden": 4096, "ffn": 11008, "heads": 32, "vocabulary": 32000}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    config = LlamaConfig(
        hidden_size=given.hidden, intermediate_size=given.ffn, num_hidden_layers=given.blocks,
        num_attention_heads=given.heads, num_key_value_heads=given.heads, vocab_size=given.vocabulary,
        tie_word_embeddings=False,
    )  # fmt: skip
    write(given.out, config, device=given.device)


if __name__ == "__main__":
    main()
