"""Numbers on the command line: endless, not finite, negative, far too many."""

from __future__ import annotations

from hostile.case import HUGE, Case

MODEL = ["-m", "{w}/llama", "--text", "{w}/text.txt", "--length", "32"]
SCORE = ["score", *MODEL, "-c", "bi"]
COMMANDS = {
    "score": (SCORE, "--sequences --skip --length --resamples --batch-size --seed --memory --select"),
    "plan-memory": (["plan-memory", *MODEL, "-c", "ppl"], "--sequences --length --batch-size --memory --skip"),
    "choose": (["choose", "{w}/scores.json", "-o", "out"], "--blocks --drop --drop-params --to-params --protect"),
    "cut": (["cut", "-m", "{w}/llama", "-o", "out", "--remove", "2", "--no-verify"], "--shard-size --remove"),
    "eval": (["eval", *MODEL, "--sequences", "2"],
             "--sequences --skip --length --batch-size --limit --shots --task-batch --new-tokens --samples "
             "--temperature --top-k --top-p --sample-seed --memory"),
    "bench": (["bench", "{w}/llama", "--no-breakdown", "--warmup", "0", "--batches", "1", "--output-tokens", "2",
               "--prompt-tokens", "4", "--runs", "1"],
              "--batches --prompt-tokens --output-tokens --runs --warmup --temperature --top-k --top-p --largest"),
    "run": (["run", "-m", "./nowhere", "-o", "out"], "--rounds --held-out --blocks --to-params --sequences --shard-size"),
    "heal": (["heal", "./nowhere", "-o", "out", "--method", "cpt", "--data", "{w}/text.txt"],
             "--tokens --steps --epochs --batch --lr --warmup --length --rank --alpha --seed --held-out --log-every"),
}  # fmt: skip
VALUES = {
    "1e9": "1000000000", "1e8": "100000000", "-1": "-1", "-0": "-0", "nan": "nan", "inf": "inf", "1e308": "1e308",
    "400 digits": "9" * 400, "5000 digits": HUGE, "5000 digits and GiB": HUGE + "GiB", "hex": "0x10", "empty": "",
    "arabic": "٣", "list": "1,2", "range": "0-99999999", "25": "25", "word": "zzz", "percent": "9" * 400 + "%",
}  # fmt: skip


def cases() -> list[Case]:
    """Every number of every command, with every value; small ones may be what somebody wants."""
    found = []
    for command, (args, options) in COMMANDS.items():
        for option in options.split():
            for name, value in VALUES.items():
                valid = command not in ("run", "heal")
                found.append(Case(f"{command} {option} {name}", [*args, f"{option}={value}"], valid=valid,
                                  long=command in ("eval", "bench", "plan-memory")))  # fmt: skip
    return found
