"""Which heads and channels stay: how many of every block, or by one order of all blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from shortlm.errors import PlanError
from shortlm.recipe import WidthSettings
from shortlm.sizes import count as counted, parameter_count, share
from shortlm.units import ATTENTION, FFN
from shortlm.width.groups import Groups, Kept

Counts = dict[tuple[int, str], int]  # block, part -> how many groups stay
Scores = dict[tuple[int, str], torch.Tensor]  # block, part -> float64, one for each group
BUDGETS = ("drop_params", "to_params", "ratio")


def wanted(settings: WidthSettings, parameters: int, groups: Sequence[Groups]) -> tuple[float, Counts | None]:
    """How many parameters go, and by --ratio how many groups of every branch stay.

    `groups` are those that may go. Raises PlanError for no budget or several, or for one that leaves no head.
    """
    given = [name for name in BUDGETS if getattr(settings, name) is not None]
    if len(given) != 1:
        what = f"{' and '.join('--' + n.replace('_', '-') for n in given)} are given" if given else "no budget is given"
        raise PlanError(f"{what}; give one of --drop-params 20%, --to-params 5.4B, --ratio 25%")
    if settings.ratio is not None:
        part = share(settings.ratio, "ratio")
        kept = {(g.block, g.part): g.count - int(part * g.count) for g in groups}
        return float(sum((g.count - kept[g.block, g.part]) * g.parameters for g in groups)), kept
    if settings.drop_params is not None:
        removed = share(settings.drop_params, "drop_params") * parameters
    else:
        removed = float(parameters - parameter_count(settings.to_params or ""))
    _refuse_beyond(removed, parameters, groups)
    return removed, None


def _refuse_beyond(removed: float, parameters: int, groups: Sequence[Groups]) -> None:
    most = sum((g.count - 1) * g.parameters for g in groups)
    if not 0 < removed <= most:
        raise PlanError(
            f"{counted(parameters - removed)} of {counted(parameters)} parameters can't be left: with one KV head "
            f"and one channel in every block there are {counted(parameters - most)}; give another budget, or drop "
            "blocks too"
        )


def uniform(groups: Sequence[Groups], removed: float, even: bool = False, heads: int | None = None) -> Counts:
    """The same share of the heads and channels of every block, `removed` parameters together to within a channel: a
    channel in all of the blocks if `even`, in one of them else.

    The number of KV heads is rounded, or given (`heads` stay in every block), or the nearest for which channels can
    make up. Raises PlanError where there is none.
    """
    attention, channels = ([g for g in groups if g.part == part] for part in (ATTENTION, FFN))
    part = removed / sum(g.count * g.parameters for g in groups)
    most = sum((g.count - 1) * g.parameters for g in channels)
    slack = sum(g.parameters for g in channels or attention) / 2  # of rounding, by a group in every block
    widest = max((g.count for g in attention), default=0)
    for shift in sorted(range(-widest, widest + 1), key=abs) if not heads else [0]:
        kept = {(g.block, g.part): _heads(g, part, heads, shift) for g in attention}
        rest = removed - sum((g.count - kept[g.block, g.part]) * g.parameters for g in attention)
        if -slack <= rest <= most + slack:
            return kept | _channels(channels, max(0.0, rest), even)
    fixed = f", and {heads} of {widest} KV heads have to stay" if heads else ""
    raise PlanError(
        f"{counted(removed)} parameters can't go where every block keeps a KV head and a channel{fixed}; give another "
        "budget, or drop blocks too"
    )


def _heads(g: Groups, part: float, heads: int | None, shift: int) -> int:
    return min(g.count, max(1, heads or g.count - _nearest(part * g.count) + shift))


def _channels(channels: Sequence[Groups], rest: float, even: bool) -> Counts:
    """How many channels stay where `rest` parameters of them go, the same share of every block."""
    whole = sum(g.count * g.parameters for g in channels)
    ideal = [rest / whole * g.count for g in channels]
    gone = [_nearest(number) if even else int(number) for number in ideal]
    missing = rest - sum(n * g.parameters for n, g in zip(gone, channels, strict=True))
    by_remainder = sorted(range(len(channels)), key=lambda place: (int(ideal[place]) - ideal[place], place))
    for place in by_remainder if not even else ():
        if missing >= channels[place].parameters / 2:
            gone[place] += 1
            missing -= channels[place].parameters
    return {(g.block, g.part): max(1, g.count - n) for n, g in zip(gone, channels, strict=True)}


def _nearest(number: float) -> int:
    """Halves down: fewer go."""
    return int(number + 0.5 - 1e-9)


def best(scores: Mapping[tuple[int, str], torch.Tensor], counts: Counts) -> Kept:
    """The groups of the highest scores, so many of every branch; of equal ones the first."""
    return {key: _highest(values.tolist(), counts[key]) for key, values in scores.items()}


def _highest(values: list[float], count: int) -> list[int]:
    order = sorted(range(len(values)), key=lambda k: (-values[k], k))
    return sorted(order[:count])


def pooled(groups: Sequence[Groups], scores: Scores, removed: float) -> Kept:
    """The lowest of all scores go, heads and channels side by side, until `removed` parameters are gone, to half a
    channel; a head that would be too much is passed over. One head and one channel stay in every block.
    """
    by_key = {(g.block, g.part): g for g in groups}
    order = sorted((float(s), key, k) for key, values in scores.items() for k, s in enumerate(values))
    gone: dict[tuple[int, str], set[int]] = {key: set() for key in by_key}
    left = removed
    for _, key, k in order:
        g = by_key[key]
        if len(gone[key]) == g.count - 1:
            continue
        if left < g.parameters / 2:
            continue
        gone[key].add(k)
        left -= g.parameters
    return {key: [k for k in range(g.count) if k not in gone[key]] for key, g in by_key.items()}
