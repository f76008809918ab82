"""Open-loop prediction error: how far ahead a world model sees, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stormrl.dreams.scenes import Scene

RESAMPLES = 2000


class OpenLoopError(NamedTuple):
    """Squared error of frames by steps since the last real one; pixels on the scale [0, 1].

    Without pictures: of numbers, in standard deviations of what was really seen in these steps.

    Rows are episodes, the mean over the windows of each; `[:, k - 1]` is `k` steps ahead.
    """

    dream: np.ndarray
    """float64 [episodes, H]: of the dream under the actions that were taken."""
    copy: np.ndarray
    """float64 [episodes, H]: of the last real frame, held."""
    reconstruction: np.ndarray
    """float64 [episodes, H]: of frames that the model sees; what a dream can reach at best."""

    @property
    def sees_ahead(self) -> int:
        """Steps up to which the dream is nearer to what happens than a copy, at every one."""
        worse = np.flatnonzero(self.dream.mean(0) >= self.copy.mean(0))
        return int(worse[0]) if len(worse) else self.dream.shape[1]

    def as_dict(self) -> dict[str, Any]:
        """Means over episodes with their spread, JSON-able."""
        curves = {name: curve(getattr(self, name)) for name in self._fields}
        better = curve(self.copy - self.dream)
        return {
            "sees_ahead": self.sees_ahead,
            "episodes": len(self.dream),
            "ahead": list(range(1, self.dream.shape[1] + 1)),
            **curves,
            "copy_minus_dream": better,
        }


def open_loop_error(episodes: Sequence[Sequence[Scene]]) -> OpenLoopError:
    """The error over the scenes of each episode; all scenes have the same length and context."""
    rows = [np.mean([_errors(scene) for scene in scenes], axis=0) for scenes in episodes]
    return OpenLoopError(*np.stack(rows, axis=1))


def curve(values: np.ndarray) -> dict[str, list[float]]:
    """Mean over rows, their standard deviation, and the mean's 95 % bootstrap interval."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(1), (2.5, 97.5), axis=0)
    spread = values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    numbers = {"mean": values.mean(0), "std": spread, "low": low, "high": high}
    return {name: [float(x) for x in array] for name, array in numbers.items()}


def _errors(scene: Scene) -> np.ndarray:
    """float64 [3, H]: dream, copy, reconstruction."""
    real = scene.real.frames[scene.context :]
    last = scene.real.frames[scene.context - 1][None]
    guesses = (
        scene.dream.frames[scene.context :],
        last,
        scene.reconstruction.frames[scene.context :],
    )
    return np.stack([_squared(real, guess) for guess in guesses])


def _squared(real: np.ndarray, guess: np.ndarray) -> np.ndarray:
    unit = 255.0 if real.dtype == np.uint8 else np.maximum(real.std(0, dtype=np.float64), 1e-3)
    difference = (real.astype(np.float64) - guess) / unit
    return (difference**2).reshape(len(real), -1).mean(1)
