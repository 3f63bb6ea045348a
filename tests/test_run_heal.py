"""`shortlm run` with healing: the stage, rounds, what is kept and refused; the page, the card, the command line."""

from __future__ import annotations

import json
import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from shortlm.artifacts import BlockScores, Healing, Manifest, Measurement
from shortlm.cli import app
from shortlm.cut import cut
from shortlm.errors import OutputError, RecipeError, TextError
from shortlm.heal import heal
from shortlm.recipe import CutSettings, HealSettings, ModelSettings, Recipe, load_recipe, preset_names, to_yaml
from shortlm.run import run

PHASE = {"method": "cpt", "data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 4, "held_out": 4,
         "steps": 3, "lr": 1e-3, "precision": "float32"}  # fmt: skip
BASE = {
    "text": {"sequences": 4, "length": 24}, "score": {"criteria": ["bi"], "resamples": 20},
    "choose": {"blocks": 2, "protect": "ends", "drop": None}, "eval": {"held_out": 6, "new_tokens": 4},
    "model": {"device": "cpu"},
}  # fmt: skip


def recipe(model, **settings) -> Recipe:
    values = BASE | {"model": {"model": str(model), "device": "cpu"}, "heal": {"phases": [PHASE]}} | settings
    values["text"] = values["text"] | {"text": "embedded"}
    return Recipe.model_validate(values)


def test_a_run_heals(llama_folder, tmp_path):
    said = []
    page = run(recipe(llama_folder), tmp_path / "run", say=said.append)
    out = page.parent
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["recipe.yaml", "scores.json", "plan.json", "cut", "model", "eval-dense.json", "eval-cut.json",
         "eval-healed.json", "report.html", "report.md", "results.json", "results.csv"]
    )  # fmt: skip
    assert [line.split()[0] for line in said] == [
        "score",
        "choose",
        "cut",
        "phase",
        "heal",
        *["evaluate"] * 3,
        "report",
    ]
    assert "trained weights in float32, matrix products in float32, adamw_torch keeps its state in float32" in said[3]
    healed = Measurement.load(out / "eval-healed.json")
    assert healed.role == "healed" and healed.model.n_blocks == 4
    assert Healing.load(out / "model" / "healing.json").phases[0].steps == 3
    text = page.read_text(encoding="utf-8")
    assert '<section id="healing">' in text and 'id="learning"' in text
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert "Then it was healed by cpt." in card and "## Healing" in card and "are unchanged" not in card
    again = []
    run(recipe(llama_folder), tmp_path / "run", say=again.append)
    assert all(" kept " in line for line in again[:-1])


def test_other_healing_redoes_healing_alone(llama_folder, tmp_path):
    run(recipe(llama_folder), tmp_path / "run")
    other = recipe(llama_folder, heal={"phases": [PHASE | {"steps": 2}]})
    with pytest.raises(OutputError, match=r"model: was made with other settings or inputs \(heal\.phases: "):
        run(other, tmp_path / "run")
    said = []
    run(other, tmp_path / "run", force=True, say=said.append)
    kept = {line.split(" kept ")[0].strip() for line in said if " kept " in line}
    assert kept == {"score", "choose", "cut", "evaluate dense", "evaluate cut"}
    assert Healing.load(tmp_path / "run" / "model" / "healing.json").phases[0].steps == 2


def test_rounds_prune_and_heal_by_turns(llama_folder, tmp_path):
    rounds = recipe(llama_folder, rounds=2, choose={"blocks": 3, "protect": "ends", "drop": None})
    page = run(rounds, tmp_path / "run")
    first, last = (Manifest.load(tmp_path / "run" / at / "cut" / "manifest.json") for at in ("round-1", ""))
    assert len(first.blocks) == 4 and len(last.blocks) == 3 and set(last.blocks) < set(first.blocks)
    second = BlockScores.load(tmp_path / "run" / "scores.json")
    assert second.model.n_blocks == 4 and second.model.name.endswith("round-1/model")
    assert Measurement.load(tmp_path / "run" / "eval-healed.json").model.n_blocks == 3
    text = page.read_text(encoding="utf-8")
    gone = [i for i in range(6) if i not in last.blocks]
    assert "3 of 6 blocks removed" in text and "one-shot, in rounds" in text
    assert all(f'title="block {i}: removed"' in text for i in gone)
    said = []
    run(rounds, tmp_path / "run", say=said.append)
    assert all(" kept " in line for line in said[:-1])


