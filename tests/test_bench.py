"""Bench: what is measured, in which order, against plain counts; limits against real runs; what is refused."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import pytest
import torch
from architectures import save_tiny
from typer.testing import CliRunner

from shortlm.artifacts import Benchmark, Cell, Timing
from shortlm.bench import bench
from shortlm.bench.breakdown import breakdowns
from shortlm.bench.cases import Case, cases
from shortlm.bench.fleet import Fleet, fail, take_turns
from shortlm.bench.gauge import Gauge
from shortlm.bench.limits import largest_that_fits, limits, peak_of
from shortlm.bench.runners import Runner
from shortlm.cli import app
from shortlm.cut import cut
from shortlm.errors import ModelError, RecipeError
from shortlm.model import free_memory, open_files, open_model
from shortlm.recipe import BenchSettings, CutSettings, ModelSettings, WorkloadSettings, bench_of, benching_of

QUICK = WorkloadSettings(batches=[1, 3], prompt_tokens=[7], output_tokens=[5], runs=3, warmup=1)


@pytest.fixture(scope="module")
def shorter(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("bench") / "shorter"
    cut(ModelSettings(), [4, 5, 6, 9], CutSettings(verify=False), folder)
    return str(folder)


@pytest.fixture(scope="module")
def benched(shorter) -> Benchmark:
    models = [ModelSettings(), ModelSettings(model=shorter)]
    return bench(models, BenchSettings(workloads=[QUICK]), ["dense", "cut"])


def runner(settings: BenchSettings | None = None, **model) -> Runner:
    return Runner(open_model(ModelSettings(**model)), settings or BenchSettings(workloads=[QUICK]), "dense")


def case(batch: int = 1, prompt: int = 7, output: int = 5) -> Case:
    return Case(batch, prompt, output, QUICK)


def test_every_model_runs_every_case(benched):
    assert [(c.role, c.batch) for c in benched.cells] == [("dense", 1), ("cut", 1), ("dense", 3), ("cut", 3)]
    assert all(len(c.runs) == 3 and c.failed is None for c in benched.cells)
    assert all(0 < r.first_token < r.seconds for c in benched.cells for r in c.runs)
    assert benched.interleaved and [m.model.n_blocks for m in benched.models] == [12, 8]
    assert [b.role for b in benched.breakdowns] == ["dense", "cut"] and benched.limits == []
    assert Benchmark.model_validate_json(benched.model_dump_json()) == benched


def test_bytes_are_those_of_a_plain_count(benched):
    """Keys and values of every block, KV head and token but the last, float32; weights and the tied head once."""
    dense, shorter = benched.cells[2:]
    assert dense.cache_bytes == 2 * 12 * 2 * 32 * (7 + 5 - 1) * 3 * 4
    assert shorter.cache_bytes == dense.cache_bytes * 8 / 12
    loaded = open_model(ModelSettings()).model
    buffers = sum(b.numel() * b.element_size() for b in loaded.buffers())
    assert benched.models[0].weight_bytes == 4 * 1_867_136 + buffers
    assert all(c.peak_bytes > benched.models[i % 2].weight_bytes + c.cache_bytes for i, c in enumerate(benched.cells))


def test_exactly_so_many_tokens_are_written():
    found = runner()
    out = found.run(found.prompt(case(2, 7, 9)), case(2, 7, 9))
    assert out.sequences.shape == (2, 16)
    assert found.run(found.prompt(case(2, 7, 0)), case(2, 7, 0)).logits.shape[:2] == (2, 1)


def test_sampling_is_the_settings_not_the_models():
    drawn = QUICK.model_copy(update={"temperature": 1.0, "top_k": 50})
    found, wide = runner(), Case(1, 7, 5, drawn)
    texts = {tuple(found.run(found.prompt(wide), wide, seed).sequences[0].tolist()) for seed in (0, 0, 1, 2)}
    assert len(texts) == 3  # the same seed gives the same tokens


def test_models_take_turns_and_change_places():
    class Fake:
        def __init__(self, role):
            self.role = role

        def time(self, case, seed):
            order.append((self.role, seed))
            return Timing(seconds=1)

    order, cells = [], {role: Cell(role=role, batch=1, prompt_tokens=7, output_tokens=5) for role in "ab"}
    take_turns([Fake("a"), Fake("b")], case(), 2, cells)
    assert order == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert [len(cells[role].runs) for role in "ab"] == [2, 2]


def test_who_runs_out_of_memory_leaves_and_the_others_go_on():
    class Full:
        role = "a"

        def time(self, case, seed):
            if seed == 2:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
            return Timing(seconds=1)

    class Roomy(Full):
        role = "b"

        def time(self, case, seed):
            return Timing(seconds=1)

    cells = {role: Cell(role=role, batch=1, prompt_tokens=7, output_tokens=5) for role in "ab"}
    take_turns([Full(), Roomy()], case(), 3, cells)
    assert cells["a"].failed == "out of memory beside the other models" and cells["a"].runs == []
    assert cells["b"].failed is None and len(cells["b"].runs) == 3
    with pytest.raises(RuntimeError, match="illegal memory access"):
        fail(cells["b"], RuntimeError("CUDA error: an illegal memory access was encountered"), False)


def test_models_that_do_not_fit_together_run_one_after_the_other(shorter, monkeypatch):
    fleet = sys.modules["shortlm.bench.fleet"]
    monkeypatch.setattr(fleet, "free_memory", lambda device: 15_000_000)
    models = [ModelSettings(), ModelSettings(model=shorter)]
    found = bench(models, BenchSettings(workloads=[QUICK], breakdown=False), ["dense", "cut"])
    assert not found.interleaved and [len(c.runs) for c in found.cells] == [3, 3, 3, 3]
    monkeypatch.setattr(fleet, "free_memory", lambda device: 10_000_000)
    with pytest.raises(ModelError, match="embedded: 7,468,544 bytes of weights don't leave room to run in 10,000,000"):
        bench(models, BenchSettings(workloads=[QUICK]), ["dense", "cut"])


def test_running_out_of_memory_is_noted_and_the_rest_goes_on(monkeypatch):
    real = Runner.memory

    def failing(self, case):
        if case.batch == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, case)

    monkeypatch.setattr(Runner, "memory", failing)
    found = bench([ModelSettings()], BenchSettings(workloads=[QUICK], breakdown=False), ["dense"])
    assert [(c.batch, c.failed, len(c.runs)) for c in found.cells] == [(1, None, 3), (3, "out of memory", 0)]


def test_the_parts_of_a_step_are_those_of_the_blocks(monkeypatch):
    """A block that is made slow shows up in the blocks, a slow head in the head."""
    import time

    found = runner()
    plain = breakdowns([found], case())[0]
    assert plain.blocks > plain.head > 0 and plain.steps == 12 * 4
    block = found.opened.anatomy.blocks[0]
    slow = block.register_forward_hook(lambda *_: time.sleep(0.02), prepend=True)
    slower = breakdowns([found], case())[0]
    slow.remove()
    assert slower.blocks > plain.blocks + 0.015 and slower.head < plain.head + 0.01
    found.opened.anatomy.head.register_forward_hook(lambda *_: time.sleep(0.02), prepend=True)
    assert breakdowns([found], case())[0].head > plain.head + 0.015


@pytest.mark.parametrize("most", [1, 2, 3, 17, 64, 100])
@pytest.mark.parametrize("true", [0, 1, 2, 5, 16, 63, 100, 1000])
def test_bisection_finds_the_largest(true, most):
    asked = []

    def fits(value):
        assert 1 <= value <= most
        asked.append(value)
        return value * 10 if value <= true else None

    value, peak = largest_that_fits(fits, most)
    assert value == min(true, most) and peak == (10 * value or None)
    assert len(asked) == len(set(asked)) <= 2 * most.bit_length() + 1


def test_the_stretched_cache_takes_what_a_real_run_takes():
    found = runner()
    for batch, prompt, output in ((1, 7, 40), (4, 16, 100)):
        real, _ = found.memory(case(batch, prompt, output))
        assert peak_of(found, case(batch, prompt, output), 10**9) == pytest.approx(real, rel=0.02)


def test_limits_are_the_edge_of_the_budget():
    found = runner(memory="8MiB")
    batch, output = limits(found, case(2, 7, 30), largest=1000)
    budget = 8 * 2**20
    assert batch.kind == "batch" and batch.stopped_by == "memory" and batch.peak_bytes <= budget
    assert found.memory(case(batch.value, 7, 30))[0] <= budget < found.memory(case(batch.value + 1, 7, 30))[0] * 1.02
    assert output.stopped_by == "memory" and output.batch == 2
    assert peak_of(found, case(2, 7, output.value), budget) and not peak_of(found, case(2, 7, output.value + 1), budget)
    roomy = limits(runner(memory="1GiB"), case(1, 7, 5), largest=4)
    assert [(x.value, x.stopped_by) for x in roomy] == [(4, "cap"), (505, "context")]
    assert limits(runner(memory="1MiB"), case(), largest=4)[0].value == 0


def test_what_is_impossible_is_told_before_anything_runs():
    with pytest.raises(RecipeError, match="--limits: give the budget with --memory"):
        bench([ModelSettings()], BenchSettings(limits=True), ["m"])
    with pytest.raises(RecipeError, match="--limits: a static cache takes its length at once"):
        bench([ModelSettings(memory="1GiB")], BenchSettings(limits=True, cache="static"), ["m"])
    with pytest.raises(RecipeError, match="--backend vllm: manages its own memory"):
        bench([ModelSettings(memory="1GiB")], BenchSettings(limits=True, backend="vllm"), ["m"])
    with pytest.raises(RecipeError, match="1 models need as many different roles, not a, b"):
        bench([ModelSettings()], BenchSettings(), ["a", "b"])
    with pytest.raises(RecipeError, match=r"batch 1, 7 \+ 5 tokens: is measured twice"):
        bench([ModelSettings()], BenchSettings(workloads=[QUICK, QUICK]), ["m"])


def test_layers_that_slide_keep_their_window(tmp_path):
    """Behind a prompt shorter than the window, the stretched cache takes what a real run takes."""
    save_tiny("gemma3_text", tmp_path / "model")
    found = runner(model=str(tmp_path / "model"))
    for prompt, output in ((4, 30), (20, 20)):
        real, _ = found.memory(case(2, prompt, output))
        assert peak_of(found, case(2, prompt, output), 10**9) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text", "qwen3_moe"])
def test_other_architectures(kind, tmp_path):
    save_tiny(kind, tmp_path / "model")
    settings = BenchSettings(workloads=[QUICK])
    found = bench([ModelSettings(model=str(tmp_path / "model"), memory="1GiB")], settings, ["dense"])
    assert found.cells[0].runs and found.cells[0].peak_bytes and found.breakdowns[0].blocks > 0


def test_a_static_cache_is_as_large_as_its_own_text():
    """Also behind a longer one, whose length transformers remembers."""
    found = runner(BenchSettings(workloads=[QUICK], cache="static"))
    sizes = {n: found.memory(case(1, 7, n))[1] for n in (5, 40, 9)}
    per_token = 2 * 12 * 2 * 32 * 4
    assert [round((sizes[n] - sizes[5]) / per_token) for n in (40, 9)] == [35, 4]


def test_lengths_beyond_the_context_are_refused():
    with pytest.raises(
        ModelError, match="embedded: 64 tokens of prompt and 449 of output are more than its context of 51"
    ):
        bench([ModelSettings()], BenchSettings(workloads=[WorkloadSettings(output_tokens=[449])]), ["m"])


def test_a_model_that_cannot_generate_is_refused(monkeypatch):
    opened = open_model(ModelSettings())
    monkeypatch.setattr(opened.model, "can_generate", lambda: False)
    with pytest.raises(ModelError, match="can't generate text, so its decoding can't be timed"):
        Runner(opened, BenchSettings(), "m")


def test_a_text_is_a_prompt_of_its_own_length():
    text = WorkloadSettings(prompt="Mira has the key.", batches=[2], output_tokens=[3])
    files = open_files(ModelSettings())
    (found,) = cases(BenchSettings(workloads=[text]), [files])
    ids_BT = found.prompt(files.tokenizer, 738, torch.device("cpu"))
    assert ids_BT.shape == (2, found.prompt_tokens)
    assert files.tokenizer.decode(ids_BT[1], skip_special_tokens=True) == "Mira has the key."
    with pytest.raises(RecipeError, match="--prompt: embedded has no tokenizer"):
        cases(BenchSettings(workloads=[text]), [files, replace(files, tokenizer=None)])
    other = types.SimpleNamespace(settings=ModelSettings(model="x"), tokenizer=_Letters(), config=files.config)
    with pytest.raises(RecipeError, match=r"is not as many tokens for all models \(embedded: .*, x: 17\)"):
        cases(BenchSettings(workloads=[text]), [files, other])


class _Letters:
    def __call__(self, text):
        return types.SimpleNamespace(input_ids=[ord(letter) for letter in text])


def test_published_presets():
    paper = bench_of("shortened-llm").workloads[0]
    assert paper.batches == [1, 8, 16, 32, 64, 128, 256] and paper.output_tokens == [128, 512]
    assert (paper.runs, paper.warmup, paper.temperature, paper.top_k, paper.top_p) == (20, 10, 1.0, 50, 0.95)
    assert paper.prompt == "The Leaning Tower of Pisa is known for"
    writing, reading = bench_of("sleb").workloads
    assert (writing.batches, writing.prompt_tokens, writing.output_tokens, writing.runs) == ([64], [64], [128], 10)
    assert (reading.batches, reading.prompt_tokens, reading.output_tokens, reading.runs) == ([1], [2048], [0], 50)


def test_options_are_laid_over_every_workload():
    values = benching_of("sleb", {"runs": 3, "batches": [2], "breakdown": False})
    settings = BenchSettings.model_validate(values)
    assert [w.runs for w in settings.workloads] == [3, 3] and [w.batches for w in settings.workloads] == [[2], [2]]
    assert not settings.breakdown and settings.workloads[1].prompt_tokens == [2048]
    assert benching_of("shortened-llm", {"prompt_tokens": [5]})["workloads"][0]["prompt"] is None
    assert bench_of("none") is None and bench_of("default") == BenchSettings()


def test_nvml_gives_utilisation_and_energy(monkeypatch):
    class NVMLError(Exception):
        pass

    energy = iter([1000.0, 4500.0])
    stub = types.SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetUtilizationRates=lambda handle: types.SimpleNamespace(gpu=80),
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(energy),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", stub)
    monkeypatch.setattr(sys.modules["shortlm.bench.gauge"], "PERIOD", 0.001)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="12"))
    with Gauge(torch.device("cuda")) as gauge:
        assert gauge.handle == "GPU-12"
        while not gauge.samples:
            pass
    assert gauge.utilisation == 0.8 and gauge.joules == 3.5
    with Gauge(torch.device("cpu")) as nothing:
        pass
    assert nothing.utilisation is None and nothing.joules is None


def test_vllm_is_asked_for_exactly_the_same(monkeypatch):
    seen = []

    class Engine:
        def __init__(self, **given):
            seen.append(given)

        def generate(self, prompts, sampling, use_tqdm):
            seen.append((prompts, sampling))

    stub = types.SimpleNamespace(LLM=Engine, SamplingParams=lambda **given: given)
    monkeypatch.setitem(sys.modules, "vllm", stub)
    found = bench([ModelSettings()], BenchSettings(workloads=[QUICK], backend="vllm"), ["dense"])
    assert found.backend == "vllm" and [len(c.runs) for c in found.cells] == [3, 3]
    assert found.models[0].weight_bytes == 7_468_544 and found.models[0].dtype == "float32"
    assert seen[0]["max_model_len"] == 12 and seen[0]["max_num_seqs"] == 3
    prompts, sampling = seen[1]
    assert len(prompts[0]["prompt_token_ids"]) == 7
    assert sampling["max_tokens"] == sampling["min_tokens"] == 5 and sampling["ignore_eos"]


def test_the_command(tmp_path, shorter):
    out = tmp_path / "bench.json"
    options = ["--batches", "1,2", "--prompt-tokens", 5, "--output-tokens", 4, "--runs", 3, "--warmup", 0]
    result = CliRunner().invoke(app, ["bench", "embedded", shorter, *map(str, options), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert [c.role for c in Benchmark.load(out).cells] == ["embedded", "shorter"] * 2
    assert "a step of shorter: blocks" in result.stdout and "expected" in result.stdout
    again = CliRunner().invoke(app, ["bench", "embedded", "-o", str(out)])
    assert again.exit_code == 2 and "exists" in again.stderr
    for options, message in (
        (["--batches", "0"], "--batches: input should be greater than or equal to 1 (got '0')"),
        (["--prompt-tokens", "2,x"], "--prompt-tokens: input should be a valid integer"),
        (["--preset", "sleep"], "preset 'sleep' is unknown; did you mean 'sleb'?"),
        (["--device", "cuda:7"], "device 'cuda:7' is not there; known here: "),
        (["--backend", "vllm"], "--backend vllm: vLLM is not installed here"),
    ):
        failed = CliRunner().invoke(app, ["bench", "embedded", *options])
        assert failed.exit_code == 2 and message in failed.stderr, failed.output


def test_one_model_needs_room():
    files = open_files(ModelSettings())
    assert Fleet([files], BenchSettings(), ["m"]).together
    assert free_memory(files.device) > 0
    with pytest.raises(ModelError, match="don't leave room"):
        Fleet([replace(files, checkpoint=_Huge())], BenchSettings(), ["m"])


class _Huge:
    nbytes = 10**15

    def nbytes_as(self, width):
        return self.nbytes
