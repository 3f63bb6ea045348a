"""Each criterion against its formula written out plainly; known answers; errors."""

from __future__ import annotations

import random
from math import pi

import pytest
import torch
import torch.nn.functional as F
from architectures import BLOCKS, save_tiny, tiny_model

from shortlm.errors import ModelError, ScoreError
from shortlm.model import open_for_scoring, open_model, quiet
from shortlm.recipe import ModelSettings, ScoreSettings, TextSettings
from shortlm.score import parse, score, score_model
from shortlm.text import windows_from_ids

IDS_BT = torch.randint(3, 96, (5, 20), generator=torch.Generator().manual_seed(2))
DATA_DRIVEN = ["ppl", "taylor", "bi", "angular", "relative_magnitude", "mse", "first_order"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    with quiet():
        save_tiny("llama", folder)
    return open_model(ModelSettings(model=str(folder)))


def scored(opened, *criteria, ids=IDS_BT, resamples=50, batch_size=2):
    settings = ScoreSettings(criteria=list(criteria), resamples=resamples, batch_size=batch_size)
    return score_model(opened, windows_from_ids(ids, 96), settings).criteria


@pytest.fixture(scope="module")
def hidden(opened):
    """h_0 .. h_L, h_L before the final norm."""
    states = []
    hooks = [b.register_forward_hook(lambda m, args, out: states.append((args[0], out))) for b in opened.anatomy.blocks]
    opened.model(input_ids=IDS_BT, use_cache=False)
    for hook in hooks:
        hook.remove()
    return [a for a, _ in states] + [states[-1][1]]


def test_block_influence(opened, hidden):
    result = scored(opened, "bi", "bi:shortgpt")
    plain = [
        float((1 - F.cosine_similarity(hidden[i].double(), hidden[i + 1].double(), -1)).mean()) for i in range(BLOCKS)
    ]
    assert result["bi"].scores == pytest.approx(plain, rel=1e-5)
    last = opened.anatomy.norm(hidden[-1])
    published = [p * IDS_BT.numel() for p in plain[:-1]]
    published.append(float((1 - F.cosine_similarity(hidden[-2].double(), last.double(), -1)).sum()))
    assert result["bi:shortgpt"].scores == pytest.approx(published, rel=1e-5)


def test_relative_magnitude_and_mse(opened, hidden):
    result = scored(opened, "relative_magnitude", "mse")
    ratio = [
        float(((hidden[i + 1] - hidden[i]).norm(dim=-1) / hidden[i + 1].norm(dim=-1)).mean()) for i in range(BLOCKS)
    ]
    square = [float((hidden[i + 1] - hidden[i]).square().sum(-1).mean()) for i in range(BLOCKS)]
    assert result["relative_magnitude"].scores == pytest.approx(ratio, rel=1e-5)
    assert result["mse"].scores == pytest.approx(square, rel=1e-5)


def test_angular_table(opened, hidden):
    result = scored(opened, "angular")["angular"]
    for n in range(1, BLOCKS + 1):
        for start in range(BLOCKS - n + 1):
            cosine = F.cosine_similarity(hidden[start][:, -1].double(), hidden[start + n][:, -1].double(), -1)
            assert result.table[n - 1][start] == pytest.approx(
                float((cosine.clamp(-1, 1).acos() / pi).mean()), rel=1e-5
            )
    assert result.scores == pytest.approx(result.table[0])


def test_angular_looks_at_the_last_real_token(opened):
    rows = [row[: 20 - 3 * i] for i, row in enumerate(IDS_BT.tolist())]
    ragged = scored(opened, "angular", "bi", ids=rows, resamples=0)
    alone = [scored(opened, "angular", "bi", ids=[row], resamples=0) for row in rows]
    mean = [sum(a["angular"].scores[i] for a in alone) / len(rows) for i in range(BLOCKS)]
    assert ragged["angular"].scores == pytest.approx(mean, rel=1e-5)
    tokens = sum(map(len, rows))
    weighted = [
        sum(a["bi"].scores[i] * len(r) for a, r in zip(alone, rows, strict=True)) / tokens for i in range(BLOCKS)
    ]
    assert ragged["bi"].scores == pytest.approx(weighted, rel=1e-5)


def test_magnitude(opened):
    result = scored(opened, "magnitude", "magnitude:p=2", "magnitude:weights=mean,block=max")
    for i, block in enumerate(opened.anatomy.blocks):
        weights = [w for _, w in block.named_parameters()]
        assert result["magnitude"].scores[i] == pytest.approx(sum(float(w.abs().sum()) for w in weights), rel=1e-5)
        assert result["magnitude:p=2"].scores[i] == pytest.approx(sum(float((w * w).sum()) for w in weights), rel=1e-5)
        expected = max(float(w.abs().mean()) for w in weights)
        assert result["magnitude:weights=mean,block=max"].scores[i] == pytest.approx(expected, rel=1e-5)


def test_magnitude_leaves_biases_out(tmp_path):
    with quiet():
        save_tiny("gpt2", tmp_path)
    opened = open_model(ModelSettings(model=str(tmp_path)))
    settings = ScoreSettings(criteria=["magnitude"])
    result = score_model(opened, None, settings).criteria["magnitude"]
    block = opened.anatomy.blocks[0]
    expected = sum(float(w.abs().sum()) for n, w in block.named_parameters() if not n.endswith("bias"))
    assert result.scores[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batches", [1, 2])
def test_taylor_and_its_shares(opened, batches):
    spec = f"taylor:batches={batches}"
    result = scored(opened, spec, ids=IDS_BT[:4])[spec]
    model = tiny_model("llama").requires_grad_(True)
    for part in IDS_BT[:4].chunk(batches):
        logits_BTV = model(input_ids=part, use_cache=False).logits
        F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), part[:, 1:].flatten()).backward()
    for i, block in enumerate(model.model.layers):
        expected = sum(float((w.detach() * w.grad).abs().sum()) for w in block.parameters())
        assert result.scores[i] == pytest.approx(expected, rel=1e-4)
        assert sum(result.per_sequence[i]) / 4 == pytest.approx(expected, rel=1e-4)


