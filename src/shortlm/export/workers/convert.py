"""Run llama.cpp's converter: `python convert.py job.json result.json`, in an environment that has what it imports.

The job: converter (the path of convert_hf_to_gguf.py), model (a folder), out, outtype, and pre_tokenizer, the name that
llama.cpp has for how this tokenizer splits text, for tokenizers that the converter doesn't know by their hash.
"""

import importlib
import json
import sys
from pathlib import Path


def main(asked: str, answer: str) -> None:
    with open(asked, encoding="utf-8") as file:
        job = json.load(file)
    script = Path(job["converter"])
    sys.path.insert(0, str(script.parent))
    converter = importlib.import_module(script.stem)
    if job["pre_tokenizer"]:
        name_tokenizers(converter, job["pre_tokenizer"])
    sys.argv = [str(script), job["model"], "--outfile", job["out"], "--outtype", job["outtype"]]
    converter.main()
    with open(answer, "w", encoding="utf-8") as file:
        json.dump({}, file)


def name_tokenizers(converter, name: str) -> None:
    """The class of text models stands in the script, or (since 2026) in a package beside it."""
    try:
        models = importlib.import_module("conversion.base").TextModel
    except ImportError:
        models = converter.TextModel
    known = models.get_vocab_base_pre

    def named(self, tokenizer):
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            return name

    models.get_vocab_base_pre = named


if __name__ == "__main__":
    main(*sys.argv[1:])
