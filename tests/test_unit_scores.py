"""Scores of attention and FFN against plain references: hooks on a model's own forward, hand sums, autograd."""

from __future__ import annotations

from math import pi

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, BLOCKS, save_tiny, tiny_model
from processes import ended, run, started
from typer.testing import CliRunner

from shortlm.artifacts import BlockScores
from shortlm.cli import app
from shortlm.errors import ModelError, PlanError, RecipeError, ScoreError
from shortlm.model import find_anatomy, open_files, open_model, quiet
from shortlm.recipe import ChooseSettings, ModelSettings, ScoreSettings, TextSettings, validated
from shortlm.score import CRITERIA, plan_memory, score, score_model
from shortlm.score.scoring import work_of
from shortlm.sweep import BlockCaller, Scheduler, sublayer_states
from shortlm.text import windows_from_ids
from shortlm.units import Unit

IDS_BT = torch.randint(3, 96, (5, 16), generator=torch.Generator().manual_seed(2))
ALL_BT = torch.ones_like(IDS_BT, dtype=torch.bool)
# the modules whose output the residual stream gets, and whether both read the block's input
BRANCHES = {
    "llama": ("self_attn", "mlp", False),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm", False),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm", False),
    "gpt2": ("attn", "mlp", False),
    "gpt_neox": ("attention", "mlp", True),
    "phi": ("self_attn", "mlp", True),
    "falcon": ("self_attention", "mlp", True),
}
DATA = ["ppl", "bi", "relative_magnitude", "mse", "angular", "first_order", "taylor"]
EVERY = [*CRITERIA, "bi:shortgpt", "angular:pruneme", "depth:gromov", "taylor:batches=2"]


def scored(opened, criteria, units=("all",), ids=IDS_BT, schedule=None, **options):
    settings = ScoreSettings(criteria=list(criteria), units=list(units), resamples=0, batch_size=2, **options)
    return score_model(opened, windows_from_ids(ids, 96), settings, 0, schedule)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name: str) -> str:
        if name not in made:
            made[name] = str(tmp_path_factory.mktemp("units") / name)
            with quiet():
                save_tiny(name, made[name])
        return made[name]

    return folder


@pytest.fixture(scope="module")
def llama(folders):
    return open_model(ModelSettings(model=folders("llama")))


def plain_pairs(model, name: str) -> dict[Unit, tuple[torch.Tensor, torch.Tensor]]:
    """The residual stream before and behind every unit, from hooks on the model's own forward."""
    attention, ffn, is_parallel = BRANCHES[name]
    seen: dict[tuple[int, str], torch.Tensor] = {}
    hooks = []
    for i, block in enumerate(find_anatomy(model).blocks):
        for key, module in (("out", block), ("attention", getattr(block, attention)), ("ffn", getattr(block, ffn))):

            def note(m, args, output, i=i, key=key):
                seen[i, key] = (output[0] if isinstance(output, tuple) else output).clone()  # Falcon adds in place

            hooks.append(module.register_forward_hook(note))
        hooks.append(block.register_forward_pre_hook(lambda m, args, i=i: seen.update({(i, "in"): args[0]})))
    model(input_ids=IDS_BT, use_cache=False)
    for hook in hooks:
        hook.remove()
    pairs = {}
    for i in range(BLOCKS):
        before, middle = seen[i, "in"], seen[i, "in"] + seen[i, "attention"]
        start = before if is_parallel else middle
        pairs[Unit(i)] = (before, seen[i, "out"])
        pairs[Unit(i, "attention")] = (before, middle)
        pairs[Unit(i, "ffn")] = (start, start + seen[i, "ffn"])
    return pairs