def test_first_order_is_the_derivative_towards_bypassing(opened, hidden):
    result = scored(opened, "first_order")["first_order"]
    block, step = opened.anatomy.blocks[2], 1e-3

    def loss(scale):
        hook = block.register_forward_hook(lambda m, args, out: out + scale * (args[0] - out))
        logits_BTV = opened.model(input_ids=IDS_BT, use_cache=False).logits.double()
        hook.remove()
        return float(F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten()))

    assert result.scores[2] == pytest.approx((loss(step) - loss(-step)) / (2 * step), rel=2e-2)


def test_random_and_depth(opened):
    settings = ScoreSettings(criteria=["random", "depth", "depth:gromov", "random:seed=5"])
    first, second = (score_model(opened, None, settings, seed=s).criteria for s in (0, 1))
    assert first["random"].scores != second["random"].scores
    assert first["random:seed=5"].scores == second["random:seed=5"].scores
    assert first["depth"].order() == [5, 4, 3, 2, 1, 0]
    assert first["depth:gromov"].order() == [4, 3, 2, 1, 0, 5]


@pytest.mark.parametrize("stream", ["off", "on"])
@pytest.mark.parametrize(("dtype", "strength"), [("float32", 0.1), ("bfloat16", 10.0)])
@pytest.mark.parametrize("criterion", ["bi", "ppl"])
def test_blocks_that_depend_on_one_another_are_refused(opened, monkeypatch, stream, dtype, strength, criterion):
    """A made-up architecture: block 3 adds some of what block 1 saw last, which no argument of block 3 tells."""
    model = open_for_scoring(ModelSettings(model=opened.facts.name, stream=stream, dtype=dtype))
    first, third = model.anatomy.blocks[1], model.anatomy.blocks[3]
    kept, original = {}, third.forward
    hook = first.register_forward_pre_hook(lambda m, args: kept.update(h=args[0].mean(0, keepdim=True)))
    monkeypatch.setattr(
        third, "forward", lambda h, *args, **kwargs: original(h, *args, **kwargs) + strength * kept["h"], raising=False
    )
    with pytest.raises(ModelError, match=r"llama: the loss by single blocks .* is not the model's"):
        score_model(model, windows_from_ids(IDS_BT, 96), ScoreSettings(criteria=[criterion], resamples=0))
    unchecked = ScoreSettings(criteria=[criterion], resamples=0, check=False)
    assert score_model(model, windows_from_ids(IDS_BT, 96), unchecked).criteria
    hook.remove()


