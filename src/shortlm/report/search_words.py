"""What a search says, in sentences: how sure the choice is, what it costs on held-out text, what finer units would gain."""

from __future__ import annotations

from shortlm.artifacts import CutPlan, Search
from shortlm.report.numbers import signed, significant, typeset, whole, with_error
from shortlm.report.search import Rise, Way, chosen_step, finer_gain, units_text, ways


def sentences(plan: CutPlan) -> list[str]:
    """All that can be said, each one whole."""
    found = ways(plan)
    said = [held_out_words(plan.search, found), certainty_words(plan.search), gain_words(found)] if plan.search else []
    return [sentence for sentence in said if sentence]


def certainty_words(search: Search) -> str:
    """By bootstrap."""
    sure = search.certainty
    if sure is None:
        return ""
    return (
        f"The chosen set is the best one in {per_cent(sure.same)} of {whole(sure.resamples)} resamples of the text, among "
        f"{whole(sure.sets)} sets; on average it is {nats(sure.regret)} above the best one of a resample "
        f"(in 95\u00a0% of them at most {significant(sure.regret_95, 2)}), which leaves out {per_cent(sure.overlap)} of the "
        "same units."
    )


def held_out_words(search: Search, found: list[Way]) -> str:
    """The chosen set beside the whole model, on text that no search saw."""
    chosen = chosen_step(found)
    if chosen is None or chosen.held_out is None or search.held_out_base_nats is None:
        return ""
    before, after = search.held_out_base_nats, chosen.found.held_out_nats
    return (
        f"On held-out text the loss is {significant(after or 0.0, 4)} nats per token without the chosen set, "
        f"{significant(before, 4)} of the whole model: {difference(chosen.held_out)}."
    )


def gain_words(found: list[Way]) -> str:
    """What attention and FFN as units of their own would gain over whole blocks."""
    gain = finer_gain(found)
    if gain is None:
        return ""
    where = "held-out text" if gain.held_out else "the text of the search"
    rise, verb = gain.rise, "gain" if gain.rise.nats >= 0 else "lose"
    amount = typeset(with_error(abs(rise.nats), rise.stderr))
    return (
        f"Finer units would {verb} {amount} nats per token on {where}: {gain.way} keeps no more parameters and leaves out "
        f"{units_text(gain.step.found.units)}."
    )


def difference(rise: Rise) -> str:
    """+0.111 ± 0.004."""
    return typeset(signed(with_error(rise.nats, rise.stderr)))


def per_cent(share: float) -> str:
    """63 %."""
    return f"{100 * share:.0f}\u00a0%"


def nats(value: float) -> str:
    """0.004 nats per token."""
    return f"{typeset(significant(value, 2))} nats per token"