@pytest.mark.parametrize("name", BRANCHES)
def test_states_around_sublayers(folders, name):
    opened = open_model(ModelSettings(model=folders(name)))
    result = scored(opened, ["bi", "relative_magnitude", "mse", "angular"])
    pairs = plain_pairs(opened.model, name)
    assert result.units == list(pairs)
    for row, (before, after) in enumerate(p for p in pairs.values()):
        a, b = before.double(), after.double()
        plain = {
            "bi": (1 - F.cosine_similarity(a, b, -1)).mean(),
            "relative_magnitude": ((b - a).norm(dim=-1) / b.norm(dim=-1)).mean(),
            "mse": (b - a).square().sum(-1).mean(),
            "angular": (F.cosine_similarity(a[:, -1], b[:, -1], -1).acos() / pi).mean(),
        }
        for spec, expected in plain.items():
            assert result.criteria[spec].scores[row] == pytest.approx(float(expected), rel=1e-4), (spec, row)
    assert result.criteria["angular"].table is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_contributions_of_sublayers_add_up(name):
    """Whatever the order of the branches, what both add is what the block adds."""
    model = tiny_model(name)
    caller = BlockCaller(model, find_anatomy(model))
    batch = caller.prepare(IDS_BT, ALL_BT)
    with torch.no_grad():
        for i in range(BLOCKS):
            out_BTD = caller(i, batch.h_BTD, batch)
            before = caller.forwards
            states = sublayer_states(caller, i, batch.h_BTD, out_BTD, batch)
            assert caller.forwards == before + 2
            added = {part: behind - start for part, (start, behind) in states.items()}
            assert torch.allclose(added["attention"] + added["ffn"], added["block"], atol=1e-5)
            is_parallel = states["ffn"][0] is batch.h_BTD
            assert is_parallel == (name in ("phi", "gpt_neox", "falcon"))


@pytest.mark.parametrize("name", ["bloom", "gptj"])
def test_branches_that_add_to_the_residual_themselves_and_parallel_ones_of_other_names(name):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96, "n_embd": 32, "rotary_dim": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes)).eval().requires_grad_(False)
    caller = BlockCaller(model, find_anatomy(model))
    batch = caller.prepare(IDS_BT, ALL_BT)
    with torch.no_grad():
        out_BTD = caller(0, batch.h_BTD, batch)
        states = sublayer_states(caller, 0, batch.h_BTD, out_BTD, batch)
    assert (states["ffn"][0] is batch.h_BTD) == (name == "gptj")
    assert (states["ffn"][1] is out_BTD) == (name == "bloom")
    added = {part: behind - start for part, (start, behind) in states.items()}
    assert torch.allclose(added["attention"] + added["ffn"], added["block"], atol=1e-5)


def test_a_sequential_block_whose_attention_adds_nothing(tmp_path):
    """It looks parallel; then both ways of seeing it are one."""
    model = tiny_model("llama")
    model.model.layers[0].self_attn.o_proj.weight.zero_()
    with quiet():
        model.save_pretrained(tmp_path)
    result = scored(open_model(ModelSettings(model=str(tmp_path))), ["bi", "mse", "taylor"]).criteria
    for spec in ("bi", "mse"):
        assert result[spec].scores[1] == 0
        assert result[spec].scores[2] == result[spec].scores[0]


@pytest.mark.parametrize("name", BRANCHES)
def test_perplexity_without_each_sublayer(folders, name):
    opened = open_model(ModelSettings(model=folders(name)))
    result = scored(opened, ["ppl"], ["attention", "ffn"])
    blocks = opened.anatomy.blocks
    for row, unit in enumerate(result.units):
        module = getattr(blocks[unit.block], BRANCHES[name][unit.part == "ffn"])
        hook = module.register_forward_hook(
            lambda m, args, out: (out[0] * 0, *out[1:]) if isinstance(out, tuple) else out * 0
        )
        logits_BTV = opened.model(input_ids=IDS_BT, use_cache=False).logits
        hook.remove()
        expected = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten()).exp()
        assert result.criteria["ppl"].scores[row] == pytest.approx(float(expected), rel=1e-5), unit


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_weights_of_sublayers(folders, name):
    """Norms beside them count for the block alone."""
    opened = open_model(ModelSettings(model=folders(name)))
    result = scored(opened, ["magnitude", "taylor"])
    model = tiny_model(name).requires_grad_(True)
    logits_BTV = model(input_ids=IDS_BT, use_cache=False).logits
    F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten()).backward()
    children = {"llama": ("self_attn", "mlp"), "gpt_neox": ("attention", "mlp")}[name]
    for row, unit in enumerate(result.units):
        block = find_anatomy(model).blocks[unit.block]
        part = block if unit.part == "block" else getattr(block, children[unit.part == "ffn"])
        weights = [p for n, p in part.named_parameters() if "bias" not in n]
        magnitude = sum(float(w.detach().abs().sum()) for w in weights)
        taylor = sum(float((w.detach() * w.grad).abs().sum()) for w in weights)
        assert result.criteria["magnitude"].scores[row] == pytest.approx(magnitude, rel=1e-5)
        assert result.criteria["taylor"].scores[row] == pytest.approx(taylor, rel=1e-4)
        shares = result.criteria["taylor"].per_sequence[row]
        assert sum(shares) / len(shares) == pytest.approx(taylor, rel=1e-4)
    scores = result.criteria["magnitude"].scores
    assert all(scores[row] > scores[row + 1] + scores[row + 2] for row in range(0, 3 * BLOCKS, 3))


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_first_order_of_sublayers(folders, name):
    """The gradient behind the block by autograd, times how the block's output changes without the sublayer."""
    opened = open_model(ModelSettings(model=folders(name)))
    result = scored(opened, ["first_order"]).criteria["first_order"]
    blocks, grads, outs = opened.anatomy.blocks, {}, {}

    def watch(i):
        def hook(m, args, output):
            outs[i] = output[0] if isinstance(output, tuple) else output
            if not outs[i].requires_grad:
                outs[i].requires_grad_(True)
            outs[i].register_hook(lambda grad: grads.update({i: grad}))

        return blocks[i].register_forward_hook(hook)

    hooks = [watch(i) for i in range(BLOCKS)]
    logits_BTV = opened.model(input_ids=IDS_BT, use_cache=False).logits
    F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten()).backward()
    for hook in hooks:
        hook.remove()
    for i in range(BLOCKS):
        for part in range(2):
            without = output_without(opened.model, blocks[i], BRANCHES[name][part])
            expected = float((grads[i] * (without - outs[i].detach())).sum())
            assert result.scores[3 * i + 1 + part] == pytest.approx(expected, rel=1e-3, abs=1e-7), (i, part)


