"""LoRA healing on instruction records: answer tokens per second, against the published recipe's way of batching.

python benchmarks/heal_speed.py --records alpaca.json [--model FOLDER] [--steps 6] [--repeats 3]

The published way (Shortened LLaMA's code): micro-batches of 4 records in random order, padded to the longest, float32,
logits and loss at every position. Ours is `shortlm heal` with its defaults. Both see the same records in the same
order of optimizer steps, with the same LoRA settings and the same first adapters; runs alternate. Without --model,
one with random weights is made: 12 blocks of hidden 768, a vocabulary of 16384 learnt from the records.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from machine import describe, save, spread

from shortlm.heal import heal
from shortlm.heal.phases import prepare_work
from shortlm.model import load_strictly, open_files
from shortlm.recipe import HealSettings, ModelSettings, PhaseSettings
from shortlm.text.records import IGNORED, Row

BATCH, MICRO, CUTOFF = 64, 4, 256
LORA = {"rank": 8, "alpha": 16, "dropout": 0.05}


def made_up_model(records: list[dict], out: Path, width: int, blocks: int, dtype: str) -> Path:
    """A Llama with random weights and a byte-level BPE tokenizer learnt from the records."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=16384, special_tokens=["<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator((" ".join(map(str, r.values())) for r in records), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(out)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16384, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=blocks,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(out)
    return out


def published(model: Path, rows: list[Row], steps: int, lr: float, validation: list[Row]) -> dict:
    """Trainer with the collator, the micro-batch and the precision of the published recipe."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *args, **kwargs):
            return torch.utils.data.SequentialSampler(rows)

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.manual_seed(0)  # the adapters begin as ours do
    adapted = get_peft_model(base, LoraConfig(
        r=LORA["rank"], lora_alpha=LORA["alpha"], lora_dropout=LORA["dropout"], task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    ))  # fmt: skip
    data = [{"input_ids": row.ids, "attention_mask": [1] * len(row.ids), "labels": row.labels} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=MICRO, gradient_accumulation_steps=BATCH // MICRO,
            learning_rate=lr, lr_scheduler_type="linear", warmup_steps=1, use_cpu=True, report_to=[],
            save_strategy="no", disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        collate = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8, padding=True, label_pad_token_id=IGNORED)
        trainer = InOrder(model=adapted, args=arguments, train_dataset=data, data_collator=collate)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    targets = sum(row.targets for row in rows[: steps * BATCH])
    return {"seconds": seconds, "targets": targets, "validation": nats(adapted, validation)}


def ours(model: Path, phase: PhaseSettings, validation: list[Row]) -> dict:
    """`shortlm heal`; the merged result is measured."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "healed"
        healing = heal(ModelSettings(model=str(model)), HealSettings(phases=[phase]), out)
        record = healing.phases[-1]
        merged = load_strictly(out, open_files(ModelSettings(model=str(out))).config, ModelSettings(dtype="float32"))
        last = record.log[-1]
        return {"seconds": last.seconds, "targets": last.targets, "validation": nats(merged, validation),
                "padding": record.padding, "precision": record.precision}  # fmt: skip


def nats(model: torch.nn.Module, rows: list[Row]) -> float:
    """Mean cross-entropy per answer token, float32, record by record."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logits_TV = model(input_ids=torch.tensor([row.ids])).logits[0, :-1].float()
            labels_T = torch.tensor(row.labels[1:])
            total += float(
                torch.nn.functional.cross_entropy(logits_TV, labels_T, ignore_index=IGNORED, reduction="sum")
            )
            count += row.targets
    return total / count


def compared(model: Path, records: Path, steps: int, repeats: int, lr: float) -> dict:
    """Alternating runs on the same rows."""
    phase = PhaseSettings(
        method="lora", data=[str(records)], length=CUTOFF, held_out=64, steps=steps, batch=BATCH, lr=lr, warmup=1,
        schedule="linear", eval_every=steps, keep="last", **LORA,
    )  # fmt: skip
    rows = prepare_work(open_files(ModelSettings(model=str(model))), phase, 1).rows
    validation = next(iter(rows.held_out.values()))
    ordered = [rows.next() for _ in range(steps * BATCH)]
    runs: dict[str, list[dict]] = {"published": [], "ours": []}
    for _ in range(repeats):
        runs["published"].append(published(model, ordered, steps, lr, validation))
        runs["ours"].append(ours(model, phase, validation))
        print({name: {k: found[-1][k] for k in ("seconds", "validation")} for name, found in runs.items()}, flush=True)
    rate = {name: [r["targets"] / r["seconds"] for r in found] for name, found in runs.items()}
    ratios = [b / a for a, b in zip(rate["published"], rate["ours"], strict=True)]
    config = json.loads((model / "config.json").read_bytes())
    return {
        "model": {k: config[k] for k in ("hidden_size", "num_hidden_layers", "vocab_size", "dtype")},
        "steps": steps, "answer_tokens": runs["ours"][0]["targets"],
        "answer_tokens_per_second": {name: spread(values) for name, values in rate.items()},
        "ratio": spread(ratios),
        "validation_nats": {name: [r["validation"] for r in found] for name, found in runs.items()},
        "padding": runs["ours"][0]["padding"], "precision": runs["ours"][0]["precision"],
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--name", default="heal_speed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        records = json.loads(given.records.read_bytes())
        model = given.model or made_up_model(records, Path(scratch) / "m", given.width, given.blocks, given.dtype)
        result = compared(model, given.records, given.steps, given.repeats, given.lr)
    save(given.name, {"what": __doc__.splitlines()[0], "machine": describe()} | result)


if __name__ == "__main__":
    main()