def test_rounds_without_healing(llama_folder, tmp_path):
    run(recipe(llama_folder, heal=None, rounds=2), tmp_path / "run")
    assert Measurement.load(tmp_path / "run" / "eval-cut.json").model.n_blocks == 4
    assert len(Manifest.load(tmp_path / "run" / "model" / "manifest.json").blocks) == 4


def test_rounds_go_on_from_an_earlier_cut(llama_folder, tmp_path):
    cut(ModelSettings(model=str(llama_folder)), [1], CutSettings(verify=False), tmp_path / "cut")  # 0, 2, 3, 4, 5 stay
    page = run(recipe(tmp_path / "cut", heal=None, rounds=2), tmp_path / "run")
    last = Manifest.load(tmp_path / "run" / "model" / "manifest.json")
    assert len(last.steps) == 3 and len(last.blocks) == 3 and 1 not in last.blocks
    gone = [i for i, block in enumerate([0, 2, 3, 4, 5]) if block not in last.blocks]
    text = page.read_text(encoding="utf-8")
    assert "2 of 5 blocks removed" in text and all(f'title="block {i}: removed"' in text for i in gone)


def test_the_history_of_all_rounds_is_told(llama_folder, tmp_path):
    run(recipe(llama_folder, rounds=2), tmp_path / "run")
    assert len(Healing.load(tmp_path / "run" / "model" / "healing.json").phases) == 2


def test_indices_are_not_protected_in_rounds(llama_folder, tmp_path):
    chosen = {"blocks": 2, "protect": "0,5", "drop": None}
    with pytest.raises(RecipeError, match="--protect 0,5: indices change from round to round"):
        run(recipe(llama_folder, rounds=2, choose=chosen), tmp_path / "run")


