"""Ask llama.cpp, by llama-cpp-python: `python llama.py job.json result.json`, in an environment that has it.

The job: model (a GGUF file). With `quantize_to` and `out`: write it in fewer bits. Else the ids of each text of
`prompts`, and how greedy decoding goes on for `tokens` tokens behind each list of `ids`.
"""

import ctypes
import json
import sys
from importlib.metadata import version


def main(asked: str, answer: str) -> None:
    with open(asked, encoding="utf-8") as file:
        job = json.load(file)
    found = {"version": version("llama-cpp-python")}
    if job.get("quantize_to"):
        quantize(job["model"], job["out"], job["quantize_to"])
    else:
        found |= asked_of(job)
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(found, file)


def quantize(model: str, out: str, kind: str) -> None:
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + kind.upper())
    status = llama_cpp.llama_model_quantize(model.encode(), out.encode(), ctypes.byref(options))
    if status:
        sys.exit(f"llama_model_quantize: status {status}")


def asked_of(job: dict) -> dict:
    from llama_cpp import Llama

    longest = max(map(len, job["ids"])) + job["tokens"]
    model = Llama(model_path=job["model"], n_ctx=longest + 8, n_gpu_layers=0, verbose=False)
    read = [model.tokenize(text.encode(), add_bos=True, special=False) for text in job["prompts"]]
    written = []
    for ids in job["ids"]:
        model.reset()
        steps = model.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0)
        written.append([next(steps) for _ in range(job["tokens"])])
    return {"read": read, "written": written}


if __name__ == "__main__":
    main(*sys.argv[1:])
