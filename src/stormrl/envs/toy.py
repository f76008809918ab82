"""Toy environments with a known optimum, learnable in minutes, one of which needs memory."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

GRID = 8  # cells a side
CELL = 8  # pixels a side
CENTRE = GRID // 2
LEFT, STAY, RIGHT = 0, 1, 2

BALL_COLOUR = (255, 255, 255)
PADDLE_COLOUR = (64, 160, 255)


class Catch(gymnasium.Env[np.ndarray, np.int64]):
    """Catch the falling ball with the paddle: +1 for a ball caught, -1 for a ball missed.

    Each fall, the ball starts in a random column of the top row and the paddle in the centre of
    the bottom row; every step the paddle moves by at most one cell and the ball drops one. After
    `GRID - 1` steps the ball lands and the reward is given; the step that follows, whatever its
    action, starts the next fall. The landing of the last of `falls` balls ends the episode.

    The paddle is never more than `CENTRE` cells away from the ball, so every ball can be caught
    and `optimal_return` is `falls`. Play that does not look at the ball catches one in
    `GRID`, so random play expects `falls * (2 / GRID - 1)`.

    The ball is drawn in the first `visible_rows` rows only. With two of them (HiddenCatch) the
    paddle can carry the memory of at most `2 * 2 + 1` of the eight columns out of the frames that
    show the ball, so a policy that sees one frame at a time catches at most five balls in eight: a
    quarter of the optimal return.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(
        self, visible_rows: int = GRID, falls: int = 5, render_mode: str | None = None
    ) -> None:
        self.observation_space = spaces.Box(0, 255, (GRID * CELL, GRID * CELL, 3), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.render_mode = render_mode
        self.visible_rows = visible_rows
        self.falls = falls
        self.landed = 0  # balls of this episode that have reached the bottom row
        self.ball_row = self.ball_column = 0
        self.paddle_column = CENTRE

    @property
    def optimal_return(self) -> float:
        """The return of an episode in which every ball is caught."""
        return float(self.falls)

    def get_action_meanings(self) -> list[str]:
        """A word for each action."""
        return ["LEFT", "STAY", "RIGHT"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; the picture is uint8 [64, 64, 3]."""
        super().reset(seed=seed)
        self.landed = 0
        self._start_fall()
        return self._draw(), {}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves the paddle, then drops the ball."""
        if self.ball_row == GRID - 1:
            self._start_fall()
            return self._draw(), 0.0, False, False, {}
        self.paddle_column = min(max(self.paddle_column + int(action) - STAY, 0), GRID - 1)
        self.ball_row += 1
        reward = self._land() if self.ball_row == GRID - 1 else 0.0
        return self._draw(), reward, self.landed == self.falls, False, {}

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The picture the agent sees."""
        return self._draw() if self.render_mode == "rgb_array" else None

    def _start_fall(self) -> None:
        self.ball_row, self.ball_column = 0, int(self.np_random.integers(GRID))
        self.paddle_column = CENTRE

    def _land(self) -> float:
        self.landed += 1
        return 1.0 if self.ball_column == self.paddle_column else -1.0

    def _draw(self) -> np.ndarray:
        image = np.zeros((GRID, CELL, GRID, CELL, 3), np.uint8)
        if self.ball_row < self.visible_rows:
            image[self.ball_row, :, self.ball_column] = BALL_COLOUR
        image[-1, CELL // 2 :, self.paddle_column] = PADDLE_COLOUR
        return image.reshape(GRID * CELL, GRID * CELL, 3)


def register_toy_games() -> None:
    """Registers `stormrl/Catch-v0` and `stormrl/HiddenCatch-v0` with Gymnasium."""
    entry_point = f"{__name__}:{Catch.__name__}"
    gymnasium.register("stormrl/Catch-v0", entry_point)
    gymnasium.register("stormrl/HiddenCatch-v0", entry_point, kwargs={"visible_rows": 2})
