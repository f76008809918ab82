import hypothesis.strategies as st
import pytest
from hypothesis import given

from stormrl.learning.schedule import UpdateRatio


@pytest.mark.parametrize(
    ("ratio", "due"),
    [
        (0.0, [0, 0, 0, 0, 0, 0]),
        (0.5, [0, 1, 0, 1, 0, 1]),
        (1.0, [1, 1, 1, 1, 1, 1]),
        (1.5, [1, 2, 1, 2, 1, 2]),
        (2.0, [2, 2, 2, 2, 2, 2]),
    ],
)
def test_updates_are_spread_evenly(ratio: float, due: list[int]) -> None:
    schedule = UpdateRatio(ratio)
    assert [schedule.due() for _ in due] == due


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 500))
def test_the_total_is_the_ratio_whatever_the_rounding(up: int, down: int, steps: int) -> None:
    schedule = UpdateRatio(up / down)
    due = [schedule.due() for _ in range(steps)]
    assert sum(due) == schedule.updates == steps * up // down
    assert not due or max(due) - min(due) <= 1


def test_a_ratio_that_floats_cannot_hold_loses_no_update() -> None:
    """100 x 0.29 is 28.999999999999996."""
    schedule = UpdateRatio(0.29)
    assert sum(schedule.due() for _ in range(100)) == 29


def test_a_resumed_schedule_goes_on_in_step() -> None:
    whole, resumed = UpdateRatio(0.3), UpdateRatio(0.3)
    first = [whole.due() for _ in range(17)]
    resumed.steps = 17
    assert sum(first) == resumed.updates
    assert [resumed.due() for _ in range(20)] == [whole.due() for _ in range(20)]
