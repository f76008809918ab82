"""Wrapper that tells when a life is lost."""

from typing import Any

import gymnasium


class LifeLost(gymnasium.Wrapper):
    """Adds `info["life_lost"]`: whether this step ended with fewer lives than the one before.

    Reads `info["lives"]`; an environment without it never loses a life.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.lives = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and counts its lives."""
        obs, info = self.env.reset(seed=seed, options=options)
        self.lives = int(info.get("lives", 0))
        return obs, {**info, "life_lost": False}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment and compares its lives with those before."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        before, self.lives = self.lives, int(info.get("lives", self.lives))
        return obs, reward, terminated, truncated, {**info, "life_lost": self.lives < before}
