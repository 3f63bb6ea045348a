"""What stands above and below a column, as HTML: every text in it is escaped."""

from __future__ import annotations

from html import escape

from shortlm.demo.contestant import Contestant
from shortlm.demo.writer import Writer
from shortlm.sizes import count, duration, gib, significant

FIGURES = ("tokens", "tokens/s", "first token", "in all", "KV cache")


def head(model: Contestant) -> str:
    """Its name, its size, and which blocks, attention and FFN are gone."""
    facts = model.opened.facts
    sizes = f"{count(facts.parameters)} parameters · {gib(model.weight_bytes)} of weights"
    per_token = "no KV cache" if model.cache_bytes is None else f"KV cache {gib(model.cache_bytes)} a token"
    return (
        f'<h2 class="name">{escape(model.name)}</h2><p class="sizes">{escape(sizes)}<br>{escape(per_token)}</p>'
        f'<div class="strip" role="img" aria-label="{escape(described(model))}">{_strip(model)}</div>'
        f'<p class="gone">{escape(described(model))}</p>'
    )


def described(model: Contestant) -> str:
    """The strip in words."""
    units = model.units
    gone = [str(i) for i, attention, ffn in units if not (attention or ffn)]
    parts = [f"{i}.{'ffn' if attention else 'attention'}" for i, attention, ffn in units if attention != ffn]
    widths = " Heads and channels are fewer." if model.manifest and _narrowed(model) else ""
    if not (gone or parts):
        return f"All {len(units)} blocks.{widths}"
    said = [f"Without {'block' if len(gone) == 1 else 'blocks'} {', '.join(gone)}"] if gone else []
    said += [f"{'without' if gone else 'Without'} {', '.join(parts)}"] if parts else []
    return f"{', '.join(said)} of {len(units)} blocks.{widths}"


def _narrowed(model: Contestant) -> bool:
    return any(step.kind == "width" for step in model.manifest.steps) if model.manifest else False


def _strip(model: Contestant) -> str:
    """A cell for each block: attention above, FFN below."""
    cell = '<span class="block" title="{title}"><i class="{attention}"></i><i class="{ffn}"></i></span>'
    return "".join(
        cell.format(
            title=f"block {i}: attention {'stays' if attention else 'gone'}, FFN {'stays' if ffn else 'gone'}",
            attention="kept" if attention else "out", ffn="kept" if ffn else "out",
        )
        for i, attention, ffn in model.units
    )  # fmt: skip


def foot(writer: Writer | None) -> str:
    """How fast it is, by the time of its own turns; what went wrong, if something did."""
    if writer is None:
        return _figures([(name, "–") for name in FIGURES])
    if writer.failure:
        return f'<p class="failed" role="alert">{escape(writer.failure)}</p>'
    tokens = len(writer.new)
    later = writer.seconds - (writer.first or 0.0)
    speed = significant((tokens - 1) / later) if tokens > 1 and later else "–"
    first = duration(writer.first) if writer.first else "–"
    cache = "–" if writer.cache_bytes is None else gib(writer.cache_bytes)
    return _figures(list(zip(FIGURES, (f"{tokens}", speed, first, duration(writer.seconds), cache), strict=True)))


def _figures(pairs: list[tuple[str, str]]) -> str:
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="speed">{cells}</dl>'
