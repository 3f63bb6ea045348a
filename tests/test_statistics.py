"""The statistics against plain references: sums written out, all ways in which coins can fall, printed tables."""

from __future__ import annotations

import itertools
import math
import random
import statistics as plain

import pytest
import torch

from shortlm.statistics import (
    independent_stderr,
    mean_stderr,
    order_rank,
    rank_agreement,
    resampled,
    stderr,
    student_width,
)  # fmt: skip

RNG = random.Random(0)


def test_weighted_standard_errors_are_the_linearisation_written_out():
    values, weights = [[RNG.random() for _ in range(7)] for _ in range(3)], [RNG.random() for _ in range(7)]
    weights = [w / sum(weights) for w in weights]
    expected = []
    for row in values:
        mean = sum(w * v for w, v in zip(weights, row, strict=True))
        expected.append(math.sqrt(sum((w * (v - mean)) ** 2 for w, v in zip(weights, row, strict=True)) * 7 / 6))
    found = mean_stderr(torch.tensor(values, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64))
    assert found.tolist() == pytest.approx(expected)
    assert [stderr(row, weights) for row in values] == pytest.approx(expected)
    assert math.isnan(mean_stderr(torch.ones(1, 1), torch.ones(1))[0])


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
def test_numbers_of_any_size_have_a_standard_error(scale):
    values = [scale * x for x in (1.0, -2.0, 3.5, 0.25)]
    expected = scale * (plain.stdev((1.0, -2.0, 3.5, 0.25)) / 2)
    assert stderr(values) == pytest.approx(expected) and stderr([0.0, 0.0]) == 0.0 and stderr([scale]) is None


def test_independent_errors_add_as_squares():
    assert independent_stderr([3.0, 4.0]) == 5.0 and independent_stderr([3.0, None]) is None


def test_student_is_that_of_the_tables():
    assert [round(student_width(n), 3) for n in (1, 2, 5, 10, 30, 120)] == [12.706, 4.303, 2.571, 2.228, 2.042, 1.98]
    assert student_width(0) == math.inf


def test_few_values_enclose_no_median():
    assert [order_rank(n) for n in (1, 5, 6, 8, 9, 20)] == [0, 0, 1, 1, 2, 6]


def test_rank_agreement_is_the_mean_over_all_pairs():
    own, orders = list(range(6)), [RNG.sample(range(6), 6) for _ in range(40)]
    pairs = list(itertools.combinations(range(6), 2))
    taus = [sum(1 if (o[a] < o[b]) == (own[a] < own[b]) else -1 for a, b in pairs) / len(pairs) for o in orders]
    found = rank_agreement(torch.tensor([*orders, orders[0]]), torch.tensor(own))
    assert found == pytest.approx((sum(taus) + taus[0]) / 41)
    assert rank_agreement(torch.zeros(3, 1, dtype=torch.long), torch.zeros(1, dtype=torch.long)) == 1.0


def test_resampled_means_spread_as_the_standard_error_says():
    values_LS = torch.rand(2, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights_S = torch.full((400,), 1 / 400, dtype=torch.float64)
    spread_L = resampled(values_LS, weights_S, 2000, seed=0).std(0)
    torch.testing.assert_close(spread_L, mean_stderr(values_LS, weights_S), rtol=0.08, atol=0)
