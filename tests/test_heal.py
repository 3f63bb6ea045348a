"""Healing: micro-batches, losses, one phase after the other, against plain references."""

from __future__ import annotations

import json
import math
import os
import shutil
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, save_tiny, tiny_model
from filelock import FileLock
from old_manifests import of_one_cut
from pydantic import ValidationError

from shortlm.artifacts import Healing, Manifest
from shortlm.checkpoint import open_checkpoint
from shortlm.embedded import model_path
from shortlm.errors import HealError, ModelError, OutputError, RecipeError, TextError
from shortlm.heal import Cluster, estimate_healing, heal
from shortlm.heal.adapters import target_modules
from shortlm.heal.batches import Steps, micro_batch, micro_batch_count, split_evenly, validation_batches
from shortlm.heal.losses import Distillation, Loss, check_apart
from shortlm.heal.phases import prepare_work
from shortlm.heal.teacher import find_teacher
from shortlm.heal.trainable import check_method, open_trained, precision_words
from shortlm.heal.training import HealTrainer
from shortlm.model import facts_from_config, load_strictly, open_config, open_files, open_model
from shortlm.recipe import HealSettings, ModelSettings, PhaseSettings
from shortlm.report import Evidence, model_card
from shortlm.text.records import IGNORED, Row

FAST = {
    "data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 4, "held_out": 6, "steps": 4, "lr": 1e-3,
    "eval_every": 2, "precision": "float32", "warmup": 0, "micro_tokens": 48,
}  # fmt: skip


def phase(**settings) -> PhaseSettings:
    return PhaseSettings(**(FAST | settings))


def healed(folder, out, *phases, **settings) -> Healing:
    return heal(ModelSettings(model=str(folder), device="cpu"), HealSettings(phases=list(phases), **settings), out)


def weights(folder) -> dict[str, torch.Tensor]:
    settings = ModelSettings(model=str(folder), device="cpu")
    return load_strictly(folder, open_config(settings), settings).state_dict()


def logits(folder) -> torch.Tensor:
    opened = open_model(ModelSettings(model=str(folder), device="cpu"))
    with torch.no_grad():
        return opened.model(torch.arange(40).reshape(2, 20)).logits.float()