def test_blocks_that_take_turns_in_another_order_are_refused(opened, monkeypatch):
    model = open_model(ModelSettings(model=opened.facts.name))
    layers = list(model.model.model.layers)
    layers[3], layers[4] = layers[4], layers[3]
    monkeypatch.setattr(model.model.model, "layers", torch.nn.ModuleList(layers))
    with pytest.raises(ModelError, match="LlamaForCausalLM: its blocks are not called one after the other"):
        score_model(model, windows_from_ids(IDS_BT, 96), ScoreSettings(criteria=["bi"], resamples=0))


def test_batch_size_does_not_matter(opened):
    one, all_ = (scored(opened, *DATA_DRIVEN, batch_size=b, resamples=0) for b in (1, 5))
    for name in DATA_DRIVEN:
        assert one[name].scores == pytest.approx(all_[name].scores, rel=1e-4), name


@pytest.mark.parametrize("idle", [[1, 4], [0, 2, 5]])
def test_blocks_that_do_nothing(tmp_path, idle):
    """In a random model other blocks may even harm the loss; what an idle block scores is known exactly."""
    model = tiny_model("llama")
    for i in idle:
        model.model.layers[i].self_attn.o_proj.weight.zero_()
        model.model.layers[i].mlp.down_proj.weight.zero_()
    with quiet():
        model.save_pretrained(tmp_path)
    result = scored(open_model(ModelSettings(model=str(tmp_path))), *DATA_DRIVEN)
    for name in ("bi", "angular", "relative_magnitude", "mse", "taylor"):
        assert sorted(result[name].order()[: len(idle)]) == idle, name
    for i in idle:
        assert result["ppl"].scores[i] == result["ppl"].scores[idle[0]]
        assert result["bi"].scores[i] == result["angular"].scores[i] == result["mse"].scores[i] == 0
        assert result["first_order"].scores[i] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_idle_blocks_hidden_in_the_embedded_model(tmp_path, seed):
    """Known answer: blocks that do nothing, at random places, come first by every criterion that says how much a
    block does. first_order says how the loss would change, which may be an improvement; an idle block's is 0.
    """
    idle = hide_idle_blocks(tmp_path, count=4, seed=seed)
    text = TextSettings(text="embedded", sequences=8, seed=100 + seed)
    result = score(ModelSettings(model=str(tmp_path)), text, ScoreSettings(criteria=DATA_DRIVEN)).criteria
    assert [result["first_order"].scores[i] for i in idle] == pytest.approx([0] * len(idle), abs=1e-9)
    for name in DATA_DRIVEN[:-1]:
        assert sorted(result[name].order()[: len(idle)]) == idle, name


def hide_idle_blocks(folder, count: int, seed: int) -> list[int]:
    """The embedded model with `count` copies of its blocks that add nothing, at random places of the result."""
    original = open_model(ModelSettings())
    total = original.facts.n_blocks + count
    idle = sorted(random.Random(seed).sample(range(total), count))
    config = type(original.model.config).from_dict(original.model.config.to_dict() | {"num_hidden_layers": total})
    longer = type(original.model)(config)
    longer.load_state_dict(original.model.state_dict(), strict=False)
    sources = iter(original.anatomy.blocks)
    last = original.anatomy.blocks[0]
    for i, block in enumerate(longer.model.layers):
        last = last if i in idle else next(sources)
        block.load_state_dict(last.state_dict())
        if i in idle:
            block.self_attn.o_proj.weight.data.zero_()
            block.mlp.down_proj.weight.data.zero_()
    with quiet():
        longer.save_pretrained(folder)
        original.tokenizer.save_pretrained(folder)
    return idle