def output_without(model, block, child: str) -> torch.Tensor:
    """What one block of the whole model gives if one of its modules' output is zeros."""
    found = []
    hooks = [
        getattr(block, child).register_forward_hook(
            lambda m, args, out: (out[0] * 0, *out[1:]) if isinstance(out, tuple) else out * 0
        ),
        block.register_forward_hook(lambda m, args, out: found.append(out[0] if isinstance(out, tuple) else out)),
    ]
    with torch.no_grad():
        model(input_ids=IDS_BT, use_cache=False)
    for hook in hooks:
        hook.remove()
    return found[0]


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_only_the_models_last_state_is_seen_behind_the_final_norm(folders, name):
    opened = open_model(ModelSettings(model=folders(name)))
    found = scored(opened, ["bi", "bi:shortgpt"]).criteria
    tokens = IDS_BT.numel()
    differing = [
        row
        for row, (ours, published) in enumerate(zip(found["bi"].scores, found["bi:shortgpt"].scores, strict=True))
        if published != pytest.approx(ours * tokens, rel=1e-4)
    ]
    last = 3 * (BLOCKS - 1)
    assert differing == {"llama": [last, last + 2], "gpt_neox": [last]}[name]


def test_scores_of_blocks_are_the_same_among_those_of_sublayers(llama):
    every, blocks = scored(llama, EVERY), scored(llama, EVERY, ["blocks"])
    assert blocks.units == [] and every.units[:3] == [Unit(0), Unit(0, "attention"), Unit(0, "ffn")]
    for spec in set(EVERY) - {"random", "depth", "depth:gromov"}:
        assert every.criteria[spec].scores[::3] == pytest.approx(blocks.criteria[spec].scores, rel=1e-5), spec
    assert len(set(every.criteria["random"].scores)) == 3 * BLOCKS
    assert every.criteria["depth"].order() == list(range(3 * BLOCKS))[::-1]
    assert every.criteria["depth:gromov"].order()[-3:] == [17, 16, 15]
    for units in (["attention"], ["ffn"]):
        alone = scored(llama, EVERY, units)
        row = 1 if units == ["attention"] else 2
        for spec in set(EVERY) - {"random", "depth", "depth:gromov"}:
            assert alone.criteria[spec].scores == pytest.approx(every.criteria[spec].scores[row::3], rel=1e-5), spec


@pytest.mark.parametrize("stream", ["on", "off"])
@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("units", ["attention", "attention,ffn", "all"])
@pytest.mark.parametrize("criteria", [["ppl"], ["bi", "mse"], ["taylor"], ["first_order"], DATA, ["magnitude"]])
def test_counts_are_those_of_the_work(folders, criteria, units, together, stream):
    files = open_files(ModelSettings(model=folders("llama"), stream=stream))
    settings = ScoreSettings(criteria=criteria, units=units.split(","), resamples=0)
    windows = None if criteria == ["magnitude"] else windows_from_ids(IDS_BT, 96)
    work = work_of(criteria, windows.shape if windows else (0, 0), True, settings.parts())
    plan = Scheduler.of(files).schedule(work, stream == "on", 2, together)
    scores = score_model(files.open(plan.streamed), windows, settings, 0, plan)
    assert plan.block_forwards == scores.block_forwards


