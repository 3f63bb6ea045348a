"""What a search says, in sentences: what the choice costs, how sure it is, what finer units would gain."""

from __future__ import annotations

from shortlm.artifacts import CutPlan, Search
from shortlm.report.numbers import signed, significant, typeset, whole, with_error
from shortlm.report.search import CROSS_ENTROPY, Rise, Way, chosen_step, finer_gain, ways
from shortlm.report.units import units_text


def sentences(plan: CutPlan) -> list[str]:
    """All that can be said, each one whole."""
    found = ways(plan)
    said = [held_out_words(plan.search, found), certainty_words(plan.search), gain_words(found)] if plan.search else []
    return [sentence for sentence in said if sentence]


def objective(search: Search | None) -> str:
    """What was made small, as a column is called."""
    return "loss" if search is None or search.objective == CROSS_ENTROPY else search.objective


def certainty_words(search: Search) -> str:
    """By bootstrap."""
    sure = search.certainty
    if sure is None:
        return ""
    best, above, shared = per_cent(sure.same), nats(sure.regret), per_cent(sure.overlap)
    most = typeset(significant(sure.regret_95, 2))
    return (
        f"The chosen set is the best one in {best} of {whole(sure.resamples)} resamples of the text, among "
        f"{whole(sure.sets)} sets; on average it is {above} above the best set of a resample (at most {most} in "
        f"95\u00a0% of them), and {shared} of its units are in that set."
        + (" This is of sets as they were cut; the choice was made after a repair." if search.after_repair else "")
    )


def held_out_words(search: Search, found: list[Way]) -> str:
    """The chosen set beside the whole model, on text that no search saw."""
    chosen = chosen_step(found)
    if chosen is None or chosen.held_out is None or search.held_out_base_nats is None:
        return ""
    before, after = search.held_out_base_nats, chosen.found.held_out_nats
    return (
        f"On held-out text the loss is {significant(after or 0.0, 4)} nats per token without the chosen set and "
        f"{significant(before, 4)} with the whole model: {difference(chosen.held_out)}."
    )


def gain_words(found: list[Way]) -> str:
    """What attention and FFN as units of their own gain over whole blocks, or would."""
    gain, chosen = finer_gain(found), chosen_step(found)
    if gain is None or chosen is None:
        return ""
    better, other, error = gain.rise.nats >= 0, gain.other, gain.rise.stderr
    verb = ("gain" if better else "lose") if gain.planned else ("would gain" if better else "would lose")
    amount = typeset(with_error(abs(gain.rise.nats), error))
    where = "held-out text" if gain.held_out else "the text of the search"
    beside = " beside whole blocks" * gain.planned
    noise = "" if abs(gain.rise.nats) > 2 * (error or 0.0) else ", which is within the noise"
    shares = [per_cent(step.share or 0.0, 1) for step in (other, chosen)]
    return (
        f"Finer units, attention or FFN alone, {verb} {amount} nats per token on {where}{beside}{noise}: {gain.way} "
        f"leaves out {units_text(other.found.units)} ({shares[0]} of the parameters; the plan {shares[1]})."
    )


def difference(rise: Rise) -> str:
    """+0.111 ± 0.004."""
    return typeset(signed(with_error(rise.nats, rise.stderr)))


def per_cent(share: float, digits: int = 0) -> str:
    """63 %."""
    return f"{100 * share:.{digits}f}\u00a0%"


def nats(value: float) -> str:
    """0.004 nats per token."""
    return f"{typeset(significant(value, 2))} nats per token"