def test_a_phase_that_does_not_fit_is_noticed_before_the_first_is_trained(llama_folder, tmp_path):
    settings = HealSettings.model_validate({"phases": [PHASE, PHASE | {"data": ["./nowhere.jsonl"]}]})
    with pytest.raises(TextError, match=r"phase 2: \./nowhere\.jsonl: no such data file"):
        heal(ModelSettings(model=str(llama_folder), device="cpu"), settings, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_distillation_without_validation_is_delivered(llama_folder, tmp_path):
    given = options(method="distill", teacher=llama_folder, held_out=0)
    assert "distill" in call("heal", llama_folder, "--out", tmp_path / "out", *given)
    assert (tmp_path / "out" / "loss.svg").is_file()


def test_more_rounds_than_blocks_are_refused(llama_folder, tmp_path):
    with pytest.raises(RecipeError, match="--rounds 3: only 2 blocks go; give at most so many rounds"):
        run(recipe(llama_folder, rounds=3), tmp_path / "run")


def test_nothing_is_measured_on_what_was_trained_on(llama_folder, tmp_path):
    same = recipe(llama_folder, heal={"phases": [PHASE | {"data": [{"data": "embedded", "seed": 0}]}]})
    with pytest.raises(RecipeError, match="embedded: would be trained on and measured on; give other data"):
        run(same, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recipes_hold_presets_and_settings_beside_them():
    given = {"heal": {"preset": "shortened-llm-lora", "steps": 7, "keep_adapter": True}}
    read = Recipe.model_validate(given)
    assert read.heal.phases[0].steps == 7 and read.heal.phases[0].epochs is None and read.heal.keep_adapter
    assert read.heal.phases[0].rank == 8
    import yaml

    assert Recipe.model_validate(yaml.safe_load(to_yaml(read))) == read


# --- the command line


def call(*args, code=0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result.output


def options(**given) -> list[str]:
    shown = {
        "device": "cpu",
        "data": "embedded",
        "length": 24,
        "batch": 4,
        "held_out": 4,
        "steps": 2,
        "separator": "\n\n",
    }
    return [part for name, v in (shown | given).items() for part in (f"--{name.replace('_', '-')}", str(v))]


def test_heal_says_what_it_did(llama_folder, tmp_path):
    out = call("heal", llama_folder, "--out", tmp_path / "out", "--keep-adapter", *options(lr=0.01, log_every=1))
    assert re.search(r"phase 1: lora of [\d,]+ parameters, 2 steps, 192 tokens, [\d,]+ targets/s", out), out
    assert re.search(r"embedded: \d\.\d{4} -> \d\.\d{4} nats, perplexity [\d.]+ -> [\d.]+", out)
    assert "merged; logits differ from the adapter model's by at most" in out
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    kept = call("heal", llama_folder, "--out", tmp_path / "out", "--keep-adapter", *options(lr=0.01, log_every=1))
    assert "kept" in kept


def test_the_old_name_of_an_option_stays():
    commands = vars(get_command(app))["commands"]
    (option,) = (p for p in commands["heal"].params if p.name == "estimate")
    assert option.opts == ["--estimate", "--plan"]


def test_a_dry_run_writes_nothing(llama_folder, tmp_path):
    asked = ("--dry-run", *options(), "--estimate", tmp_path / "p.json")
    out = call("heal", llama_folder, "--out", tmp_path / "out", *asked)
    assert "4 rows, 96 tokens: 1 process x 1 micro-batch" in out and "2, 192 tokens in all" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.json"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--preset", "shortened-lora"], "preset 'shortened-lora' is unknown; did you mean 'shortened-llm-lora'?"),
        (["--preset", "distill", "--recipe", "x.yaml"], "give --preset or --recipe, not both"),
        (["--recipe", "nowhere.yaml"], "nowhere.yaml: no such recipe file"),
        (["--method", "cp"], "invalid value for '--method'"),
        (["--data", "embedded", "--steps", "3", "--tokens", "2k"], "give one budget, not tokens and steps"),
        (["--data", "embedded", "--tokens", "many"], "a number is needed, e.g. 5.5B"),
        (["--data", "~nosuchuser/x.jsonl", "--steps", "3"], "~nosuchuser/x.jsonl: no such data file"),
        (
            ["--data", "embedded", "--steps", "1", "--warmup", "100"],
            "--warmup 100: the only step would have a learning",
        ),
        (
            ["--data", "embedded", "--steps", "1000000000000"],
            "--steps: input should be less than or equal to 100000000",
        ),
        (["--data", "embedded", "--held-out", "inf"], "--held-out: input should be a finite number (got inf)"),
        (["--data", "embedded", "--epochs", "1e300"], "--epochs: input should be less than or equal to 10000"),
        (["--data", "embedded", "--tokens", "9" * 400], "a number is needed, e.g. 5.5B"),
        (["--data", "embedded:wieght=2"], "unknown setting; did you mean 'weight'?"),
        (["--data", "embedded", "--schedule", "linear", "--lowest", "0.1"], "lowest belongs to the cosine schedule"),
        ([], "no training data; give --data FILE"),
        (["--data", "embedded"], "plain text has no end here; give a budget: --tokens 2M or --steps 500"),
        (
            ["--data", "embedded", "--steps", "1", "--report-to", "nothing"],
            "--report-to nothing: is not installed here",
        ),
    ],
)
def test_mistakes_are_one_line(llama_folder, tmp_path, args, message):
    args = args if "--length" in args or "--preset" in args else [*args, "--length", "24"]
    out = call("heal", llama_folder, "--out", tmp_path / "out", "--device", "cpu", *args, code=2)
    assert message in " ".join(out.split()), out
    assert not (tmp_path / "out").exists()


def test_run_takes_healing_from_the_command_line(llama_folder, tmp_path):
    (tmp_path / "heal.yaml").write_text(json.dumps({"phases": [PHASE | {"data": []}]}), encoding="utf-8")
    args = ["run", "--bench", "none", "-m", llama_folder, "--device", "cpu", "--text", "embedded",
            "--sequences", 4, "--length", 24,
            "--criteria", "bi", "--blocks", 2, "--protect", "ends", "--held-out", 4, "--new-tokens", 4]  # fmt: skip
    out = call(*args, "--out", tmp_path / "run", "--heal", tmp_path / "heal.yaml", "--heal-data", "embedded")
    assert "evaluate healed" in out
    assert load_recipe(tmp_path / "run" / "recipe.yaml").heal.phases[0].data[0].data == "embedded"
    told = call(*args, "--out", tmp_path / "other", "--heal-data", "embedded", code=2)
    assert "--heal-data: nothing is healed; give --heal with a preset or a recipe" in told


def test_tensorboard_keeps_its_files(llama_folder, tmp_path):
    pytest.importorskip("tensorboard")
    call("heal", llama_folder, "--out", tmp_path / "out", *options(report_to="tensorboard"))
    assert list((tmp_path / "out" / "runs" / "phase-1").rglob("events.out.tfevents*"))


def test_presets_are_listed():
    out = call("heal", "--presets")
    assert [line.split()[0] for line in out.splitlines()] == preset_names("heal")