def rows(*lengths: int) -> list[Row]:
    """Rows of these lengths; the first third of each is a prompt."""
    found = []
    for i, length in enumerate(lengths):
        ids = [(7 * i + 3 * j) % 90 for j in range(length)]
        found.append(Row(ids, [IGNORED] * (length // 3) + ids[length // 3 :]))
    return found


# --- micro-batches


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_step_is_split_into_groups_of_like_length(count):
    given = rows(5, 30, 7, 31, 6, 12, 13, 29)
    groups = split_evenly(given, count)
    assert len(groups) == count and sorted(id(row) for group in groups for row in group) == sorted(map(id, given))
    lengths = [len(row.ids) for group in groups for row in group]
    assert lengths == sorted(lengths, reverse=True)


def test_parting_wastes_less_than_random_groups():
    given = rows(*[5 + (37 * i) % 60 for i in range(64)])
    waste = sum(len(g) * max(len(r.ids) for r in g) for g in split_evenly(given, 8)) / sum(len(r.ids) for r in given)
    plain = sum(8 * max(len(r.ids) for r in given[i : i + 8]) for i in range(0, 64, 8)) / sum(len(r.ids) for r in given)
    assert waste < 1.15 < plain


def test_targets_are_what_comes_next():
    batch = micro_batch(rows(4, 6), pad=99)
    assert batch["input_ids"].tolist() == [[0, 3, 6, 9, 99, 99], [7, 10, 13, 16, 19, 22]]
    assert batch["labelled"].tolist() == [0, 1, 2, 7, 8, 9, 10]
    assert batch["targets"].tolist() == [3, 6, 9, 13, 16, 19, 22]
    apart = micro_batch([Row([1, 5, 1, 6, 7], [1, 5, 1, 6, 7], (0, 2))], pad=0)
    assert apart["labelled"].tolist() == [0, 2, 3] and apart["targets"].tolist() == [5, 6, 7]
    assert apart["position_ids"].tolist() == [[0, 1, 0, 1, 2]]


@pytest.mark.parametrize("attend", ["window", "document"])
def test_targets_are_counted_as_they_are_learnt(llama_folder, tmp_path, attend):
    documents = [{"text": "Rosa has it. " * (i % 5 + 1)} for i in range(30)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    files = open_files(ModelSettings(model=str(llama_folder)))
    work = prepare_work(files, phase(batch=8, attend=attend, data=[str(tmp_path / "t.jsonl")], separator="eos"), 1)
    steps = Steps(work.rows, 8, work.micro_batches, work.pad)
    batches = [batch for _, batch in zip(range(3 * work.micro_batches), steps, strict=False)]
    ids = [row for batch in batches for row in batch["input_ids"].tolist()]
    bos = files.tokenizer.bos_token_id
    plain = sum(token != bos for row in ids for token in row[1:])  # BOS begins rows, or documents kept apart
    labelled = sum(len(batch["targets"]) for batch in batches)
    assert labelled == plain == steps.positions[3].targets
    assert sum({id(b): b["step_targets"] for b in batches[:: work.micro_batches]}.values()) == plain
    assert (plain == 24 * 23) == (attend == "window")


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_same_step(tmp_path, llama_folder, processes):
    files = open_files(ModelSettings(model=str(llama_folder)))
    taken = []
    for rank in range(processes):
        work = prepare_work(files, phase(batch=8), processes)
        steps = Steps(work.rows, 8, work.micro_batches, 0, rank, processes)
        share = work.micro_batches // processes
        taken += [b for _, b in zip(range(share), steps, strict=False)]
        assert steps.positions[1].tokens == 8 * 24
    found = sorted(tuple(row) for b in taken for row in b["input_ids"].tolist())
    alone = prepare_work(files, phase(batch=8), 1)
    assert found == sorted(tuple(alone.rows.next().ids) for _ in range(8))
    assert {b["step_targets"] for b in taken} == {8 * 23}


def test_micro_batches_fit_the_tokens_wanted():
    sample = rows(*[20] * 10)
    assert micro_batch_count(sample, 64, 320, 1) == 4
    assert micro_batch_count(sample, 64, 320, 8) == 8
    assert micro_batch_count(sample, 4, 1, 1) == 4
    batches = validation_batches(rows(3, 9, 5, 8), 20, 0)
    assert [b["input_ids"].shape for b in batches] == [(2, 9), (2, 5)]


# --- losses


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_loss_is_that_of_transformers(name):
    model = tiny_model(name)
    given = rows(12, 7, 9)
    ours = Loss(model).nats(model, micro_batch(given, pad=0))
    total = 0.0
    for row in given:  # one by one: no padding, no mask
        ids_BT, labels_BT = torch.tensor([row.ids]), torch.tensor([row.labels])
        total += float(model(input_ids=ids_BT, labels=labels_BT, use_cache=False).loss) * row.targets
    assert float(ours) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gpt_neox", "gpt2", "phi3"])
def test_documents_apart_do_not_see_each_other(name):
    model = tiny_model(name)
    first, second = [1, 5, 9, 30, 31, 40], [1, 7, 8, 60, 61]
    together = Row(first + second, first + second, (0, len(first)))
    ours = Loss(model).nats(model, micro_batch([together], pad=0))
    alone = [float(model(torch.tensor([d]), labels=torch.tensor([d])).loss) * (len(d) - 1) for d in (first, second)]
    assert float(ours) == pytest.approx(sum(alone), rel=1e-4)


@pytest.mark.parametrize("name", ["opt"])  # falcon can since transformers 5.24
def test_where_documents_can_not_be_kept_apart_that_is_refused(name):
    with pytest.raises(ModelError, match="can't keep documents of a row apart; use --attend window"):
        check_apart(tiny_model(name))
    check_apart(tiny_model("llama"))


def test_distillation_is_kullback_leibler_to_the_teacher():
    student, teacher = tiny_model("llama", num_hidden_layers=4), tiny_model("llama", seed=5)
    loss = Distillation(student, teacher, [0, 1, 4, 5], share=0.75, temperature=2.0, hidden=0.5)
    given = rows(9, 12)
    found = loss(student, micro_batch(given, pad=0))
    divergence = nats = 0.0
    differences: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in range(4)]
    for row in given:
        ids_BT = torch.tensor([row.ids])
        own, taught = (m(ids_BT, output_hidden_states=True) for m in (student, teacher))
        labelled = [i for i in range(len(row.ids) - 1) if row.labels[i + 1] != IGNORED]
        p, q = (F.softmax(out.logits[0, labelled].double() / 2, -1) for out in (taught, own))
        divergence += float((p * (p / q).log()).sum()) * 4
        nats += float(F.cross_entropy(own.logits[0, labelled], ids_BT[0, [i + 1 for i in labelled]], reduction="sum"))
        for j, i in enumerate((0, 1, 4)):  # the state behind the last block is told after the norm
            differences[j].append((own.hidden_states[j + 1][0, labelled], taught.hidden_states[i + 1][0, labelled]))
    targets = sum(row.targets for row in given)
    hidden = 0.0
    for pairs in differences[:3]:
        a, b = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
        hidden += float((a - b).square().mean() / b.square().mean()) / 4 * targets
    last = float(found) - (0.75 * divergence + 0.25 * nats + 0.5 * hidden)
    with torch.no_grad():
        pair = []
        for model in (student, teacher):
            state = {}
            handle = model.model.layers[-1].register_forward_hook(lambda m, i, o, s=state: s.update(o=o))
            parts = []
            for row in given:
                model(torch.tensor([row.ids]))
                kept = [i for i in range(len(row.ids) - 1) if row.labels[i + 1] != IGNORED]
                parts.append((state["o"][0] if isinstance(state["o"], tuple) else state["o"])[0][kept])
            handle.remove()
            pair.append(torch.cat(parts))
    expected = 0.5 * float((pair[0] - pair[1]).square().mean() / pair[1].square().mean()) / 4 * targets
    assert last == pytest.approx(expected, rel=1e-3)


def test_a_teacher_like_the_student_has_nothing_to_teach():
    model = tiny_model("llama")
    loss = Distillation(model, tiny_model("llama"), list(range(6)), share=1.0, temperature=1.0, hidden=1.0)
    assert float(loss(model, micro_batch(rows(9, 12), pad=0))) == pytest.approx(0, abs=1e-4)


# --- what is trained


def test_adapters_go_where_they_are_wanted():
    llama, gpt2 = tiny_model("llama"), tiny_model("gpt2")
    assert target_modules(llama, "ffn") == ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"]
    assert target_modules(llama, "attention") == [f"self_attn.{n}_proj" for n in ("k", "o", "q", "v")]
    assert len(target_modules(llama, "blocks")) == 7
    assert target_modules(llama, "q_proj, v_proj") == ["self_attn.q_proj", "self_attn.v_proj"]
    assert target_modules(gpt2, "blocks") == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    with pytest.raises(RecipeError, match="--targets q_prj: no matrix 'q_prj'; did you mean 'q_proj'"):
        target_modules(llama, "q_prj")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("cpt", lambda name: True),
        ("last-layers", lambda name: name.startswith(("lm_head", "model.layers.4", "model.layers.5"))),
        ("lora", lambda name: name.startswith("model.layers") and "proj" in name),
    ],
)
def test_only_what_the_method_names_is_changed(llama_folder, tmp_path, method, expected):
    done = healed(llama_folder, tmp_path / "out", phase(method=method, last=2, lr=1e-2))
    before, after = weights(llama_folder), weights(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if expected(name)}
    record = done.phases[0]
    assert record.method == method and record.steps == 4 and record.log[-1].targets == 4 * 4 * 23
    nats = [next(iter(v.nats_per_token.values())) for v in record.validations]
    assert [v.step for v in record.validations] == [0, 2, 4] and nats[-1] < nats[0]
    assert not (tmp_path / "out.healing").exists()


def test_continued_pretraining_is_plain_adamw(llama_folder, tmp_path):
    settings = phase(
        method="cpt", steps=3, weight_decay=0.1, clip=0.5, betas=(0.9, 0.95), held_out=0, schedule="linear"
    )
    healed(llama_folder, tmp_path / "out", settings)
    opened = open_model(ModelSettings(model=str(llama_folder), device="cpu"))
    model = opened.model.requires_grad_(True)
    source = prepare_work(open_files(ModelSettings(model=str(llama_folder))), settings, 1).rows
    norms = [p for n, p in model.named_parameters() if "norm" in n]
    others = [p for n, p in model.named_parameters() if "norm" not in n]
    groups = [{"params": others, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / 3)
        ids_BT = torch.tensor([source.next().ids for _ in range(4)])
        model(ids_BT, labels=ids_BT).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    after = weights(tmp_path / "out")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(after[name], weight, atol=2e-6, rtol=1e-4)


def test_micro_batches_do_not_change_the_result(llama_folder, tmp_path):
    records = [{"prompt": "Who has the rope? " * (i % 3 + 1), "completion": "Rosa. " * (i % 5 + 1)} for i in range(24)]
    (tmp_path / "r.json").write_text(json.dumps(records), encoding="utf-8")
    given = {"data": [str(tmp_path / "r.json")], "length": 60, "batch": 8, "method": "cpt"}
    for size in (60, 10_000):
        healed(llama_folder, tmp_path / str(size), phase(**(given | {"micro_tokens": size})))
    few, many = weights(tmp_path / "60"), weights(tmp_path / "10000")
    for name in few:
        torch.testing.assert_close(few[name], many[name], atol=5e-6, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma2", "mixtral"])
def test_merged_logits_are_those_of_the_adapter(name, tmp_path):
    from shortlm.heal.adapters import with_adapter

    base = with_tokenizer(save_tiny(name, tmp_path / "m", vocab_size=1024))
    done = healed(base, tmp_path / "out", phase(method="lora", lr=1e-2), keep_adapter=True)
    adapted = with_adapter(open_model(ModelSettings(model=str(base), device="cpu")).model, tmp_path / "out" / "adapter")
    with torch.no_grad():
        expected = adapted(torch.arange(40).reshape(2, 20)).logits
    torch.testing.assert_close(logits(tmp_path / "out"), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(base), expected, atol=1e-3)
    assert 0 <= done.phases[0].merge_difference < 1e-3


def with_tokenizer(folder):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model_path() / file, folder / file)
    return folder


@pytest.mark.parametrize("method", ["lora", "cpt"])
def test_a_bfloat16_base_stays_bfloat16(method, tmp_path):
    tiny_model("llama", vocab_size=1024).to(torch.bfloat16).save_pretrained(tmp_path / "m")
    base = with_tokenizer(tmp_path / "m")
    done = healed(base, tmp_path / "out", phase(method=method, lr=1e-2, precision="bfloat16"))
    assert {entry.dtype for entry in open_checkpoint(str(tmp_path / "out")).tensors.values()} == {"BF16"}
    assert done.phases[0].precision == "bfloat16" and not torch.equal(logits(base), logits(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_bytes())["dtype"] == "bfloat16"


def test_phases_go_on_from_one_another(llama_folder, tmp_path):
    first, second = phase(method="cpt"), phase(method="lora", lr=1e-2, steps=2)
    both = healed(llama_folder, tmp_path / "both", first, second, keep_adapter=True)
    healed(llama_folder, tmp_path / "one", first)
    again = healed(tmp_path / "one", tmp_path / "two", second)
    assert [p.method for p in both.phases] == [p.method for p in again.phases] == ["cpt", "lora"]
    one, two = weights(tmp_path / "both"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = [json.loads(line) for line in (tmp_path / "both" / "log.jsonl").read_text().splitlines()]
    assert {line["phase"] for line in lines} == {1, 2} and (tmp_path / "both" / "adapter-2").is_dir()
    assert "<svg" in (tmp_path / "both" / "loss.svg").read_text()


def test_distillation_takes_the_uncut_model_from_the_manifest(llama_folder, tmp_path):
    from shortlm.cut import cut
    from shortlm.recipe import CutSettings

    cut(ModelSettings(model=str(llama_folder)), [2, 3], CutSettings(), tmp_path / "cut")
    done = healed(tmp_path / "cut", tmp_path / "out", phase(method="distill", hidden=0.1, steps=2))
    assert done.phases[0].log[-1].loss > 0
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (tmp_path / "cut" / "manifest.json").read_bytes()
    (tmp_path / "cut" / "manifest.json").unlink()
    with pytest.raises(ModelError, match="has no manifest that names the uncut model; give --teacher MODEL"):
        healed(tmp_path / "cut", tmp_path / "out2", phase(method="distill"))
    with pytest.raises(ModelError, match=r"has 6 blocks, and the student's are \[0, 1, 2, 3\] of the uncut model"):
        healed(tmp_path / "cut", tmp_path / "out3", phase(method="distill", teacher=str(llama_folder)))
    with pytest.raises(ModelError, match="has a vocabulary of 738, the student 1024"):
        healed(tmp_path / "cut", tmp_path / "out4", phase(method="distill", teacher="embedded"))


def cut_here(model, out, *removed):
    from shortlm.cut import cut
    from shortlm.recipe import CutSettings

    return cut(ModelSettings(model=str(model)), list(removed), CutSettings(verify=False), out)


@pytest.mark.parametrize("old", [False, True], ids=["path recorded", "manifest of an older version"])
def test_the_teacher_is_found_from_another_folder(llama_copy, tmp_path, monkeypatch, old):
    """Cut twice by relative names, distilled from elsewhere; the whole tree may have been moved for older manifests."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    llama_copy.rename(home / "m")
    monkeypatch.chdir(home)
    assert cut_here("m", "first", 2).base_path == str(home / "m")
    cut_here("first", "second", 1)
    if old:
        for name in ("first", "second"):
            manifest = of_one_cut(Manifest.load(home / name / "manifest.json"))
            (home / name / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        home = home.rename(tmp_path / "moved")
    monkeypatch.chdir(elsewhere)
    teacher = find_teacher(open_files(ModelSettings(model=str(home / "second"))), phase(method="distill"))
    assert teacher.files.checkpoint.folder == home / "m" and teacher.blocks == [0, 3, 4, 5]
    done = healed(home / "second", tmp_path / "out", phase(method="cpt", steps=1), phase(method="distill", steps=1))
    assert done.phases[1].method == "distill"


def test_a_teacher_that_is_the_student_itself_is_refused(llama_copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cut_here("copy", "short", 2)
    shutil.rmtree("copy")
    (tmp_path / "short").rename(tmp_path / "copy")
    told = (
        r"copy: its manifest names copy as the uncut model, and that leads back to this folder itself; give --teacher"
    )
    with pytest.raises(ModelError, match=told):
        healed("copy", tmp_path / "out", phase(method="cpt"), phase(method="distill"))
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_bytes())
    now = facts_from_config(ModelSettings(model="copy"))
    for facts in (manifest["base"], manifest["steps"][0]["plan"]["model"]):  # one that claims to be cut from itself
        facts |= {name: facts[name][:5] for name in facts if name.endswith("_parameters")}
        facts |= {"parameters": now.parameters, "n_blocks": 5}
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match="copy: its manifest leads back to this folder itself; give --teacher MODEL"):
        healed("copy", tmp_path / "out", phase(method="distill"))


def test_a_teacher_that_is_gone_is_told(llama_copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cut_here("copy", "short", 2)
    (tmp_path / "copy").rename(tmp_path / "away")
    told = rf"short: its manifest names copy as the uncut model, and {tmp_path}/copy is not there; give --teacher MODEL"
    with pytest.raises(ModelError, match=told):
        healed("short", tmp_path / "out", phase(method="distill"))
    with pytest.raises(ModelError, match=told):
        estimate_healing(
            ModelSettings(model="short", device="cpu"), HealSettings(phases=[phase(method="distill")]), Cluster()
        )
    find_teacher(open_files(ModelSettings(model="short")), phase(method="distill", teacher="away"))


def test_the_folder_of_the_base_stays_out_of_the_card(llama_folder, tmp_path):
    manifest = cut_here(llama_folder, tmp_path / "short", 2)
    assert manifest.base_path == str(llama_folder)
    manifest = manifest.model_copy(update={"base_path": "/home/someone/secret"})
    assert "secret" not in model_card(Evidence("x", manifest=manifest))
    assert cut_here("embedded", tmp_path / "other", 5).base_path is None


# --- 4-bit


def test_a_validation_does_not_cost_the_four_bit_base_its_gradients(llama_folder):
    pytest.importorskip("bitsandbytes")
    model = open_trained(open_files(ModelSettings(model=str(llama_folder), device="cpu")), phase(method="qlora"))
    loss, batch = Loss(model), micro_batch(rows(12, 9), pad=0)

    def gradients():
        model.zero_grad()
        model.train()
        loss(model, batch).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    before = gradients()
    model.eval()
    with torch.no_grad():
        loss.nats(model, batch)
    after = gradients()
    assert before and all(torch.allclose(before[name], after[name], rtol=1e-3, atol=1e-5) for name in before)


def test_qlora_says_what_is_missing(llama_folder, tmp_path, monkeypatch):
    adapters = import_module("shortlm.heal.adapters")
    monkeypatch.setattr(adapters, "find_spec", lambda name: None if name == "bitsandbytes" else True)
    with pytest.raises(ModelError, match=r"qlora needs bitsandbytes: pip install 'shortlm\[qlora\]'"):
        healed(llama_folder, tmp_path / "out", phase(method="qlora"))


# --- which step is kept, and bad steps


@pytest.mark.parametrize(("keep", "expected"), [("best", 1), ("last", 4)])
def test_the_best_or_the_last_step_is_kept(llama_folder, tmp_path, monkeypatch, keep, expected):
    losses = iter([3.0, 1.0, 2.0, 2.5, 2.6])
    monkeypatch.setattr(HealTrainer, "_nats", lambda self, batches: next(losses))
    settings = phase(method="cpt", keep=keep, eval_every=1, schedule="constant", lr=1e-2)
    done = healed(llama_folder, tmp_path / "out", settings)
    assert done.phases[0].kept_step == expected
    monkeypatch.undo()
    healed(llama_folder, tmp_path / "plain", settings.model_copy(update={"steps": expected, "keep": "last"}))
    one, two = weights(tmp_path / "out"), weights(tmp_path / "plain")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("step", "told"), [(2, "there is no checkpoint yet"), (4, "checkpoint-2")])
def test_a_loss_that_is_no_number_stops(llama_folder, tmp_path, monkeypatch, step, told):
    count = iter(range(100))

    def bad(self, model, batch, plain=Loss.__call__):
        return plain(self, model, batch) * (math.nan if next(count) // 2 + 1 == step else 1.0)

    monkeypatch.setattr(Loss, "__call__", bad)  # two micro-batches make a step
    with pytest.raises(HealError) as error:
        healed(llama_folder, tmp_path / "out", phase(method="cpt"))
    assert f"step {step}: the loss is nan; nothing was changed by it" in str(error.value) and told in str(error.value)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    done = healed(llama_folder, tmp_path / "out", phase(method="cpt"))
    assert done.phases[0].log[-1].step == 4


def test_a_validation_that_is_no_number_stops(llama_folder, tmp_path, monkeypatch):
    losses = iter([3.0, math.nan])
    monkeypatch.setattr(HealTrainer, "_nats", lambda self, batches: next(losses))
    with pytest.raises(HealError, match="step 2: the validation loss on embedded is nan; there is no checkpoint yet"):
        healed(llama_folder, tmp_path / "out", phase(method="cpt"))


def test_a_gradient_that_is_no_number_stops_before_it_is_used(llama_folder, tmp_path, monkeypatch):
    def bad(self, model, batch, plain=Loss.__call__):
        loss = plain(self, model, batch)
        next(p for p in model.parameters() if p.requires_grad).register_hook(lambda grad: grad * math.inf)
        return loss

    monkeypatch.setattr(Loss, "__call__", bad)
    with pytest.raises(HealError, match="step 1: the gradient's norm is nan"):
        healed(llama_folder, tmp_path / "out", phase(method="cpt"))


# --- outputs that are in the way


def test_what_exists_is_not_lost(llama_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="the output folder exists and is not empty"):
        healed(llama_folder, out, phase())
    assert (out / "mine.txt").read_text() == "x"
    with pytest.raises(OutputError, match="the output would replace the model itself"):
        healed(llama_folder, llama_folder, phase())
    other = tmp_path / "other"
    healed(llama_folder, other, phase(steps=1))
    with pytest.raises(OutputError, match="give --force to replace it"):
        healed(llama_folder, other, phase(steps=2))


def test_a_finished_healing_is_kept(llama_folder, tmp_path):
    said = []
    model, settings = ModelSettings(model=str(llama_folder), device="cpu"), HealSettings(phases=[phase(steps=1)])
    first = heal(model, settings, tmp_path / "out")
    assert heal(model, settings, tmp_path / "out", say=said.append) == first
    assert said == [f"kept {tmp_path / 'out'}"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_outputs_have_the_mode_that_the_umask_gives(llama_folder, tmp_path, mask):
    before = os.umask(mask)
    try:
        healed(llama_folder, tmp_path / "out", phase(steps=1), keep_adapter=True)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"model.safetensors", "adapter_model.safetensors"} < set(modes)
    assert set(modes.values()) == {0o666 & ~mask}


def test_only_one_process_heals_there(llama_folder, tmp_path):
    work = tmp_path / "out.healing"
    work.mkdir()
    with FileLock(work / "lock"):
        (work / "state.json").write_text('{"keys": ["x"]}')
        with pytest.raises(OutputError, match="another process is healing there"):
            healed(llama_folder, tmp_path / "out", phase())


def test_the_data_of_a_chain_is_tokenized_once(llama_folder, tmp_path, monkeypatch):
    """By the check before the first phase; each phase goes on with what that made, also after a stop."""
    from transformers import TokenizersBackend

    records = [{"prompt": f"Who has {i}? ", "completion": "Rosa."} for i in range(30)]
    (tmp_path / "r.json").write_text(json.dumps(records), encoding="utf-8")
    documents = [{"text": f"Number {i}. Rosa has the kite."} for i in range(3000)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    seen = []

    def counting(self, text, *args, plain=TokenizersBackend.__call__, **kwargs):
        seen.append(text)
        return plain(self, text, *args, **kwargs)

    monkeypatch.setattr(TokenizersBackend, "__call__", counting)
    first = phase(method="cpt", data=[str(tmp_path / "t.jsonl")], steps=2)
    second = phase(method="lora", data=[str(tmp_path / "r.json")], steps=None, epochs=2, length=40)
    done = healed(llama_folder, tmp_path / "out", first, second)
    assert [p.steps for p in done.phases] == [2, 12]
    texts = [text for text in seen if text.startswith("Number")]
    asked = [text for text in seen if text.startswith("Who has")]
    assert len(texts) == len(set(texts)) > 20 and sorted(asked) == sorted(f"Who has {i}? Rosa." for i in range(30))
    seen.clear()
    healed(llama_folder, tmp_path / "out", first, second)  # is finished
    assert not [text for text in seen if text.startswith(("Number", "Who has"))]


def test_a_later_phase_is_checked_before_the_first_one_is_trained(llama_folder, tmp_path, monkeypatch):
    records = [{"prompt": "Who? " * 20, "completion": "Rosa."}] * 9
    (tmp_path / "r.json").write_text(json.dumps(records), encoding="utf-8")
    monkeypatch.setattr(HealTrainer, "training_step", lambda *args: pytest.fail("was trained"))
    with pytest.raises(TextError, match=r"phase 2: .*no record has an answer within 12 tokens"):
        healed(llama_folder, tmp_path / "out", phase(), phase(data=[str(tmp_path / "r.json")], length=12))
    assert not (tmp_path / "out.healing").exists()


def test_a_rate_that_never_leaves_zero_is_refused(llama_folder, tmp_path):
    with pytest.raises(RecipeError, match="--warmup 100: the only step would have a learning rate of 0; give more"):
        healed(llama_folder, tmp_path / "out", phase(steps=1, warmup=100))
    done = healed(llama_folder, tmp_path / "one", phase(steps=1, warmup=0.03, method="cpt"), log_every=1)
    assert done.phases[0].log[0].rate == 1e-3
    assert not torch.equal(logits(llama_folder), logits(tmp_path / "one"))
    said = []
    settings = HealSettings(phases=[phase(steps=2, warmup=100)])
    heal(ModelSettings(model=str(llama_folder), device="cpu"), settings, tmp_path / "two", say=said.append)
    assert said[0] == "the peak rate is never reached: 2 steps and a warm-up of 100"


@pytest.mark.parametrize(
    "given",
    [{"held_out": math.inf}, {"held_out": 10**9}, {"warmup": math.inf}, {"warmup": 1e300}, {"lr": math.nan},
     {"lr": 1e9},
     {"epochs": 1e300, "steps": None}, {"steps": 10**12}, {"batch": 10**9}, {"rank": 10**9}, {"alpha": 10**9},
     {"length": 10**9}, {"betas": (0.9, 1.0)}, {"betas": (math.nan, 0.5)}, {"clip": math.inf}, {"weight_decay": 1e9},
     {"temperature": 1e-300}, {"hidden": 1e300}, {"micro_tokens": 10**20}, {"eval_every": 10**12}, {"last": 10**9},
     {"tokens": "9" * 400, "steps": None}, {"data": [{"data": "embedded", "weight": 1e-320}]}],
)  # fmt: skip
def test_settings_that_no_one_can_want_are_refused(given):
    with pytest.raises(ValidationError):
        phase(**given)


def test_settings_are_bounded_by_model_and_data(llama_folder, tmp_path):
    files = open_files(ModelSettings(model=str(llama_folder)))
    with pytest.raises(RecipeError, match="--rank 5000: the largest side of a matrix is 48; give so much at most"):
        check_method(files, phase(rank=5000))
    with pytest.raises(RecipeError, match="--length 100000: the model has 128 positions"):
        check_method(files, phase(length=100_000))
    with pytest.raises(RecipeError, match="--tokens 900T: would be 9,375,000,000,000 steps, at most 100,000,000 are"):
        prepare_work(files, phase(steps=None, tokens="900T"), 1)


def test_budgets(llama_folder, tmp_path):
    files = open_files(ModelSettings(model=str(llama_folder)))
    assert prepare_work(files, phase(steps=None, tokens="1k"), 1).steps == math.ceil(1000 / (4 * 24))
    with pytest.raises(RecipeError, match="plain text has no end here; give a budget: --tokens 2M or --steps 500"):
        prepare_work(files, phase(steps=None), 1)
    with pytest.raises(RecipeError, match="--batch 4: is no multiple of the 3 processes"):
        prepare_work(files, phase(), 3)
    records = [{"prompt": "Who?", "completion": "Rosa."}] * 26
    (tmp_path / "r.json").write_text(json.dumps(records), encoding="utf-8")
    assert prepare_work(files, phase(steps=None, data=[str(tmp_path / "r.json")], epochs=3), 1).steps == 15


@pytest.mark.parametrize(
    ("frozen", "kind", "optimizer", "words"),
    [
        (None, "float32", "adamw_torch",
         "trained weights in float32, matrix products in float32, adamw_torch keeps its state in float32"),
        (torch.bfloat16, "bfloat16", "adamw_torch",
         "trained weights in float32, frozen ones in bfloat16, matrix products in bfloat16 by autocast, adamw_torch "
         "keeps its state in float32"),
        (torch.uint8, "bfloat16", "paged_adamw_8bit",
         "trained weights in float32, frozen ones in 4-bit NF4, matrix products in bfloat16 by autocast, "
         "paged_adamw_8bit keeps its state in 8 bits"),
    ],
)  # fmt: skip
def test_the_types_of_training_are_said(frozen, kind, optimizer, words):
    model = torch.nn.Linear(2, 2)
    if frozen:
        model.weight = torch.nn.Parameter(model.weight.detach().to(frozen), requires_grad=False)
    assert precision_words(model, kind, optimizer) == words
