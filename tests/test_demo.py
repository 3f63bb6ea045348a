"""The demo: what models write in turns, without a browser; and the page in headless Chromium (`browser`)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from shortlm.cli import app
from shortlm.cut import cut
from shortlm.demo import serve
from shortlm.demo.answering import Question, answered
from shortlm.demo.contestant import Contestant, named_models, opened_models
from shortlm.demo.drawing import described, foot, head
from shortlm.errors import ModelError, OutputError, RecipeError
from shortlm.recipe import DemoSettings
from shortlm.units import unit_list

SETTINGS = DemoSettings(new_tokens=64, prompt_tokens=40)
PROMPT = "Tobin has the rope. Lena has the lamp. Who has the rope?"
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Contestant]:
    """The embedded model, and a cut one whose folder is called by HTML."""
    folder = tmp_path_factory.mktemp("demo") / "<b>cut&amp;"
    cut("embedded", unit_list("3,6.attention,8.ffn", "units"), out=folder)
    return opened_models(["embedded", str(folder)], SETTINGS)


def last(models, question, settings=SETTINGS):
    *_, writers = answered(models, question, settings)
    return writers


def test_greedy_decoding_in_turns_writes_what_each_model_writes_alone(models):
    for model, writer in zip(models, last(models, Question(PROMPT, 32)), strict=True):
        ids = model.opened.tokenizer(PROMPT, return_tensors="pt").input_ids
        alone = model.opened.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=32
        )
        assert writer.new == alone[0, ids.shape[1] :].tolist() and writer.finished and not writer.failure
        assert model.opened.tokenizer.decode(alone[0], skip_special_tokens=True).endswith(writer.text) and writer.text
        assert 0 < writer.first < writer.seconds


def test_the_cache_is_what_the_models_hold(models):
    by_formula = 2 * 2 * 32 * 4  # keys and values of 2 heads of 32 float32
    assert [model.cache_bytes for model in models] == [12 * by_formula, 10 * by_formula]  # two without attention
    for model, writer in zip(models, last(models, Question(PROMPT, 8)), strict=True):
        held = len(writer.ids) + len(writer.new) - 1  # the last token is not read again
        assert writer.cache_bytes == held * model.cache_bytes


def test_figures_are_drawn_without_asking_any_model(models, monkeypatch):
    writers = last(models, Question(PROMPT, 4))
    heads = [head(model) for model in models]  # the first ones compute a token

    def called(*args, **kwargs):
        raise AssertionError("a redraw computes")

    monkeypatch.setattr(torch.nn.Module, "__call__", called)
    assert all("KV cache" in foot(writer) for writer in writers) and [head(model) for model in models] == heads


def test_a_seed_gives_the_same_texts_whoever_else_writes(models):
    asked = Question(PROMPT, 24, temperature=1.5, seed=7)
    both, first, other = last(models, asked), last(models[:1], asked), last(models, Question(PROMPT, 24, 1.5, seed=8))
    assert both[0].new == first[0].new and both[0].new != other[0].new


def test_random_numbers_of_others_are_left_alone(models):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    last(models, Question(PROMPT, 4, temperature=1.0))
    assert torch.equal(torch.rand(2), expected)


def test_closing_stops_the_computation(models):
    before = threading.active_count()
    answers = answered(models, Question(PROMPT, 64), SETTINGS)
    calls = []
    hook = models[0].opened.model.register_forward_pre_hook(lambda *_: calls.append(time.sleep(0.05)))
    writers = next(answers)
    answers.close()
    made = len(calls)
    time.sleep(0.3)
    hook.remove()
    assert len(calls) == made < 64 and all(writer.finished for writer in writers)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question(" \n"), "the prompt is empty; write the beginning of a text"),
        (Question(PROMPT, 65), "65 new tokens: 1 to 64 can be asked for here"),
        (Question("rope " * 50), "the prompt has 53 tokens, and 40 are allowed here; shorten it"),
        (Question("x" * 10_000), "the prompt has 10,000 characters, and 40 tokens are allowed here; shorten it"),
    ],
)
def test_what_is_too_long_is_told_before_anything_is_computed(models, question, said):
    with pytest.raises(ModelError, match=said):
        next(answered(models, question, SETTINGS))


def test_a_prompt_beyond_the_context_is_told_with_both_numbers(models):
    with pytest.raises(ModelError, match=r"\d+ tokens of prompt and 500 new ones are more than the context of 512"):
        next(answered(models, Question(PROMPT, 500), DemoSettings(new_tokens=600)))


def test_a_model_that_fails_says_so_and_the_others_go_on(models, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("<script>no kernel</script>")

    monkeypatch.setattr(models[1].opened.model, "generate", broken)
    first, second = last(models, Question(PROMPT, 4))
    assert len(first.new) == 4 and second.failure == "<script>no kernel</script>"
    assert "&lt;script&gt;no kernel" in foot(second)


def test_above_a_column_stands_what_is_gone_and_nothing_is_html(models):
    assert described(models[0]) == "All 12 blocks."
    assert described(models[1]) == "Without block 3, without 6.attention, 8.ffn of 12 blocks."
    drawn = head(models[1])
    assert "<b>" not in drawn and "&lt;b&gt;cut&amp;amp;" in drawn
    assert drawn.count('class="out"') == 4 and drawn.count('class="kept"') == 20


def test_a_folder_of_run_stands_for_its_models_and_its_report(tmp_path):
    cut("embedded", [4], out=tmp_path / "run" / "model")
    (tmp_path / "run" / "report.html").write_text("<p>report")
    assert named_models([str(tmp_path / "run"), "embedded"]) == (
        ["embedded", str(tmp_path / "run" / "model")], tmp_path / "run" / "report.html",
    )  # fmt: skip
    with pytest.raises(ModelError, match="7 models are more than fit side by side; give 6 at most"):
        named_models([f"m{i}" for i in range(7)])


def test_bad_options_are_one_line():
    done = CliRunner().invoke(app, ["demo"])
    assert (
        done.exit_code == 2
        and "which models? give folders, hub ids or 'embedded', or the folder of a run" in done.stderr
    )
    with pytest.raises(RecipeError, match="--password: give user:password"):
        serve(["embedded"], {"password": "secret"})
    with pytest.raises(RecipeError, match=r"--report /no/page.html: is no file; give the page that 'run' or"):
        serve(["embedded"], {"report": "/no/page.html"})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=rf"--port {port}: can't be listened on \(.*in use\); give"):
            serve(["embedded"], {"port": port})


def test_without_gradio_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setattr("shortlm.demo.serving.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"the page needs Gradio; pip install 'shortlm\[demo\]'"):
        serve(["embedded"])


@contextmanager
def served(*arguments):
    """The address of the page, as a user would start it."""
    command = [sys.executable, "-m", "shortlm", "demo", *map(str, arguments), "--port", "0"]
    env = os.environ | {"NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as server:
        try:
            said = server.stderr.readline()
            assert said.startswith("http://127.0.0.1:"), said
            yield said.split()[0].rstrip("/")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


@pytest.fixture
def chromium():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "chromium is needed for tests marked 'browser'; deselect them with -m 'not browser'"
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def opened_page(browser, address, **options):
    page = browser.new_page(**options)
    page.outside = []
    page.on(
        "request", lambda r: page.outside.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None
    )
    page.goto(address)
    page.wait_for_selector("#prompt textarea")
    page.wait_for_timeout(500)
    return page


def ask(page, prompt, new_tokens=None):
    if new_tokens:
        page.get_by_role("button", name="Decoding").click()
        page.get_by_label("number input for New tokens").fill(str(new_tokens))
    page.fill("#prompt textarea", prompt)
    page.keyboard.press("Control+Enter")


def written(page, i, least=1):
    """The text of a column, when it has so many characters."""
    page.wait_for_function(f"document.querySelector('#written-{i} textarea').value.length >= {least}", timeout=60_000)
    return page.input_value(f"#written-{i} textarea")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page") / HOSTILE.replace("/", "")
    cut("embedded", [3, 7], out=folder)
    return folder


@pytest.mark.browser
def test_both_write_as_text_alone_and_nothing_outside_is_asked(chromium, folder):
    with served("embedded", folder) as address:
        page = opened_page(chromium, address)
        ask(page, f"{HOSTILE} {PROMPT}")
        assert written(page, 0, 40) and written(page, 1, 40)
        assert "onerror" in page.locator(".name").nth(1).inner_text()
        assert page.title() == "shortlm demo" and not page.outside
        figures = page.locator("#figures-1").inner_text()
        assert "tokens/s" in figures and "first token" in figures


@pytest.mark.browser
def test_stop_in_the_middle_and_two_visitors_at_once(chromium, folder):
    with served("embedded", folder, "--new-tokens", 400) as address:
        first, second = opened_page(chromium, address), opened_page(chromium, address)
        ask(first, PROMPT, 400)
        written(first, 0)
        ask(second, PROMPT)  # waits for its turn
        second.get_by_text("queue: 1/1").wait_for()
        first.click("#stop")
        first.wait_for_timeout(300)
        stopped = first.input_value("#written-0 textarea")
        assert written(second, 1, 40)
        assert first.input_value("#written-0 textarea") == stopped and 0 < len(stopped) < 1000


@pytest.mark.browser
def test_a_phone_shows_columns_one_below_the_other_and_errors_as_messages(chromium, folder):
    with served("embedded", folder, "--prompt-tokens", 20) as address:
        page = opened_page(chromium, address, viewport={"width": 390, "height": 844})
        boxes = [page.locator(f"#written-{i}").bounding_box() for i in range(2)]
        assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"] and boxes[0]["width"] > 300
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        ask(page, "rope " * 40)
        page.get_by_text("and 20 are allowed here; shorten it").wait_for()


@pytest.mark.browser
def test_the_report_is_one_click_away_and_only_for_those_who_may(chromium, folder, tmp_path):
    (tmp_path / "report.html").write_text("<!doctype html><title>the report</title>")
    with served("embedded", "--report", tmp_path / "report.html") as address:
        page = opened_page(chromium, address)
        with page.expect_popup() as popup:
            page.get_by_role("link", name="the report").click()
        assert popup.value.title() == "the report"
    guarded = served("embedded", "--report", tmp_path / "report.html", "--password", "ada:secret")
    with guarded as address, pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{address}/report")
