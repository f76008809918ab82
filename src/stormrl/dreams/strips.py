"""Plots: strips of curves to stand under rows of frames: what was earned, expected and believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from stormrl.dreams.scenes import SCALE, Course, Scene
from stormrl.pictures.media import (
    DREAM,
    FAINT,
    INK,
    PAPER,
    Colour,
    Frames,
    Image,
    Row,
    side_by_side,
)
from stormrl.pictures.vectors import shown

OWN: Colour = (0, 114, 178)
TINT: Colour = (255, 246, 228)
PALE: Colour = (122, 125, 133)
HEIGHT = 44
FINE = 3  # Drawn so many times larger, then reduced: smooth lines.

COLOURS = {"real": INK, "reconstruction": INK, "dream": DREAM, "own": OWN}
QUANTITIES = {
    "reward": ("real", "dream", "own"),
    "continues": ("real", "dream", "own"),
    "value": ("reconstruction", "dream", "own"),
    "kl": ("reconstruction", "dream"),
}
"""What is drawn, and of which courses."""
LABELS = {"reward": "reward", "continues": "goes on", "value": "value", "kl": "KL (nats)"}
LEGEND = (("real", INK), ("dream", DREAM), ("own actions", OWN))


class Span(NamedTuple):
    """Lowest and highest value of an axis."""

    low: float
    high: float


def strip_rows(scenes: Sequence[Scene]) -> list[Row]:
    """A row for each quantity, with a cursor that moves along; scenes stand side by side."""
    width = shown(scenes[0].real.frames[0]).shape[1] * SCALE
    length = len(scenes[0].real.frames)
    places = (np.arange(length) + 0.5) * width / length
    rows = []
    for name in QUANTITIES:
        span = common_span(scenes, name)
        panels = [panel(scene, name, span, places, width) for scene in scenes]
        moving = [_with_cursor(image, places) for image in panels]
        rows.append(Row(LABELS[name], side_by_side(moving)))
    note = legend(width)[None].repeat(length, axis=0)
    return [
        *rows,
        Row("", side_by_side([note] + [np.full_like(note, 255)] * (len(scenes) - 1)), None, False),
    ]


def common_span(scenes: Sequence[Scene], name: str) -> Span:
    """An axis that holds the quantity of all scenes."""
    if name == "continues":
        return Span(0, 1)
    courses = [course for scene in scenes for _, course in _courses(scene, name)]
    values = np.concatenate([getattr(course, name) for course in courses])
    values = values[np.isfinite(values)]
    if not len(values):
        return Span(0, 1)
    low, high = float(values.min()), float(values.max())
    low, high = (min(low, 0), max(high, 0)) if name in ("reward", "kl") else (low, high)
    return Span(low, high) if high > low else Span(low - 0.5, high + 0.5)


def panel(scene: Scene, name: str, span: Span, places: np.ndarray, width: int) -> Image:
    """Curves of one quantity; the value at frame `t` stands at pixel `places[t]`."""
    paper = Pillow.new("RGB", (width * FINE, HEIGHT * FINE), PAPER)
    draw = ImageDraw.Draw(paper)
    dreamt = (places[scene.context - 1] + places[scene.context]) / 2
    draw.rectangle((dreamt * FINE, 0, width * FINE, HEIGHT * FINE), fill=TINT)
    if span.low < 0 < span.high:
        zero = _y(np.zeros(1), span)[0] * FINE
        draw.line((0, zero, width * FINE, zero), FAINT, FINE)
    for kind, course in _courses(scene, name):
        values = getattr(course, name)
        _draw_line(draw, places, _y(values, span), COLOURS[kind])
    image = paper.resize((width, HEIGHT), Pillow.Resampling.LANCZOS)
    _write_span(image, span)
    return np.asarray(image)


def legend(width: int) -> Image:
    """What the colours mean."""
    paper = Pillow.new("RGB", (width, 16), PAPER)
    draw, x = ImageDraw.Draw(paper), 0.0
    font = ImageFont.load_default(11)
    for text, colour in LEGEND:
        draw.line((x, 8, x + 9, 8), colour, 3)
        draw.text((x + 12, 8), text, INK, font, "lm")
        x += 12 + font.getlength(text) + 8
    return np.asarray(paper)


def _courses(scene: Scene, name: str) -> list[tuple[str, Course]]:
    drawn = [(kind, getattr(scene, kind)) for kind in reversed(QUANTITIES[name])]
    return [(kind, course) for kind, course in drawn if course is not None]


def _y(values: np.ndarray, span: Span) -> np.ndarray:
    """Pixels from the top, with a margin of four."""
    share = (values - span.low) / (span.high - span.low)
    return 4 + (1 - share) * (HEIGHT - 8)


def _draw_line(draw: ImageDraw.ImageDraw, x: np.ndarray, y: np.ndarray, colour: Colour) -> None:
    known = np.isfinite(y)
    # A run of known values is a line; what is not known interrupts it.
    for run in np.split(np.arange(len(y)), np.flatnonzero(np.diff(known)) + 1):
        if known[run[0]]:
            points = [(float(x[t]) * FINE, float(y[t]) * FINE) for t in run]
            draw.line(points if len(points) > 1 else points * 2, colour, 5, "curve")


def _write_span(image: Pillow.Image, span: Span) -> None:
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(9)
    draw.text((3, 1), f"{span.high:.3g}", PALE, font, "lt")
    draw.text((3, HEIGHT - 2), f"{span.low:.3g}", PALE, font, "lb")


def _with_cursor(image: Image, places: np.ndarray) -> Frames:
    moving = image[None].repeat(len(places), axis=0)
    for t, x in enumerate(places):
        moving[t, :, int(x)] = moving[t, :, int(x)] // 2 + 60
    return moving
