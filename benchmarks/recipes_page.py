"""docs/recipes.md from the recipes that come with the package: `python benchmarks/recipes_page.py`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from shortlm.recipe import Described, described, recipe_file, shipped

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
TODAY = "today"
HEAD = """# Models and recipes

`shortlm recipes` lists what comes with the package, `shortlm recipes show NAME` prints a recipe,
`shortlm recipes copy NAME` makes it yours, and options on the command line are laid over it:

```bash
shortlm run today/qwen3-8b --out shorter-qwen --blocks 8
shortlm run shortened-llama/llama-2-7b-taylor --out llama-cut
```

This page is made from the recipes. Costs of today's models are planned from their configs on 2 CPU cores, not run;
`shortlm plan-memory` plans for your machine.
"""
PHRASES = {"demos": "Demos", TODAY: "Models of today"}


def page() -> str:
    """The whole text."""
    parts = [HEAD]
    for folder, group in groupby(map(described, shipped()), key=lambda recipe: recipe.name.rpartition("/")[0]):
        rows = list(group)
        sources = sorted({row.source for row in rows if row.source and "arXiv" in row.source})
        title = PHRASES.get(folder or "demos", folder)
        parts.append(f"## {title}\n\n{_sources(sources)}{_costs(rows) if folder == TODAY else _table(rows)}")
    return "\n".join(parts)


def _sources(sources: list[str]) -> str:
    return f"Settings of {', '.join(sources)}.\n\n" if sources else ""


def _table(rows: list[Described]) -> str:
    lines = ["| recipe | command | model | method |", "|---|---|---|---|"]
    lines += [f"| `{row.name}` | `{row.command}` | {row.model or '–'} | {row.method or '–'} |" for row in rows]
    return "\n".join(lines) + "\n"


def _costs(rows: list[Described]) -> str:
    """With what each of them says of its cost."""
    found = []
    for row in rows:
        lines = recipe_file(row.name).read_text(encoding="utf-8").splitlines()
        comment = " ".join(line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")])
        found.append(f"**`{row.name}`**: {row.model}, {row.method}. {comment}\n")
    return "\n".join(found)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
