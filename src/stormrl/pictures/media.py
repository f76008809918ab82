"""Pictures and videos from uint8 arrays: their files, and labelled rows of frames.

`Frames` are [T, H, W, 3] and an `Image` is [H, W, 3], both RGB uint8.
"""

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

Frames: TypeAlias = npt.NDArray[np.uint8]
Image: TypeAlias = npt.NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont

PAPER: Colour = (255, 255, 255)
INK: Colour = (45, 48, 56)
FAINT: Colour = (214, 216, 221)
# Okabe and Ito's palette: its colours stay apart with any colour vision.
DREAM: Colour = (230, 159, 0)
DREAM_TEXT: Colour = (176, 96, 0)

MARGIN, GAP, BORDER, BAR = 12, 6, 3, 4


def write_mp4(path: str | Path, frames: Frames, fps: float) -> None:
    """H.264 that browsers play while it loads; an odd size is padded by repeating its last line."""
    stream_mp4(path, _checked(frames), fps)


def stream_mp4(path: str | Path, frames: Iterable[Image], fps: float) -> None:
    """The same from frames that need not be in memory all at once; at least one, all of a size."""
    with av.open(str(_new(path)), "w", format="mp4", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", Fraction(fps).limit_denominator(1001))
        assert isinstance(stream, VideoStream)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
        for index, frame in enumerate(map(_even, frames)):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def write_gif(path: str | Path, frames: Frames, fps: float) -> None:
    """A GIF that repeats forever; exact where a frame has at most 256 colours."""
    _new(path).write_bytes(gif_bytes(frames, fps))


def gif_bytes(frames: Frames, fps: float) -> bytes:
    """The GIF as bytes. A frame equal to the one before it becomes a longer showing of that one."""
    first, *rest = [Pillow.fromarray(frame) for frame in _checked(frames)]
    durations = _gif_durations_ms(len(frames), fps)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return buffer.getvalue()


def write_png(path: str | Path, image: Image) -> None:
    """image: uint8 [H, W, 3]."""
    Pillow.fromarray(image).save(_new(path), "PNG", optimize=True)


def _new(path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _checked(frames: Frames) -> Frames:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"frames: uint8 [T, H, W, 3] wanted, got {frames.dtype} {frames.shape}")
    return np.ascontiguousarray(frames)


def _even(frame: Image) -> Image:
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _gif_durations_ms(count: int, fps: float) -> list[int]:
    # A GIF counts in 10 ms, and browsers slow down what is under 20. Rounding the times instead of
    # the gaps between them keeps the pace.
    times = np.round(np.arange(count + 1) * 100 / min(fps, 50)).astype(int)
    return (np.diff(times) * 10).tolist()


class Row(NamedTuple):
    """A labelled row of frames [T, H, W, 3], dreamt open-loop from frame `dream_from` on."""

    label: str
    frames: Frames
    dream_from: int | None = None
    framed: bool = True

    def border_colour(self, time: int) -> Colour:
        """What the frame at `time` is framed with."""
        if not self.framed:
            return PAPER
        return DREAM if self.dream_from is not None and time >= self.dream_from else FAINT


def upscale(frames: Frames, factor: int) -> Frames:
    """Nearest-neighbour magnification of [..., H, W, 3]: pixels stay sharp squares."""
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def side_by_side(episodes: Sequence[Frames]) -> Frames:
    """Episodes of one height from left to right; one that ends early holds its last frame."""
    length = max(len(frames) for frames in episodes)
    gap = _blank(length, episodes[0].shape[1], GAP)
    columns = [part for frames in episodes for part in (gap, _hold_last(frames, length))]
    return np.concatenate(columns[1:], axis=2)


def stack_rows(rows: Sequence[Row]) -> Frames:
    """The rows as one video: labels at the left, a step counter and a timeline on top.

    Frames that are dreamt wear a coloured border. All rows must have the same number of frames.
    """
    length, font = _common_length(rows), _font(rows)
    bodies = [_bordered(row, range(length)) for row in rows]
    dream_from = min((row.dream_from for row in rows if row.dream_from is not None), default=length)
    width = max(round(font.getlength(_step(length, 0))), *(body.shape[2] for body in bodies))
    header = np.stack([_timeline(time, length, dream_from, width, font) for time in range(length)])
    return _labelled(["", *(row.label for row in rows)], [header, *bodies], font)


def contact_sheet(rows: Sequence[Row], every: int = 1, below: Sequence[Row] = ()) -> Image:
    """Every `every`-th frame from left to right as one picture [H, W, 3], steps on top.

    `below`: rows of one frame each that stand under the others as wide as they are.
    """
    times, font = range(0, _common_length(rows), every), _font(rows)
    bodies = [_bordered(row, times) for row in rows]
    width = max(body.shape[2] for body in bodies)
    steps = np.stack([_caption((_line(font), width), str(t), "centre", font) for t in times])
    strips = [side_by_side([frame[None] for frame in body]) for body in (steps, *bodies)]
    wide = [_bordered(row, range(1)) for row in below]
    labels = ["step", *(row.label for row in (*rows, *below))]
    return _labelled(labels, [*strips, *wide], font)[0]


def _common_length(rows: Sequence[Row]) -> int:
    lengths = {len(_checked(row.frames)) for row in rows}
    if len(lengths) != 1:
        raise ValueError(f"rows: one number of frames wanted, got {sorted(lengths)}")
    return lengths.pop()


def _blank(length: int, height: int, width: int, colour: Colour = PAPER) -> Frames:
    return np.full((length, height, width, 3), colour, np.uint8)


def _hold_last(frames: Frames, length: int) -> Frames:
    return np.concatenate([frames, frames[-1:].repeat(length - len(frames), axis=0)])


def _bordered(row: Row, times: Sequence[int]) -> Frames:
    _, height, width, _ = row.frames.shape
    bordered = _blank(len(times), height + 2 * BORDER, width + 2 * BORDER)
    bordered[:] = np.array([row.border_colour(time) for time in times], np.uint8)[:, None, None]
    bordered[:, BORDER:-BORDER, BORDER:-BORDER] = row.frames[list(times)]
    return bordered


def _labelled(labels: Sequence[str], bodies: Sequence[Frames], font: Font) -> Frames:
    """Bodies [T, h, w, 3] below each other, each with its label at the left."""
    length = len(bodies[0])
    gutter = round(max(font.getlength(label) for label in labels)) + 2 * MARGIN
    width = gutter + max(body.shape[2] for body in bodies) + MARGIN
    bands = []
    for label, body in zip(labels, bodies, strict=True):
        band = _blank(length, body.shape[1], width)
        band[:, :, :gutter] = _caption((body.shape[1], gutter), label, "right", font)
        band[:, :, gutter : gutter + body.shape[2]] = body
        bands += [_blank(length, GAP, width), band]
    edge = _blank(length, MARGIN, width)
    return np.concatenate([edge, *bands[1:], edge], axis=1)


def _timeline(time: int, length: int, dream_from: int, width: int, font: Font) -> Image:
    """The step in words over a bar of the whole time, filled so far, its dreamt part coloured."""
    colour = DREAM_TEXT if time >= dream_from else INK
    text = _caption((_line(font), width), _step(time, dream_from), "left", font, colour)
    bar = _blank(1, BAR, width, FAINT)[0]
    shown, real = (round(width * end / length) for end in (time + 1, dream_from))
    bar[:, :shown] = DREAM
    bar[:, : min(shown, real)] = INK
    return np.concatenate([text, bar])


def _step(time: int, dream_from: int) -> str:
    return f"step {time}" + (f", dream +{time - dream_from + 1}" if time >= dream_from else "")


def _caption(
    shape: tuple[int, int], text: str, align: str, font: Font, colour: Colour = INK
) -> Image:
    """`text` on paper of height and width `shape`, vertically centred."""
    height, width = shape
    places = {"left": (0, "lm"), "centre": (width / 2, "mm"), "right": (width - MARGIN, "rm")}
    x, anchor = places[align]
    paper = Pillow.new("RGB", (width, height), PAPER)
    ImageDraw.Draw(paper).text((x, height / 2), text, colour, font, anchor)
    return np.asarray(paper)


def _font(rows: Sequence[Row]) -> Font:
    """Pillow's own typeface, in proportion to the rows it stands beside."""
    tallest = max(row.frames.shape[1] for row in rows)
    return ImageFont.load_default(min(max(tallest // 12, 12), 24))


def _line(font: Font) -> int:
    """Height of a line of text in pixels."""
    _, top, _, bottom = font.getbbox("step")
    return round(1.2 * (top + bottom))
