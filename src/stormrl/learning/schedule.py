"""Train ratio: how many updates are due after each environment step."""

from __future__ import annotations


class UpdateRatio:
    """Spreads `ratio` updates per step evenly; below one, an update every few steps.

    The number done is a function of the steps seen, so a resumed run goes on in step.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.steps = 0

    def due(self) -> int:
        """Count one environment step; the number of updates that are now due."""
        before = self.updates
        self.steps += 1
        return self.updates - before

    @property
    def updates(self) -> int:
        """Updates due so far. The small share added undoes rounding, as in 10 x 0.1."""
        return int(self.steps * self.ratio + 1e-9)
