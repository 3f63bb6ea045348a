"""Width pruning: groups, scores and choices against plain references; checkpoints that load and compute the same."""

from __future__ import annotations

import importlib
import json

import pytest
import torch
import torch.nn.functional as F
from architectures import save_tiny, tiny_model
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from shortlm import CutSettings, ModelSettings, RepairSettings, TextSettings, WidthSettings, cut, prune_width, repair
from shortlm.artifacts import Manifest, WidthStep
from shortlm.cli import app
from shortlm.errors import ModelError, OutputError, PlanError, RepairError
from shortlm.model import find_anatomy, meta_model, open_files, open_model
from shortlm.recipe import narrowing_of
from shortlm.units import ATTENTION, FFN, Unit
from shortlm.width import Sources
from shortlm.width.groups import all_groups
from shortlm.width.selection import best, pooled, uniform, wanted
from shortlm.width.walking import Walk

GENERATOR = torch.Generator().manual_seed(3)
IDS = torch.randint(3, 96, (12, 24), generator=GENERATOR)
HEADS, WIDTH, FFN_WIDTH = 8, 4, 48
LLAMA = {"num_attention_heads": HEADS, "hidden_size": 32, "head_dim": WIDTH}


@pytest.fixture(scope="module")
def ids(tmp_path_factory) -> TextSettings:
    path = tmp_path_factory.mktemp("ids") / "ids.json"
    path.write_text(json.dumps(IDS.tolist()))
    return TextSettings(ids=str(path), sequences=0)


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda g: f"{g}-query-heads")
def folder(request, tmp_path_factory):
    """A Llama with so many query heads per KV head."""
    path = tmp_path_factory.mktemp("width") / "llama"
    return save_tiny("llama", path, num_key_value_heads=HEADS // request.param, **LLAMA)


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def inputs_of(model, i: int) -> dict[str, torch.Tensor]:
    """What enters both output projections of block i, N x F, by hooks on the whole model."""
    seen, block = {}, model.model.layers[i]
    hooks = [
        module.register_forward_pre_hook(lambda m, args, part=part: seen.__setitem__(part, args[0].flatten(0, 1)))
        for part, module in ((ATTENTION, block.self_attn.o_proj), (FFN, block.mlp.down_proj))
    ]
    with torch.no_grad():
        model(IDS)
    for hook in hooks:
        hook.remove()
    return {part: x.double() for part, x in seen.items()}


def weight_of(model, i: int, part: str) -> torch.Tensor:
    block = model.model.layers[i]
    return (block.self_attn.o_proj if part == ATTENTION else block.mlp.down_proj).weight


def by_head(values, model) -> list[list[float]]:
    """Of 32 inputs of o_proj those of every KV head's query heads."""
    share = HEADS // model.config.num_key_value_heads * WIDTH
    return [values[k : k + share] for k in range(0, len(values), share)]


def plain_flap(model, i: int, part: str) -> list[float]:
    x, weight = inputs_of(model, i)[part], weight_of(model, i, part).double()
    scores = []
    for f in range(x.shape[1]):
        mean = sum(x[:, f].tolist()) / len(x)
        variance = sum((v - mean) ** 2 for v in x[:, f].tolist()) / len(x)
        scores.append(variance * sum(w**2 for w in weight[:, f].tolist()))
    scores = [s**2 for s in scores] if part == ATTENTION else scores
    mean = sum(scores) / len(scores)
    spread = (sum((s - mean) ** 2 for s in scores) / (len(scores) - 1)) ** 0.5
    standard = [(s - mean) / spread for s in scores]
    return [sum(head) / len(head) for head in by_head(standard, model)] if part == ATTENTION else standard


def plain_wanda(model, i: int, part: str) -> list[float]:
    x, weight = inputs_of(model, i)[part], weight_of(model, i, part).double()
    scores = []
    for f in range(x.shape[1]):
        size = (sum(v**2 for v in x[:, f].tolist()) / len(IDS)) ** 0.5
        scores.append(sum(abs(w) for w in weight[:, f].tolist()) / len(weight) * size)
    return [sum(head) for head in by_head(scores, model)] if part == ATTENTION else scores


def mask(model, i: int, part: str, kept: list[int]) -> None:
    """Zero the columns of an output projection that don't stay."""
    weight = weight_of(model, i, part)
    columns = (
        by_head(list(range(weight.shape[1])), model) if part == ATTENTION else [[f] for f in range(weight.shape[1])]
    )
    with torch.no_grad():
        for k, of_group in enumerate(columns):
            if k not in kept:
                weight[:, of_group] = 0


def walked(folder, ids, method: str, **settings) -> tuple[Walk, Sources, dict]:
    from shortlm.sweep import open_job

    model = ModelSettings(model=str(folder))
    sources = Sources.of(model, WidthSettings(method=method, **({"drop_params": "20%"} | settings)))
    with open_job(model, ids, lambda files, shape: sources.work(shape)) as job:
        walk = Walk(job, sources.method, sources.narrowed)
        kept = walk.run(sources.counts) or sources.chosen(walk.scores)
    return walk, sources, kept


def test_flap_as_written_out(folder, ids):
    walk, _, _ = walked(folder, ids, "flap", shape="free")
    model = loaded(folder)
    for (i, part), scores in walk.scores.items():
        assert scores.tolist() == pytest.approx(plain_flap(model, i, part), rel=1e-4, abs=1e-4), (i, part)
    assert len(walk.scores) == 12


def test_wanda_block_by_block_on_what_is_pruned(folder, ids):
    """Every block is scored behind the blocks that are narrowed already."""
    walk, _, kept = walked(folder, ids, "wanda-sp")
    model = loaded(folder)
    for i in range(6):
        for part in (ATTENTION, FFN):
            expected = plain_wanda(model, i, part)
            assert walk.scores[i, part].tolist() == pytest.approx(expected, rel=1e-4), (i, part)
            order = sorted(range(len(expected)), key=lambda k: -expected[k])
            assert kept[i, part] == sorted(order[: len(kept[i, part])])
        for part in (ATTENTION, FFN):
            mask(model, i, part, kept[i, part])


def test_llm_pruner_as_written_out(folder, ids):
    walk, _, _ = walked(folder, ids, "llm-pruner")
    model = loaded(folder)
    logits = model(IDS).logits[:, :-1].flatten(0, 1)
    F.cross_entropy(logits, IDS[:, 1:].flatten()).backward()
    groups = model.config.num_key_value_heads
    for i, block in enumerate(model.model.layers):
        products = {name: (p * p.grad).abs().detach() for name, p in block.named_parameters()}
        head, share = WIDTH, HEADS // groups * WIDTH
        for k in range(groups):
            expected = sum(
                float(products[f"self_attn.{n}_proj.weight"][k * width : (k + 1) * width].sum())
                for n, width in (("q", share), ("k", head), ("v", head))
            ) + float(products["self_attn.o_proj.weight"][:, k * share : (k + 1) * share].sum())
            assert float(walk.scores[i, ATTENTION][k]) == pytest.approx(expected, rel=1e-4)
        for c in (0, 17, FFN_WIDTH - 1):
            expected = float(products["mlp.down_proj.weight"][:, c].sum())
            expected += sum(float(products[f"mlp.{n}_proj.weight"][c].sum()) for n in ("gate", "up"))
            assert float(walk.scores[i, FFN][c]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["flap", "flap:bias=false", "wanda-sp", "llm-pruner"])
@pytest.mark.parametrize("shape", ["even", "free"])
def test_a_real_narrower_checkpoint(folder, ids, tmp_path, method, shape):
    """Its logits are those of the dense model with columns at zero, and the means of what went as biases."""
    settings = WidthSettings(method=method, shape=shape, drop_params="25%")
    manifest = prune_width(ModelSettings(model=str(folder)), ids, settings, tmp_path / "out")
    step = manifest.steps[-1]
    assert isinstance(step, WidthStep) and step.equivalence and step.equivalence.max_abs_difference_cached is not None
    model, dense = open_model(ModelSettings(model=str(tmp_path / "out"))).model, loaded(folder)
    before = sum(p.numel() for p in dense.parameters())
    assert sum(p.numel() for p in model.parameters()) == step.parameters_after
    channel = 3 * 32 * (6 if shape == "even" else 1)
    head = 4 * WIDTH * 32 * HEADS // dense.config.num_key_value_heads
    assert abs(step.parameters_after - 0.75 * before) <= max(channel, head if method.startswith("flap") else 0)
    walk, _, kept = walked(folder, ids, method, shape=shape, drop_params="25%")
    biases = {}
    for (i, part), groups in kept.items():
        if step.bias:
            weight, mean = weight_of(dense, i, part), walk.means[i, part].float()
            gone = weight.clone()
            mask(dense, i, part, groups)
            biases[i, part] = (gone - weight_of(dense, i, part)) @ mean
        else:
            mask(dense, i, part, groups)
    hooks = [
        (dense.model.layers[i].self_attn.o_proj if part == ATTENTION else dense.model.layers[i].mlp.down_proj)
        .register_forward_hook(lambda m, args, out, b=bias: out + b)
        for (i, part), bias in biases.items()
    ]  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, dense(IDS).logits, atol=1e-4)
    assert hooks or not step.bias
    assert [len(w.heads) for w in step.widths] == [len(kept[i, ATTENTION]) for i in range(6)]


