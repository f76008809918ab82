from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from stormrl.pictures.media import (
    DREAM,
    Frames,
    Row,
    contact_sheet,
    gif_bytes,
    side_by_side,
    stack_rows,
    upscale,
    write_gif,
    write_mp4,
    write_png,
)
from videos import read_video

COLOURS = np.array([[200, 40, 40], [40, 160, 60], [30, 60, 200], [240, 220, 90]], np.uint8)


def moving_blocks(length: int, height: int, width: int) -> Frames:
    """Four colours in quarters, and a white bar that goes down a row a frame."""
    frames = np.empty((length, height, width, 3), np.uint8)
    for index, colour in enumerate(COLOURS):
        top, left = (index // 2) * (height // 2), (index % 2) * (width // 2)
        frames[:, top:, left:] = colour
    for time in range(length):
        frames[time, time % height] = 255
    return frames


def mean_error(seen: Frames, wanted: Frames) -> float:
    return float(np.abs(seen.astype(int) - wanted).mean())


@pytest.mark.parametrize(("height", "width"), [(64, 96), (63, 95), (33, 64)])
def test_mp4_holds_every_frame_in_its_colours(tmp_path: Path, height: int, width: int) -> None:
    frames = moving_blocks(20, height, width)
    write_mp4(tmp_path / "deep" / "a.mp4", frames, fps=15)
    seen = read_video(tmp_path / "deep" / "a.mp4")
    assert seen.shape == (20, height + height % 2, width + width % 2, 3)
    assert mean_error(seen[:, :height, :width], frames) < 5
    # The bar is on its way: each frame is nearest to the frame that was written in its place.
    for time in (0, 7, 19):
        errors = [mean_error(seen[time, :height, :width], frame) for frame in frames]
        assert int(np.argmin(errors)) == time


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", moving_blocks(30, 64, 64), fps=7.5)
    with av.open(str(tmp_path / "a.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(15, 2)
        assert float((stream.duration or 0) * (stream.time_base or 0)) == pytest.approx(4.0)
    content = (tmp_path / "a.mp4").read_bytes()
    # The index stands before the frames, so that playing starts before the download ends.
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_gif_is_exact_and_loops(tmp_path: Path) -> None:
    frames = moving_blocks(6, 31, 45)
    write_gif(tmp_path / "a.gif", frames, fps=10)
    np.testing.assert_array_equal(read_video(tmp_path / "a.gif"), frames)
    assert (tmp_path / "a.gif").read_bytes() == gif_bytes(frames, 10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0


@pytest.mark.parametrize(("fps", "seconds"), [(15, 4.0), (30, 2.0), (4, 15.0), (60, 1.2)])
def test_gif_keeps_the_pace_although_it_counts_in_hundredths(
    tmp_path: Path, fps: float, seconds: float
) -> None:
    write_gif(tmp_path / "a.gif", moving_blocks(60, 64, 8), fps)
    durations = []
    with Image.open(tmp_path / "a.gif") as gif:
        for frame in range(getattr(gif, "n_frames", 1)):
            gif.seek(frame)
            durations.append(gif.info["duration"])
    assert sum(durations) == pytest.approx(1000 * seconds)
    assert min(durations) >= 20


def test_a_standing_picture_keeps_its_time_in_a_gif(tmp_path: Path) -> None:
    frames = moving_blocks(3, 16, 16)[[0, 0, 0, 1, 2, 2]]
    write_gif(tmp_path / "a.gif", frames, fps=10)
    durations = []
    with Image.open(tmp_path / "a.gif") as gif:
        for frame in range(getattr(gif, "n_frames", 1)):
            gif.seek(frame)
            durations.append(gif.info["duration"])
    assert durations == [300, 100, 200]


def test_png_is_exact(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    write_png(tmp_path / "deep" / "a.png", image)
    with Image.open(tmp_path / "deep" / "a.png") as seen:
        np.testing.assert_array_equal(np.asarray(seen), image)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_what_is_not_a_video_is_refused(tmp_path: Path, frames: Frames) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_mp4(tmp_path / "a.mp4", frames, 10)
    with pytest.raises(ValueError, match="uint8"):
        gif_bytes(frames, 10)
    assert not (tmp_path / "a.mp4").exists()


def test_upscale_makes_squares_of_pixels() -> None:
    frames = moving_blocks(2, 4, 6)
    large = upscale(frames, 3)
    assert large.shape == (2, 12, 18, 3)
    for row in range(12):
        for column in range(18):
            np.testing.assert_array_equal(large[:, row, column], frames[:, row // 3, column // 3])
    np.testing.assert_array_equal(upscale(frames[0], 3), large[0])


def test_side_by_side_holds_the_last_frame_of_the_shorter() -> None:
    long, short = moving_blocks(5, 16, 20), moving_blocks(2, 16, 12)
    both = side_by_side([long, short])
    assert both.shape[:2] == (5, 16)
    np.testing.assert_array_equal(both[:, :, :20], long)
    np.testing.assert_array_equal(both[:, :, -12:], short[[0, 1, 1, 1, 1]])


def places(image: Frames, picture: Frames) -> list[tuple[int, int]]:
    """Every (top, left) at which `picture` stands in `image`, pixel for pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(image, picture.shape)[:, :, 0]
    candidates = (windows[..., 0, 0, :] == picture[0, 0]).all(-1).nonzero()
    return [
        (top, left)
        for top, left in zip(*map(np.ndarray.tolist, candidates), strict=True)
        if np.array_equal(windows[top, left], picture)
    ]


def ring(image: Frames, top: int, left: int, size: int) -> Frames:
    """The pixels right around a square picture."""
    outer = image[top - 1 : top + size + 1, left - 1 : left + size + 1]
    return np.concatenate([outer[0], outer[-1], outer[:, 0], outer[:, -1]])


def example_rows() -> list[Row]:
    frames = moving_blocks(12, 24, 24)
    return [
        Row("real", frames),
        Row("reconstruction", 255 - frames),
        Row("dream", frames[:, :, ::-1], dream_from=5),
    ]


def test_rows_hold_their_frames_below_each_other() -> None:
    rows = example_rows()
    video = stack_rows(rows)
    assert len(video) == 12
    for time in (0, 4, 5, 11):
        found = [places(video[time], row.frames[time]) for row in rows]
        assert [len(places) for places in found] == [1, 1, 1]
        tops, lefts = zip(*(place for (place,) in found), strict=True)
        assert list(tops) == sorted(tops)
        assert len(set(lefts)) == 1


@pytest.mark.parametrize(("time", "dreamt"), [(0, False), (4, False), (5, True), (11, True)])
def test_a_dreamt_frame_and_no_other_wears_the_border(time: int, dreamt: bool) -> None:
    rows = example_rows()
    image = stack_rows(rows)[time]
    for row in rows:
        ((top, left),) = places(image, row.frames[time])
        coloured = (ring(image, top, left, 24) == DREAM).all(-1)
        assert coloured.all() if dreamt and row.label == "dream" else not coloured.any()


def test_labels_and_steps_are_written() -> None:
    frames = moving_blocks(3, 40, 40)
    one, other = (stack_rows([Row(label, frames)]) for label in ("dream", "merda"))
    assert not np.array_equal(one, other)
    still = stack_rows([Row("dream", frames[[0, 0, 0]])])
    top = places(still[0], frames[0])[0][0]
    assert not np.array_equal(still[0, :top], still[1, :top])
    np.testing.assert_array_equal(still[0, top:], still[1, top:])


def test_a_long_label_is_not_cut() -> None:
    frames = moving_blocks(1, 40, 40)
    image = stack_rows([Row("reconstruction of the posterior", frames)])[0]
    assert (image[:, :4] == 255).all()
    assert (image[:, 8:60] < 128).any()


def test_rows_of_unlike_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        stack_rows([Row("real", moving_blocks(3, 8, 8)), Row("dream", moving_blocks(4, 8, 8))])


def test_contact_sheet_lays_out_every_kth_frame() -> None:
    rows = example_rows()
    sheet = contact_sheet(rows, every=4)
    lefts = []
    for row in rows:
        for time in range(12):
            assert bool(places(sheet, row.frames[time])) == (time % 4 == 0)
        found = [places(sheet, row.frames[time])[0] for time in (0, 4, 8)]
        assert len({top for top, _ in found}) == 1
        lefts.append([left for _, left in found])
    assert lefts[0] == lefts[1] == lefts[2] == sorted(lefts[0])
    top, left = places(sheet, rows[2].frames[8])[0]
    assert (ring(sheet, top, left, 24) == DREAM).all()
