"""The benchmark of decisions compares ways that give the same numbers."""

import json

import pytest

import decisions
from miniature import shrunk

NAMES = [decision.what for decision in decisions.decisions(shrunk())]


@pytest.mark.parametrize("what", NAMES)
def test_both_ways_give_the_same_numbers(what: str) -> None:
    decision = next(d for d in decisions.decisions(shrunk()) if d.what == what)
    row = decisions.measured(decision, repeats=2)
    assert row["what"] == what
    assert 0 < row["lowest"] <= row["faster"] <= row["highest"]
    assert json.dumps(row)


def test_ways_that_disagree_are_noticed() -> None:
    decision = decisions.decisions(shrunk())[0]
    wrong = decision._replace(ours=lambda: decision.plain() + 1)
    with pytest.raises(AssertionError):
        decisions.measured(wrong, repeats=2)