def test_llm_pruner_on_the_7b_shape():
    """Shortened LLaMA's baseline: a quarter of the heads and channels of blocks 4 to 29, from shapes alone."""
    config = AutoConfig.for_model(
        "llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        vocab_size=32000, tie_word_embeddings=False,
    )  # fmt: skip
    model = meta_model(config)
    total = sum(p.numel() for p in model.parameters())
    groups = [g for g in all_groups(find_anatomy(model)) if 4 <= g.block <= 29]
    (settings,) = narrowing_of("llm-pruner", width={})
    removed, counts = wanted(settings, total, groups)
    assert settings.blocks == "4-29" and total - removed == 5_422_977_024
    assert counts == {(i, part): 24 if part == ATTENTION else 8256 for i in range(4, 30) for part in (ATTENTION, FFN)}
    assert uniform(groups, removed) == counts
    heads = next(g for g in groups if g.part == ATTENTION)
    assert heads.parameters / next(g for g in groups if g.part == FFN).parameters == pytest.approx(512 / 3)


def test_one_order_of_heads_and_channels():
    """The lowest go, whatever they are, until as nearly as can be enough is gone; one of each stays in a block."""
    groups = all_groups(find_anatomy(tiny_model("llama", num_key_value_heads=4)))
    scores = {(g.block, g.part): torch.arange(g.count, dtype=torch.float64) + 10.0 * g.block for g in groups}
    one_head, one_channel = (next(g.parameters for g in groups if g.part == part) for part in (ATTENTION, FFN))
    kept = pooled(groups, scores, one_head + one_channel)
    assert kept[0, ATTENTION] == [1, 2, 3] and kept[0, FFN] == list(range(1, 48))
    kept = pooled(groups, scores, 3 * one_head + 6 * one_channel)
    assert kept[0, ATTENTION] == [3] and kept[0, FFN] == list(range(6, 48)) and kept[1, FFN] == list(range(48))
    kept = pooled(groups, scores, 3 * one_head + 12 * one_channel)
    assert kept[0, ATTENTION] == [3] and kept[0, FFN] == list(range(11, 48)) and kept[1, ATTENTION] == [0, 1, 2, 3]
    assert best({(0, FFN): torch.tensor([1.0, 3.0, 1.0, 3.0])}, {(0, FFN): 3}) == {(0, FFN): [0, 1, 3]}


