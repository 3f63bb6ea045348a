"""A section of the page: what it needs, what it computes from the evidence, and its part of the template.

To add one: a file in sections/ that ends with its SECTION, and its name in the list of sections/__init__.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from shortlm.report import numbers
from shortlm.report.evidence import Evidence
from shortlm.report.units import units_text

LEGEND = Markup(
    '<p class="legend"><span class="kept">kept</span> <span class="removed">removed</span> '
    '<span class="protected">protected, kept</span></p>'
)


@dataclass(frozen=True)
class Section:
    """One section. Its `template` is what stands under the heading: HTML with Jinja, in which every value is escaped
    unless `compute` hands it on as Markup (our own SVG). The filters are those of `environment`.
    """

    id: str  # of the element; whatever stands inside has ids that begin otherwise than those of other sections
    heading: str
    needs: Callable[[Evidence], object]  # false where there is nothing to show: the section is left out
    compute: Callable[[Evidence], dict[str, Any]]  # the names that the template shows
    template: str

    def body(self, evidence: Evidence) -> Markup:
        """What stands under the heading."""
        drawn = environment().from_string(self.template).render(self.compute(evidence))
        return Markup(drawn.strip("\n"))  # values were escaped where they were put in


@cache
def environment() -> Environment:
    """Jinja for HTML: everything is escaped, unknown names are errors, numbers are typeset."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for name in ("count", "whole", "size", "significant", "duration", "blocks"):
        environment.filters[name] = _typeset(getattr(numbers, name))
    environment.filters |= {"units": units_text, "typeset": numbers.typeset}
    environment.globals |= {
        "with_error": _typeset(numbers.with_error),
        "signed_error": _typeset(_signed_error),
        "chance": _typeset(numbers.chance),
    }
    return environment


def _typeset(function: Any) -> Any:
    return lambda *values: numbers.typeset(function(*values))


def _signed_error(value: float, error: float | None) -> str:
    return numbers.signed(numbers.with_error(value, error))
