"""Pictures of observations: bytes as colours, numbers as bars, or as cells where they are many."""

from __future__ import annotations

import numpy as np

from stormrl.pictures.media import DREAM, FAINT, INK, Frames

SIDE = 64
BARS = 32
"""Up to so many numbers are bars."""
FULL = 10.0
"""A number of this size fills its bar; heights grow with the square root of numbers."""


def shown(obs: np.ndarray) -> Frames:
    """Observations for eyes, uint8 [..., height, width, 3].

    obs: uint8 [..., height, width, channels] or float32 [..., V].
    """
    if obs.dtype == np.uint8:
        colours = obs.shape[-1] in (3, 4)
        return obs[..., :3] if colours else obs[..., -1:].repeat(3, axis=-1)
    draw = _bars if obs.shape[-1] <= BARS else _cells
    drawn = [draw(_height(row)) for row in obs.reshape(-1, obs.shape[-1])]
    return np.stack(drawn).reshape(*obs.shape[:-1], SIDE, SIDE, 3)


def _height(numbers: np.ndarray) -> np.ndarray:
    """From -1 to 1."""
    size = np.sqrt(np.minimum(np.abs(np.nan_to_num(numbers)) / FULL, 1))
    return np.sign(np.nan_to_num(numbers)) * size


def _bars(heights: np.ndarray) -> np.ndarray:
    """A column for each number, up or down from the middle."""
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    middle = SIDE // 2
    image[middle] = FAINT
    edges = np.linspace(0, SIDE, len(heights) + 1).round().astype(int)
    for height, left, right in zip(heights, edges[:-1], edges[1:], strict=True):
        pixels = round(abs(height) * (middle - 1))
        rows = slice(middle - pixels, middle) if height > 0 else slice(middle, middle + pixels)
        image[rows, left + (right - left > 2) : right] = INK if height > 0 else DREAM
    return image


def _cells(heights: np.ndarray) -> np.ndarray:
    """A square for each number, row by row: dark above zero, orange below, white at zero."""
    side = int(np.ceil(np.sqrt(len(heights))))
    grid = np.zeros(side * side)
    grid[: len(heights)] = heights
    share = np.abs(grid)[:, None]
    colours = np.where(grid[:, None] > 0, np.array(INK), np.array(DREAM))
    cells = ((1 - share) * 255 + share * colours).astype(np.uint8).reshape(side, side, 3)
    place = np.minimum(np.arange(SIDE) * side // SIDE, side - 1)
    return cells[place][:, place]