@pytest.mark.parametrize("name", ["mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite", "smollm3"])
def test_other_architectures(name, ids, tmp_path):
    save_tiny(name, tmp_path / "m")
    model = ModelSettings(model=str(tmp_path / "m"))
    for method, shape in (("flap", "free"), ("wanda-sp", "even"), ("llm-pruner", "free")):
        settings = WidthSettings(method=method, shape=shape, drop_params="15%")
        step = prune_width(model, ids, settings, tmp_path / method).steps[-1]
        assert isinstance(step, WidthStep) and step.equivalence and step.parameters_after < step.found.parameters


@pytest.mark.parametrize(
    ("name", "why"),
    [("olmo2", "goes over all of its width"), ("gpt2", "the other way round"), ("phi3", "where its output takes"),
     ("mixtral", "can't be repaired or narrowed yet"), ("falcon", "where its output takes"),
     ("stablelm", "keeps the number of its heads"), ("opt", "keeps the number of its heads")],
)  # fmt: skip
def test_what_is_refused_by_name(name, why, ids, tmp_path):
    save_tiny(name, tmp_path / "m")
    with pytest.raises(ModelError, match=why):
        prune_width(
            ModelSettings(model=str(tmp_path / "m")),
            ids,
            WidthSettings(drop_params="40%", shape="free"),
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_bad_budgets_and_forms(folder, ids, tmp_path):
    model = ModelSettings(model=str(folder))

    def refused(**settings) -> str:
        with pytest.raises(PlanError) as error:
            prune_width(model, ids, WidthSettings(**settings), tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(error.value)

    assert refused() == "no budget is given; give one of --drop-params 20%, --to-params 5.4B, --ratio 25%"
    assert "--drop-params and --ratio are given" in refused(drop_params="20%", ratio="20%")
    assert "parameters can't be left: with one KV head and one channel" in refused(drop_params="99%")
    assert "a share between 0 and 100% is needed" in refused(drop_params="120%")
    assert "others would stay wider" in refused(drop_params="10%", blocks="1-3")
    assert "whole blocks are meant, of 0..5" in refused(drop_params="10%", blocks="1-30", shape="free")
    assert "unknown width method 'flop'; did you mean 'flap'" in refused(method="flop", drop_params="10%")
    assert "blocks keep what flap says" in refused(drop_params="10%", blocks="1-3", shape="free", form="plain")
    assert "can say this (blocks keep" in refused(
        method="wanda-sp", ratio="20%", blocks="1-3", shape="free", form="plain"
    )
    assert "leaves the model as large as it is" in refused(drop_params="0.1%")
    assert "leaves the model as large as it is" in refused(method="wanda-sp", ratio="1%")
    with pytest.raises(OutputError, match="would replace the model itself"):
        prune_width(model, ids, WidthSettings(drop_params="10%"), folder, force=True)


def test_a_plain_config_takes_heads_that_it_can_say(tmp_path, ids):
    """A Llama's config wants a number of heads that divides its width; channels make up for it."""
    save_tiny("llama", tmp_path / "m", num_key_value_heads=8, **LLAMA)
    model = ModelSettings(model=str(tmp_path / "m"))
    free = prune_width(model, ids, WidthSettings(method="wanda-sp", drop_params="25%"), tmp_path / "own").steps[-1]
    plain = prune_width(
        model, ids, WidthSettings(method="wanda-sp", drop_params="25%", form="plain"), tmp_path / "plain"
    ).steps[-1]
    assert isinstance(free, WidthStep) and isinstance(plain, WidthStep)
    assert (free.form, len(free.widths[0].heads)) == ("shortlm", 6)
    assert (plain.form, len(plain.widths[0].heads)) == ("plain", 8)
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["model_type"] == "llama"
    assert abs(free.parameters_after - plain.parameters_after) <= 6 * 96


def test_width_and_cut_in_either_order(folder, ids, tmp_path):
    model, width = ModelSettings(model=str(folder)), WidthSettings(drop_params="15%", shape="free")
    prune_width(model, ids, width, tmp_path / "narrow")
    narrow = ModelSettings(model=str(tmp_path / "narrow"))
    done = cut(narrow, [Unit(1), Unit(3, ATTENTION)], CutSettings(), tmp_path / "narrow-cut")
    assert [step.kind for step in done.steps] == ["width", "cut"] and done.blocks == [0, 2, 3, 4, 5]
    assert done.equivalence
    cut(model, [Unit(1), Unit(3, FFN)], CutSettings(), tmp_path / "cut")
    after = prune_width(ModelSettings(model=str(tmp_path / "cut")), ids, width, tmp_path / "cut-narrow")
    step = after.steps[-1]
    assert isinstance(step, WidthStep) and step.equivalence and step.widths[2].channels_before == 0
    assert [step.kind for step in after.steps] == ["cut", "width"]
    twice = prune_width(narrow, ids, width, tmp_path / "twice")
    assert [step.kind for step in twice.steps] == ["width", "width"]
    with pytest.raises(PlanError, match="has widths or biases that zeroed can't say"):
        cut(narrow, [Unit(1)], CutSettings(form="zeroed"), tmp_path / "zeroed")


def test_from_disk_block_by_block(folder, ids, tmp_path):
    for method in ("flap", "wanda-sp", "llm-pruner"):
        settings = WidthSettings(method=method, drop_params="20%", shape="free")
        steps = [
            prune_width(ModelSettings(model=str(folder), stream=stream), ids, settings, tmp_path / f"{method}-{stream}")
            .steps[-1]
            for stream in ("off", "on")
        ]  # fmt: skip
        assert isinstance(steps[0], WidthStep) and isinstance(steps[1], WidthStep)
        assert steps[0].widths == steps[1].widths and steps[1].equivalence and steps[1].equivalence.streamed


def test_the_command(folder, tmp_path, ids):
    args = ["prune-width", str(folder), "--ids", ids.ids, "--sequences", "0", "--drop-params", "20%"]
    result = CliRunner().invoke(app, [*args, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "KV heads and" in result.output and "equivalence check (float32)" in result.output
    assert Manifest.load(tmp_path / "out" / "manifest.json").steps[-1].kind == "width"
    again = CliRunner().invoke(app, [*args, "--out", str(tmp_path / "out")])
    assert again.exit_code == 2 and "--force" in again.stderr
    nowhere = CliRunner().invoke(app, args)
    assert nowhere.exit_code == 2 and "--out: give the folder of the narrower checkpoint" in nowhere.stderr
    plan = CliRunner().invoke(app, ["prune-width", str(folder), "--drop-params", "20%", "--length", "16", "--dry-run"])
    assert plan.exit_code == 0 and "flap" in plan.stdout and "peak" in plan.stdout


def test_a_narrow_model_is_repaired(folder, ids, tmp_path):
    """Refit begins in the first block that is narrower."""
    model = ModelSettings(model=str(folder))
    settings = WidthSettings(method="wanda-sp", drop_params="25%", shape="free", blocks="2-5")
    prune_width(model, ids, settings, tmp_path / "narrow")
    text = TextSettings(ids=ids.ids)
    manifest = repair(
        ModelSettings(model=str(tmp_path / "narrow")), model, text, RepairSettings(calibration=9, validation=3),
        tmp_path / "out", always=True,
    )  # fmt: skip
    step = manifest.repair
    assert step and {fold.block for fold in step.folds} == {2, 3, 4, 5}
    assert open_files(ModelSettings(model=str(tmp_path / "out"))).config.model_type == "shortlm"
    assert (
        importlib.import_module("shortlm.report.steps").commands(manifest, "base")[0].startswith("shortlm prune-width")
    )


def test_scale_and_linear_mend_gaps_only(folder, ids, tmp_path):
    model = ModelSettings(model=str(folder))
    prune_width(model, ids, WidthSettings(method="wanda-sp", drop_params="25%"), tmp_path / "narrow")
    for method in ("scale", "linear"):
        with pytest.raises(RepairError, match="none is missing, but some are narrower; give refit"):
            settings = RepairSettings(method=method, calibration=9, validation=3)
            repair(ModelSettings(model=str(tmp_path / "narrow")), model, ids, settings, tmp_path / "out")


def test_counts_that_fit_any_budget():
    """The same share of every block, in whole heads and channels, whatever the shapes."""
    few = all_groups(find_anatomy(tiny_model("llama", intermediate_size=16)))
    parameters = sum(g.count * g.parameters for g in few)
    for share in (0.02, 0.2, 0.35, 0.5, 0.6):
        counts = uniform(few, share * parameters)
        gone = sum((g.count - counts[g.block, g.part]) * g.parameters for g in few)
        assert all(0 < counts[g.block, g.part] <= g.count for g in few)
        assert abs(gone - share * parameters) <= max(g.parameters for g in few if g.part == FFN)
    with pytest.raises(PlanError, match="can't go where every block keeps a KV head and a channel"):
        uniform(few, 0.8 * parameters)
    heads_alone = [g for g in few if g.part == ATTENTION]
    half = sum(g.count * g.parameters for g in heads_alone) / 2
    assert uniform(heads_alone, half) == {(g.block, ATTENTION): 1 for g in heads_alone}


def test_commands_repeat_the_step(folder, ids, tmp_path):
    commands = importlib.import_module("shortlm.report.steps").commands
    model, text = ModelSettings(model=str(folder), dtype="float32"), ids.model_copy(update={"separator": " "})
    prune_width(model, text, WidthSettings(drop_params="20%", shape="free", blocks="1-3"), tmp_path / "a")
    manifest = prune_width(
        ModelSettings(model=str(tmp_path / "a")), ids, WidthSettings(method="wanda-sp", ratio="20%", shape="free"),
        tmp_path / "b",
    )  # fmt: skip
    first, second = commands(manifest, "base")
    assert first.startswith("shortlm prune-width base --method flap --shape free --ids ids.json --sequences 12")
    for option in ("--separator $' '", "--drop-params 20%", "--blocks 1-3", "--dtype float32"):
        assert option in first, option
    assert first.endswith("--out narrower-1") and second.startswith("shortlm prune-width narrower-1 --method wanda-sp")