@pytest.mark.parametrize("name", ["llama", "phi"])
def test_from_disk_and_in_chunks_the_scores_are_the_same(folders, name):
    files = open_files(ModelSettings(model=folders(name), stream="on"))
    expected = scored(files.open(False), EVERY)
    scheduler = Scheduler.of(files)
    work = work_of(EVERY, tuple(IDS_BT.shape), True, ("block", "attention", "ffn"))
    wide, narrow = scheduler.schedule(work, True, 2, 3), scheduler.schedule(work, True, 2, 1, most=4)
    assert (wide.chunks, narrow.chunks) == (1, 5)
    for plan in (wide, narrow):
        found = scored(files.open(True), EVERY, schedule=plan)
        assert found.block_forwards == plan.block_forwards
        for spec in EVERY:
            assert found.criteria[spec].scores == pytest.approx(expected.criteria[spec].scores, rel=1e-5), spec


def test_ragged_sequences(llama):
    rows = [row[: 16 - 3 * i] for i, row in enumerate(IDS_BT.tolist())]
    found = scored(llama, ["bi", "angular"], ids=rows).criteria
    alone = [scored(llama, ["bi", "angular"], ids=[row]).criteria for row in rows]
    for row in range(3 * BLOCKS):
        angles = [a["angular"].scores[row] for a in alone]
        assert found["angular"].scores[row] == pytest.approx(sum(angles) / len(rows), rel=1e-5)
        turned = sum(a["bi"].scores[row] * len(r) for a, r in zip(alone, rows, strict=True))
        assert found["bi"].scores[row] == pytest.approx(turned / sum(map(len, rows)), rel=1e-5)


def test_two_processes_agree_with_one(tmp_path):
    found = []
    criteria = "ppl,taylor,bi,angular,magnitude,first_order,mse"
    for size in (1, 2):
        out = tmp_path / f"{size}.json"
        args = [
            "score",
            "embedded",
            "--sequences",
            5,
            "--length",
            32,
            "--criteria",
            criteria,
            "--units",
            "attention,ffn",
        ]
        done = ended(started(run(*args, "--resamples", 0, "--out", out), size))
        assert [code for code, _, _ in done] == [0] * size, done
        found.append(BlockScores.load(out))
    one, two = found
    assert two.units == one.units and two.processes == 2
    for spec, expected in one.criteria.items():
        assert two.criteria[spec].scores == pytest.approx(expected.scores, rel=1e-6), spec
        for mine, theirs in zip(two.criteria[spec].per_sequence or [], expected.per_sequence or [], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-7), spec


def test_what_the_commands_print_and_write(tmp_path, folders):
    out = tmp_path / "scores.json"
    args = ["--model", folders("llama"), "--units", "attention,ffn", "--criteria", "magnitude,depth", "--out", str(out)]
    shown = CliRunner().invoke(app, ["score", *args])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert any("score and rank of each unit" in line for line in lines)
    assert [line.split()[0] for line in lines if ".attention" in line] == [f"{i}.attention" for i in range(BLOCKS)]
    assert BlockScores.load(out).rows[:2] == [Unit(0, "attention"), Unit(0, "ffn")]
    planned = CliRunner().invoke(
        app, ["plan-memory", "--model", folders("llama"), "--units", "ffn", "-c", "ppl", "--length", "16"]
    )
    assert planned.exit_code == 0, planned.output
    chosen = CliRunner().invoke(app, ["choose", str(out), "--blocks", "1"])
    assert chosen.exit_code == 2 and isinstance(chosen.exception, SystemExit | PlanError)  # all are protected
    chosen = CliRunner().invoke(app, ["choose", str(out), "--blocks", "1", "--protect", "ends"])
    assert chosen.exit_code == 0, chosen.output
    assert "of others: " in chosen.stdout