def test_idle_blocks_of_a_real_model(shared):
    """first_order is left out: it says how much the loss would change, which may be negative for a real block."""
    import json

    folder = shared / "data" / "models" / "stories260K-planted"
    idle = json.loads((folder / "planted.json").read_text())["idle_blocks"]
    names = ["ppl", "taylor", "bi", "angular", "relative_magnitude", "mse"]
    text = TextSettings(text=str(shared / "data" / "text" / "tinystories.jsonl"), sequences=8)
    result = score(ModelSettings(model=str(folder)), text, ScoreSettings(criteria=names)).criteria
    for name in names:
        assert sorted(result[name].order()[: len(idle)]) == idle, name


def test_standard_errors_and_ranks(opened):
    result = scored(opened, "ppl", "bi", resamples=200)
    nats_LS = torch.tensor(result["ppl"].per_sequence)
    plain = nats_LS.std(1) / 5**0.5 * nats_LS.mean(1).exp()
    assert result["ppl"].stderr == pytest.approx(plain.tolist(), rel=1e-4)
    increase_LS = nats_LS - torch.tensor(base_nats(opened))
    assert result["ppl"].paired_stderr == pytest.approx(
        (increase_LS.std(1) / 5**0.5 * nats_LS.mean(1).exp()).tolist(), rel=1e-4
    )
    assert all(low <= high for low, high in result["bi"].rank_interval)
    assert -1 <= result["bi"].rank_agreement <= 1
    same = scored(opened, "bi", ids=IDS_BT[:1].repeat(4, 1))["bi"]
    assert same.rank_agreement == 1 and same.stderr == pytest.approx([0] * BLOCKS, abs=1e-9)


def base_nats(opened) -> list[float]:
    logits_BTV = opened.model(input_ids=IDS_BT, use_cache=False).logits
    return [float(F.cross_entropy(row[:-1], ids[1:])) for row, ids in zip(logits_BTV, IDS_BT, strict=True)]


def test_one_sweep_feeds_all(opened):
    windows = windows_from_ids(IDS_BT, 96)
    scores = score_model(opened, windows, ScoreSettings(criteria=["ppl", "bi", "angular", "mse"], batch_size=5))
    assert scores.block_forwards == BLOCKS * (BLOCKS + 1) // 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_names_the_block(tmp_path, bad):
    model = tiny_model("llama")
    model.model.layers[3].mlp.down_proj.weight[0, 0] = bad
    with quiet():
        model.save_pretrained(tmp_path)
    opened = open_model(ModelSettings(model=str(tmp_path)))
    with pytest.raises(
        ScoreError, match=r"criterion 'magnitude': the score of block 3 is (nan|inf); check the block's weights"
    ):
        score_model(opened, None, ScoreSettings(criteria=["magnitude"]))
    with pytest.raises(
        ScoreError, match="block 3 makes NaN or inf of finite states; check its weights, or use --dtype float32"
    ):
        score_model(opened, windows_from_ids(IDS_BT, 96), ScoreSettings(criteria=["bi"]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tailor", "unknown criterion 'tailor'; did you mean 'taylor'?"),
        ("xyz", "unknown criterion 'xyz'; known: angular, bi, depth,"),
        ("bi:shortgtp", "criterion 'bi': unknown preset 'shortgtp'; did you mean 'shortgpt'?"),
        ("magnitude:q=2", "criterion 'magnitude:q=2': unknown option 'q'; known: block, p, weights"),
        ("magnitude:p=3", "criterion 'magnitude:p=3': p is '3'; known: 1, 2"),
        ("taylor:batches=0", "criterion 'taylor:batches=0': batches is 0; at least 1 is needed"),
        ("random:seed=x", "criterion 'random:seed=x': seed is 'x'; a whole number"),
        ("ppl:a=1", "criterion 'ppl:a=1': unknown option 'a'; it has none"),
    ],
)
def test_bad_criteria(spec, message):
    with pytest.raises(ScoreError) as error:
        parse(spec)
    assert message in str(error.value)
