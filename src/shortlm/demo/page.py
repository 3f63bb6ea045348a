"""The page itself: one prompt, the settings of decoding, and a column for each model (Gradio Blocks)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gradio as gr

from shortlm.demo.answering import Question, answered, has_template
from shortlm.demo.contestant import Contestant
from shortlm.demo.drawing import foot, head
from shortlm.errors import ShortLMError
from shortlm.recipe import DemoSettings

CSS = Path(__file__).with_name("page.css")
REPORT = "report"  # its path on the server
EXAMPLES = ["Once upon a time", "The capital of France is", "Three things that every engineer should know:"]
DEVICE = "device"  # all who compute share one turn
FIRST_TOKENS = 64
NOTE = (
    "The models take turns of one token; the figures of each count the time of its own turns alone. At temperature 0 "
    "decoding is greedy. A prompt may have up to {} tokens. Visitors who come together wait for each other."
)
SHORTCUT = """
document.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) document.querySelector('#write')?.click();
});
"""


def page(models: list[Contestant], settings: DemoSettings, has_report: bool) -> gr.Blocks:
    """The page of these models, ready to be launched."""
    with gr.Blocks(title="shortlm demo", analytics_enabled=False) as blocks:
        _top(has_report)
        prompt = gr.Textbox(label="Prompt", lines=3, max_lines=12, elem_id="prompt", autofocus=True)
        with gr.Row():
            write = gr.Button("Write (Ctrl+Enter)", variant="primary", elem_id="write")
            stop = gr.Button("Stop", variant="stop", elem_id="stop")
        gr.Examples(_examples(models), prompt, label="Examples")
        asked = [prompt, *_decoding(models, settings)]
        columns = _columns(models)
        gr.Markdown(NOTE.format(settings.prompt_tokens), elem_classes="note")

        def answer(*values: Any) -> Iterator[list[Any]]:
            yield from _answers(models, settings, values)

        shared: Any = {"concurrency_id": DEVICE, "concurrency_limit": 1, "show_progress": "minimal"}
        shared["show_progress_on"] = prompt  # where a visitor reads how many come before
        events = [trigger(answer, asked, columns, **shared) for trigger in (write.click, prompt.submit)]
        stop.click(None, cancels=cast(Any, events), queue=False)
    blocks.queue(max_size=settings.waiting, default_concurrency_limit=1)
    return blocks


def _top(has_report: bool) -> None:
    link = f' <a href="/{REPORT}" target="_blank">What was lost and gained: the report.</a>' if has_report else ""
    gr.HTML(
        "<h1>One prompt, side by side</h1><p>The same text goes to a model and to its shorter versions. The strip "
        f"above a column shows its blocks: attention above, FFN below, hatched where gone.{link}</p>",
        elem_classes="top",
    )  # fmt: skip


def _examples(models: list[Contestant]) -> list[str]:
    """Beginnings of the embedded model's own texts, or common ones."""
    from shortlm.embedded import model_path

    if models[0].opened.checkpoint.folder != model_path():
        return EXAMPLES
    from itertools import islice

    from shortlm.embedded.corpus import documents

    return [" ".join(text.split()[:12]) for text in islice(documents(7), 3)]


def _decoding(models: list[Contestant], settings: DemoSettings) -> list[Any]:
    """The fields of a Question behind its prompt, in their order."""
    with gr.Accordion("Decoding", open=False), gr.Row():
        length = gr.Slider(
            1, settings.new_tokens, value=min(FIRST_TOKENS, settings.new_tokens), step=1, label="New tokens"
        )
        temperature = gr.Slider(0, 2, value=0, step=0.05, label="Temperature")
        top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
        chat = gr.Checkbox(False, label="As a chat", visible=has_template(models))
    return [length, temperature, top_p, seed, chat]


def _columns(models: list[Contestant]) -> list[Any]:
    """For each model what is written, then the figures below it."""
    found: list[Any] = []
    with gr.Row(equal_height=False):
        for i, model in enumerate(models):
            with gr.Column(elem_classes="column", min_width=280):
                gr.HTML(head(model))
                found.append(
                    gr.Textbox(
                        label=f"Written by {model.name}",
                        lines=12,
                        max_lines=12,
                        interactive=False,
                        elem_classes="written",
                        elem_id=f"written-{i}",
                    )
                )
                found.append(gr.HTML(foot(None), elem_id=f"figures-{i}"))
    return found


def _answers(models: list[Contestant], settings: DemoSettings, values: tuple[Any, ...]) -> Iterator[list[Any]]:
    prompt, length, temperature, top_p, seed, chat = values
    question = Question(prompt or "", int(length or 0), float(temperature), float(top_p), int(seed or 0), bool(chat))
    try:
        for writers in answered(models, question, settings):
            yield [value for writer in writers for value in (writer.text, foot(writer))]
    except ShortLMError as error:
        gr.Warning(_escaped(str(error)), title="Not possible")
        yield [gr.skip() for _ in range(2 * len(models))]


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)
