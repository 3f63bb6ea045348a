"""Quantise a checkpoint by llm-compressor: `python compress.py job.json result.json`, in an environment that has it.

The job: model (a folder), out, ids (a safetensors file of windows and masks, or none), bits, group_size, act_order,
method (gptq or rtn), ignore, dampening, auto_class, dtype, shard_size. The result: versions.
"""

import contextlib
import json
import sys
from importlib.metadata import version


def main(asked: str, answer: str) -> None:
    with contextlib.suppress(ImportError):  # tells transformers of our own model type
        import shortlm  # noqa: F401
    import transformers
    from llmcompressor import oneshot

    with open(asked, encoding="utf-8") as file:
        job = json.load(file)
    auto = getattr(transformers, job["auto_class"])
    model = auto.from_pretrained(job["model"], dtype=job["dtype"], trust_remote_code=job["trust_remote_code"])
    windows = data(job["ids"]) if job["ids"] else None
    count, length = (len(windows), max(map(len, windows["input_ids"]))) if windows else (0, 8)
    oneshot(
        model=model, dataset=windows, recipe=recipe(job), num_calibration_samples=count, max_seq_length=length,
        shuffle_calibration_samples=False, log_dir=None,
    )  # fmt: skip
    model.save_pretrained(job["out"], save_compressed=True, max_shard_size=job["shard_size"])
    with open(answer, "w", encoding="utf-8") as file:
        json.dump({name: version(name) for name in ("llmcompressor", "compressed-tensors", "transformers")}, file)


def recipe(job: dict):
    """Weights as integers, symmetric, a scale for each group of inputs; activations stay as they are."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    strategy = {"strategy": "group", "group_size": job["group_size"]} if job["group_size"] else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=job["bits"], type="int", symmetric=True, actorder=job["act_order"], **strategy)
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    if job["method"] == "rtn":
        return QuantizationModifier(config_groups=groups, ignore=job["ignore"])
    return GPTQModifier(config_groups=groups, ignore=job["ignore"], dampening_frac=job["dampening"])


def data(path: str):
    """The windows as the data set that oneshot wants."""
    from datasets import Dataset
    from safetensors.torch import load_file

    found = load_file(path)
    rows = zip(found["ids"].tolist(), found["keep"].tolist(), strict=True)
    kept = [[i for i, keep in zip(ids, mask, strict=True) if keep] for ids, mask in rows]
    return Dataset.from_dict({"input_ids": kept, "attention_mask": [[1] * len(ids) for ids in kept]})


if __name__ == "__main__":
    main(*sys.argv[1:])
