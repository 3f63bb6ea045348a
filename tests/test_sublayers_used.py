"""What works on a checkpoint of our own type: all that works on its base architecture."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from architectures import save_tiny
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from shortlm.bench import bench
from shortlm.cli import app
from shortlm.cut import cut
from shortlm.embedded import model_path
from shortlm.evaluate import perplexity
from shortlm.heal import heal, training
from shortlm.model import open_for_scoring, open_model, quiet
from shortlm.recipe import (
    BenchSettings,
    CutSettings,
    HealSettings,
    ModelSettings,
    PhaseSettings,
    ScoreSettings,
    TextSettings,
    WorkloadSettings,
)
from shortlm.score import score
from shortlm.text import open_windows
from shortlm.units import Unit

UNITS = [Unit(1), Unit(2, "attention"), Unit(4, "ffn")]
TEXT = TextSettings(text="embedded", sequences=4, length=24)
PHASE = {"data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 4, "held_out": 4, "lr": 5e-3, "steps": 4,
         "eval_every": 2, "precision": "float32"}  # fmt: skip


@pytest.fixture(scope="module")
def short(llama_folder, tmp_path_factory):
    """A Llama of 5 blocks of which one has no attention and one no FFN."""
    out = tmp_path_factory.mktemp("short") / "out"
    cut(ModelSettings(model=str(llama_folder), device="cpu"), UNITS, CutSettings(), out)
    return out


def settings(folder, **more):
    return ModelSettings(model=str(folder), device="cpu", **more)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "mixtral", "opt", "phi"])
def test_padding_on_the_left_changes_nothing(name, tmp_path):
    with quiet():
        save_tiny(name, tmp_path / "m")
    cut(settings(tmp_path / "m"), UNITS, CutSettings(), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    prompts = [torch.randint(3, 96, (1, length), generator=torch.Generator().manual_seed(length)) for length in (4, 11)]
    ids_BT, mask_BT = torch.zeros(2, 11, dtype=torch.long), torch.zeros(2, 11, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, 11 - prompt.shape[1] :], mask_BT[row, 11 - prompt.shape[1] :] = prompt, 1
    words = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    together = model.generate(ids_BT, attention_mask=mask_BT, **words)[:, 11:]
    for row, prompt in enumerate(prompts):
        alone = model.generate(prompt, attention_mask=torch.ones_like(prompt), **words)[0, prompt.shape[1] :]
        assert torch.equal(together[row], alone)


def test_all_kinds_of_caches(short):
    model = AutoModelForCausalLM.from_pretrained(short).eval()
    ids_BT = torch.randint(3, 96, (2, 9))
    words = {"attention_mask": torch.ones_like(ids_BT), "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(ids_BT, use_cache=False, **words)
    for kind in ("dynamic", "static", "offloaded"):
        if kind != "offloaded" or torch.cuda.is_available():
            assert torch.equal(model.generate(ids_BT, cache_implementation=kind, **words), plain)
    assert torch.equal(model.generate(ids_BT, num_beams=3, **words)[:, :9], ids_BT)


def test_saved_again_it_is_the_same(short, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(short)
    model.save_pretrained(tmp_path / "again")
    before, after = (json.loads((f / "config.json").read_bytes()) for f in (short, tmp_path / "again"))
    assert before == after
    one, two = (load_file(f / "model.safetensors") for f in (short, tmp_path / "again"))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)
    assert type(AutoTokenizer.from_pretrained(short)) is type(AutoTokenizer.from_pretrained(model_path()))


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_saved_again(name, tmp_path):
    """transformers joins single experts while it loads, and parts them again."""
    with quiet():
        save_tiny(name, tmp_path / "m")
    cut(settings(tmp_path / "m"), UNITS, CutSettings(), tmp_path / "out")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "again")
    one, two = (load_file(tmp_path / f / "model.safetensors") for f in ("out", "again"))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def test_scored_in_memory_and_from_disk(short):
    criteria = ScoreSettings(criteria=["ppl", "taylor", "bi", "magnitude"], resamples=5)
    found = [score(settings(short, stream=how), TEXT, criteria) for how in ("off", "on")]
    for name in found[0].criteria:
        assert found[0].criteria[name].scores == pytest.approx(found[1].criteria[name].scores, rel=1e-4)
    assert found[0].model.n_blocks == 5 and found[0].model.architecture == "shortlm (llama)"


@pytest.mark.parametrize("stream", ["off", "on"])
def test_perplexity(short, stream):
    opened = open_for_scoring(settings(short, stream=stream))
    windows = open_windows(TEXT, opened.tokenizer, 1024)
    ids_BT = windows.ids_BT
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(short)(input_ids=ids_BT, labels=ids_BT).loss
    assert perplexity(opened, windows).perplexity == pytest.approx(float(expected.exp()), rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "cpt", "distill"])
def test_healed_it_stays_of_its_type(short, tmp_path, method):
    heal(settings(short), HealSettings(phases=[PhaseSettings(**PHASE, method=method)]), tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert fields["model_type"] == "shortlm" and set(fields["left_out"]) == {"1", "3"}
    one, two = (load_file(f / "model.safetensors") for f in (short, tmp_path / "out"))
    assert one.keys() == two.keys() and any(not torch.equal(one[n], two[n]) for n in one)
    assert open_model(settings(tmp_path / "out")).facts.n_blocks == 5


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("method", ["lora", "cpt"])
def test_healing_goes_on_after_a_stop(short, tmp_path, monkeypatch, method):
    chain = HealSettings(phases=[PhaseSettings(**PHASE, method=method)])
    heal(settings(short), chain, tmp_path / "whole")
    plain, steps = training.HealTrainer.training_step, iter(range(100))

    def killed(*args, **kwargs):
        if next(steps) == 3:
            raise Killed
        return plain(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training.HealTrainer, "training_step", killed)
        with pytest.raises(Killed):
            heal(settings(short), chain, tmp_path / "out")
    heal(settings(short), chain, tmp_path / "out")
    one, two = (load_file(tmp_path / f / "model.safetensors") for f in ("whole", "out"))
    assert all(torch.allclose(one[n], two[n], atol=1e-6) for n in one)


def test_a_mixture_of_experts_is_healed(tmp_path):
    base = save_tiny("mixtral", tmp_path / "m", vocab_size=1024)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model_path() / file, base / file)
    cut(settings(base), UNITS, CutSettings(), tmp_path / "short")
    heal(settings(tmp_path / "short"), HealSettings(phases=[PhaseSettings(**PHASE, method="cpt")]), tmp_path / "out")
    one, two = (set(load_file(tmp_path / f / "model.safetensors")) for f in ("short", "out"))
    assert one == two


def test_tasks_of_the_harness(short, tmp_path):
    command = ["eval", "-m", str(short), "--tasks", "village_facts", "--limit", "4", "-o", str(tmp_path / "e.json")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "village_facts" in done.output, done.output


def test_bench(llama_folder, short):
    work = WorkloadSettings(batches=[1], prompt_tokens=[8], output_tokens=[8], runs=2, warmup=1)
    for cache in ("dynamic", "static"):
        found = bench(
            [settings(llama_folder), settings(short)], BenchSettings(workloads=[work], cache=cache), ["dense", "cut"]
        )
        assert len(found.models) == 2
