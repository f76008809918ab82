"""Games that are wrong in random ways: never a traceback, never a wrong row in replay."""

from typing import Any

import pytest
from hypothesis import given, settings

from wrong_games import GAMES, check_agrees, game_is_played_or_refused


@settings(max_examples=300)
@given(drawn=GAMES)
def test_games_are_played_or_refused(drawn: dict[str, Any]) -> None:
    game_is_played_or_refused(drawn)


@pytest.mark.slow
@settings(max_examples=100)
@given(drawn=GAMES)
def test_check_env_approves_of_none_that_is_refused(drawn: dict[str, Any]) -> None:
    check_agrees(drawn)
