from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stormrl.pictures.figures import Curve, learning_curve, rolling_mean, seed_band


def noisy_curve(seed: int) -> Curve:
    generator = np.random.default_rng(seed)
    steps = np.sort(generator.integers(0, 10_000, 60))
    return Curve(steps, steps / 1000 + generator.normal(size=60))


def has_colour(path: Path, colour: tuple[int, int, int]) -> bool:
    with Image.open(path) as image:
        return bool((np.asarray(image.convert("RGB")) == colour).all(-1).any())


def test_rolling_mean_looks_back_only() -> None:
    assert rolling_mean([2, 4, 9, -3], window=2).tolist() == [2, 3, 6.5, 3]
    assert rolling_mean([2, 4, 9], window=10).tolist() == [2, 3, 5]
    assert rolling_mean([], window=3).tolist() == []


def test_band_of_seeds_is_their_mean_between_the_extremes() -> None:
    seeds = [Curve([0, 10, 20], [level] * 3) for level in (1.0, 2.0, 6.0)]
    band = seed_band(seeds, window=5, points=3)
    assert band.steps.tolist() == [0, 10, 20]
    assert band.mean.tolist() == pytest.approx([3, 3, 3])
    # Of the 27 ways to draw three seeds again, one is all ones and one all sixes: 3.7 % each.
    assert band.low.tolist() == [1, 1, 1]
    assert band.high.tolist() == [6, 6, 6]


def test_band_spans_what_all_seeds_have() -> None:
    seeds = [Curve([0, 10, 30], [0, 0, 0]), Curve([5, 10, 20], [4, 4, 4])]
    band = seed_band(seeds, window=1, points=4)
    assert band.steps.tolist() == [5, 10, 15, 20]
    assert band.mean.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("frames_per_step", [None, 4])
def test_learning_curve_is_a_picture_of_a_known_size(
    tmp_path: Path, frames_per_step: int | None
) -> None:
    curves = {"paper": [noisy_curve(0)], "official": [noisy_curve(seed) for seed in (1, 2, 3)]}
    path = tmp_path / "deep" / "curve.png"
    learning_curve(path, curves, "Catch", (1.5, 0.2), frames_per_step=frames_per_step)
    with Image.open(path) as image:
        assert image.size == (1600, 900)
        edges = np.asarray(image.convert("L"))
    # Nothing is clipped: the picture's rim is empty.
    rim = np.concatenate([edges[:4].ravel(), edges[-4:].ravel(), edges[:, :4].ravel()])
    assert (rim == 255).all()
    assert (edges[:, -4:] == 255).all()
    assert has_colour(path, (0x00, 0x72, 0xB2))
    assert has_colour(path, (0xD5, 0x5E, 0x00))


def test_learning_curve_shows_the_random_agent(tmp_path: Path) -> None:
    curves = {"STORM": [noisy_curve(0)]}
    learning_curve(tmp_path / "without.png", curves, "Catch")
    learning_curve(tmp_path / "with.svg", curves, "Catch", (1.52, 0.21))
    learning_curve(tmp_path / "with.png", curves, "Catch", (1.52, 0.21))
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()
    assert "random agent 1.52 ± 0.21" in (tmp_path / "with.svg").read_text(encoding="utf-8")


def test_a_run_without_episodes_still_has_its_picture(tmp_path: Path) -> None:
    learning_curve(tmp_path / "a.png", {"STORM": [Curve([], [])]}, "Catch")
    learning_curve(tmp_path / "b.png", {}, "Catch", (1.0, 0.1))
    assert (tmp_path / "a.png").stat().st_size > 0
    assert (tmp_path / "b.png").stat().st_size > 0


def test_pictures_repeat_bit_for_bit(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        learning_curve(tmp_path / name, {"STORM": [noisy_curve(s) for s in (0, 1)]}, "Catch")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
