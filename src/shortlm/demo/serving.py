"""The verb: the page behind a server of its own, until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shortlm.errors import OutputError, RecipeError, library_errors
from shortlm.paths import user_path
from shortlm.recipe import DemoSettings, settings_of

LOCAL = {"127.0.0.1", "localhost", "::1"}


def serve(
    models: Sequence[str],
    settings: DemoSettings | Mapping[str, object] | None = None,
    say: Callable[[str], None] = lambda line: None,
    until: Callable[[Any], None] | None = None,
) -> None:
    """Serve the page of these models until interrupted (or as long as `until`, called with the server, takes).

    Raises RecipeError without Gradio or for a password that is none, ModelError for models that can't be opened,
    OutputError for a port in use.
    """
    settings = settings_of(DemoSettings, settings)
    if find_spec("gradio") is None:
        raise RecipeError("the page needs Gradio; pip install 'shortlm[demo]'")
    auth = _auth(settings.password)
    from shortlm.demo.contestant import named_models, opened_models

    names, found = named_models(models)
    report = user_path(settings.report) if settings.report else found
    if report and not report.is_file():
        raise RecipeError(f"--report {report}: is no file; give the page that 'run' or 'compare' wrote")
    port = _free_port(settings)
    if settings.host not in LOCAL and auth is None:
        say(f"warning: {settings.host} is listened on without a password: everybody who can reach it may use the page")
    contestants = opened_models(names, settings)
    _launch(contestants, settings, auth, port, report, say, until)


def _launch(
    models: list[Any], settings: DemoSettings, auth: Any, port: int, report: Path | None, say: Any, until: Any
) -> None:
    import gradio as gr

    from shortlm.demo.page import CSS, SHORTCUT, page

    blocks = page(models, settings, report is not None)
    with library_errors(OutputError, f"--host {settings.host}, --port {port}: the page can't be served"):
        app, url, _ = blocks.launch(
            server_name=settings.host, server_port=port, auth=auth, inbrowser=settings.open, quiet=True, share=False,
            prevent_thread_lock=True, ssr_mode=False, footer_links=[], css_paths=[CSS], js=f"() => {{{SHORTCUT}}}",
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )  # fmt: skip
    if report:
        _add_report(app, report)
    say(f"{url} (Ctrl+C stops it)")
    try:
        until(url) if until else blocks.block_thread()
    finally:
        blocks.close(verbose=False)


def _add_report(app: Any, report: Path) -> None:
    """Before the routes of Gradio, which takes all paths; for those who may see the page."""
    from starlette.exceptions import HTTPException
    from starlette.responses import FileResponse
    from starlette.routing import Route

    from shortlm.demo.page import REPORT

    def shown(request: Any) -> FileResponse:
        names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
        if app.auth is not None and not any(app.tokens.get(request.cookies.get(name)) for name in names):
            raise HTTPException(401, "log in on the page first")
        return FileResponse(report, media_type="text/html")

    app.router.routes.insert(0, Route(f"/{REPORT}", shown))


def _auth(password: str | None) -> tuple[str, str] | None:
    if password is None:
        return None
    user, colon, secret = password.partition(":")
    if not (user and colon and secret):
        raise RecipeError("--password: give user:password")
    return user, secret


def _free_port(settings: DemoSettings) -> int:
    """The port that is asked for, or any. Raises OutputError for one in use, and a host that is not this machine."""
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        raise OutputError(
            f"--host {settings.host} --port {settings.port}: can't be listened on ({error.strerror}); give another "
            "--port (0 for any that is free)"
        ) from error
