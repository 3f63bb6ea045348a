"""Bad inputs: each ends soon in one clear line and exit code 2, and harms nothing."""

from __future__ import annotations

import pytest
from hostile import KINDS, World, cases, sample
from hostile.running import fault
from hostile.world import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("sound"))


def faults(chosen, world, folder) -> list[str]:
    found = []
    for number, case in enumerate(chosen):
        wrong = fault(case, world, folder / str(number))
        if wrong:
            found.append(f"{case.name}: {wrong}")
    return found


def test_there_are_many_of_every_kind():
    counts = {kind: len(cases(kind)) for kind in KINDS}
    assert sum(counts.values()) >= 2000 and min(counts.values()) >= 50, counts
    for kind in KINDS:
        names = [case.name for case in cases(kind)]
        assert len(names) == len(set(names)), kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample(kind, world, tmp_path):
    assert not faults(sample(kind, 8), world, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_all(kind, world, tmp_path):
    found = faults(cases(kind), world, tmp_path)
    assert not found, f"{len(found)} of {len(cases(kind))}:\n" + "\n".join(found)