def test_plans_count_units(folders):
    model, text = ModelSettings(model=folders("llama"), dtype="float32"), TextSettings(length=15, sequences=4)
    forwards = {}
    for units in (["blocks"], ["attention", "ffn"], ["all"]):
        settings = ScoreSettings(criteria=["ppl", "bi", "taylor", "first_order", "magnitude"], units=units)
        plan = plan_memory(model, text, settings, measure=False)
        forwards[units[0]] = {row.name: row.block_forwards for row in plan.rows}
    assert forwards["blocks"]["ppl"] == BLOCKS * (BLOCKS + 1) // 2
    assert forwards["attention"]["ppl"] == BLOCKS + 2 * BLOCKS * (BLOCKS + 1) // 2
    assert forwards["attention"]["bi"] == 3 * BLOCKS
    assert forwards["all"]["taylor"] == forwards["blocks"]["taylor"] + 2 * BLOCKS


def test_times_of_units_are_measured(folders, monkeypatch):
    monkeypatch.setattr("shortlm.sweep.timing.SECONDS", 0.01)
    settings = ScoreSettings(criteria=["bi", "first_order", "taylor", "magnitude"], units=["attention", "ffn"])
    text = TextSettings(length=15, sequences=4)
    assert all(row.seconds > 0 for row in plan_memory(ModelSettings(model=folders("llama")), text, settings).rows)


def test_more_masks_take_more_memory(folders):
    scheduler = Scheduler.of(open_files(ModelSettings(model=folders("llama"), stream="on")))
    shape, peaks = (64, 128), []
    for parts in (("block",), ("attention", "ffn"), ("block", "attention", "ffn")):
        plan = scheduler.schedule(work_of(["ppl", "bi"], shape, True, parts), True, 4, 16)
        peaks.append(plan.parts["hidden states"])
    state = 64 * 128 * 32 * 4
    assert [peak - peaks[0] for peak in peaks] == [0, BLOCKS * state, 2 * BLOCKS * state]


def test_what_a_model_lacks_is_refused_by_name(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "mamba", hidden_size=16, num_hidden_layers=2, vocab_size=96, state_size=4, intermediate_size=32
    )
    with quiet():
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model, text = ModelSettings(model=str(tmp_path)), TextSettings(ids=str(tmp_path / "none.json"))
    message = "MambaBlock: has no ffn that can be told apart in block 0; only whole blocks can be left out"
    with pytest.raises(ModelError, match=message):  # before the text is looked for
        score(model, text, ScoreSettings(criteria=["ppl"], units=["ffn"]))
    with pytest.raises(ModelError, match=message):
        plan_memory(model, TextSettings(), ScoreSettings(criteria=["ppl"], units=["all"]), measure=False)
    with pytest.raises(ModelError, match=message):
        score_model(open_model(model), None, ScoreSettings(criteria=["magnitude"], units=["ffn"]))
    attention = ScoreSettings(criteria=["ppl", "bi"], units=["blocks", "attention"], resamples=0)
    found = score_model(open_model(model), windows_from_ids(IDS_BT, 96), attention).criteria
    for scores in (found["ppl"].scores, found["bi"].scores):
        assert scores[1::2] == pytest.approx(scores[::2], rel=1e-6)  # its mixer is all there is


def test_a_score_that_is_no_number_names_the_sublayer(tmp_path):
    model = tiny_model("llama")
    model.model.layers[3].mlp.down_proj.weight[0, 0] = float("nan")
    with quiet():
        model.save_pretrained(tmp_path)
    settings = ScoreSettings(criteria=["magnitude"], units=["attention", "ffn"])
    with pytest.raises(ScoreError, match=r"'magnitude': the score of sublayer 3.ffn is nan; check the sublayer's"):
        score_model(open_model(ModelSettings(model=str(tmp_path))), None, settings)


def test_wrong_units_races_and_choices_are_told_in_a_line(llama):
    with pytest.raises(RecipeError, match="--units: input should be 'blocks', 'attention', 'ffn' or 'all'"):
        validated(ScoreSettings, {"units": ["mlp"]})
    from shortlm.choose import choose, race_scores

    race = ScoreSettings(criteria=["ppl"], select="2", units=["ffn"])
    with pytest.raises(ScoreError, match="--select 2: a race is for whole blocks; give --units blocks, or leave"):
        race_scores(ModelSettings(model=llama.facts.name), TextSettings(), race)
    with pytest.raises(PlanError, match="not of all of the units that may go; score with --units blocks"):
        choose(scored(llama, ["magnitude"], ["ffn"]), ChooseSettings(blocks=1, units=["blocks"], protect="none"))
