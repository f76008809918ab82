"""Logger of a run: JSON lines for programs, TensorBoard and Weights & Biases for eyes.

`metrics.jsonl`, `episodes.jsonl` and `scores.jsonl` are histories: a resumed run cuts them back to
its checkpoint, so that no step is there twice and none is missing.
"""

import io
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from stormrl.disk.files import make_way, replace, writable
from stormrl.disk.jsonlines import JsonLines, keep_until, plain, truncate
from stormrl.disk.run_files import DIAGNOSES, EPISODES, FAILURE, METRICS, SCORES
from stormrl.errors import UserError
from stormrl.pictures.media import Frames, gif_bytes, write_mp4


class Sink(Protocol):
    """Where numbers and videos go to be looked at."""

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Numbers by name, at an environment step."""
        ...

    def video(self, tag: str, frames: Frames, step: int, fps: float) -> None:
        """frames: uint8 [T, H, W, 3]."""
        ...

    def close(self) -> None:
        """Write what is left and let go."""
        ...


class TensorBoard:
    """Scalars and GIFs (in the images tab) as TensorBoard event files.

    With `purge_step`, TensorBoard forgets what earlier event files hold from that step on: one
    more than the step of the checkpoint a run resumes from.
    """

    def __init__(self, directory: str | Path, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._directory = Path(directory)
        self._hook, threading.excepthook = threading.excepthook, self._hide_told_later
        with self._writable():
            self._writer = SummaryWriter(str(directory), purge_step=purge_step)

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """One point of the curve of each name."""
        with self._writable():
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def video(self, tag: str, frames: Frames, step: int, fps: float) -> None:
        """frames: uint8 [T, H, W, 3]; `SummaryWriter.add_video` would need moviepy for this GIF."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore

        _, height, width, _ = frames.shape
        image = Summary.Image(
            height=height,
            width=width,
            colorspace=3,
            encoded_image_string=gif_bytes(frames, fps),
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        writer = self._writer.file_writer
        assert writer is not None, "TensorBoard is closed"
        with self._writable():
            writer.add_summary(summary, step)

    def close(self) -> None:
        """Write what is left to the event file."""
        try:
            with self._writable():
                self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _writable(self) -> AbstractContextManager[None]:
        return writable(f"to {self._directory}", self._directory.parent)

    def _hide_told_later(self, failed: threading.ExceptHookArgs) -> None:
        """The writer's thread hands what it met to the next call; its own traceback is too many."""
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)


class Wandb:
    """The same verbs for Weights & Biases; a resumed run goes on under the same name.

    Raises `UserError` if the extra is not installed or W&B refuses the login.
    """

    def __init__(self, directory: str | Path, project: str) -> None:
        wandb = import_wandb()
        name = Path(directory).resolve().name
        try:
            # Its files lie in ./wandb: they link to others elsewhere, which a run must not.
            self._run: Any = wandb.init(project=project, id=name, resume="allow")
        except wandb.Error as error:
            raise UserError("wandb", f"{error} (or set WANDB_MODE=offline)") from error
        self._wandb: Any = wandb
        # W&B's own step counter only goes up; a resumed run goes back to its checkpoint's step.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """One point of the curve of each name."""
        self._run.log({**plain(values), "step": step})

    def video(self, tag: str, frames: Frames, step: int, fps: float) -> None:
        """frames: uint8 [T, H, W, 3]."""
        gif = io.BytesIO(gif_bytes(frames, fps))
        self._run.log({tag: self._wandb.Video(gif, format="gif"), "step": step})

    def close(self) -> None:
        """Wait until everything is handed over."""
        self._run.finish()


def import_wandb() -> Any:
    """W&B's package. Raises `UserError` if the extra is not installed."""
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("wandb", "is not installed: pip install 'stormrl[wandb]'") from None
    return wandb


class Recorder:
    """Hands what happens in a run to its files and to the sinks.

    What a run needs to go on, its histories, raises `UserError` where it cannot be written. A sink
    or a video that cannot is told of by `warn` alone, and a sink then gets nothing more.
    elapsed_s: seconds the run had trained before this process; `wall_s` goes on from there.
    """

    def __init__(
        self,
        run_dir: str | Path,
        sinks: Sequence[Sink] = (),
        elapsed_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._sinks = list(sinks)
        self._warn = warn
        self._clock = clock
        self._start_s = clock() - elapsed_s
        self._metrics = JsonLines(self._run_dir / METRICS)
        self._episodes = JsonLines(self._run_dir / EPISODES)
        self._scores = JsonLines(self._run_dir / SCORES)
        self._diagnoses = JsonLines(self._run_dir / DIAGNOSES)

    @property
    def wall_s(self) -> float:
        """Seconds of training so far, interruptions left out."""
        return self._clock() - self._start_s

    def metrics(self, step: int, update: int, values: Mapping[str, Any]) -> None:
        """Losses, throughput and whatever else describes the training at an environment step."""
        self._metrics.write({"step": step, "update": update, "wall_s": self.wall_s, **values})
        self._scalars(values, step)

    def episode(
        self,
        step: int,
        episode_return: float,
        length: int,
        seed: int | None,
        cut_short: bool = False,
    ) -> None:
        """One finished training episode; step: the environment step at which it ended.

        cut_short: a resumed run could not go on with it, and closed it as truncated.
        """
        self._episodes.write(
            {
                "step": step,
                "return": episode_return,
                "length": length,
                "seed": seed,
                **({"cut_short": True} if cut_short else {}),
            }
        )
        self._scalars({"episode/return": episode_return, "episode/length": length}, step)

    def score(
        self,
        checkpoint_step: int,
        protocol: str,
        episode: int,
        episode_return: float,
        length: int,
        seed: int | None,
        cut_short: bool = False,
    ) -> None:
        """One evaluation episode; the arguments are those of `score_record`."""
        self._scores.write(
            score_record(
                checkpoint_step, protocol, episode, episode_return, length, seed, cut_short
            )
        )

    def diagnosis(self, step: int, record: Mapping[str, Any]) -> None:
        """Why updates were skipped, as it was known at an environment step."""
        self._diagnoses.write({"written_at_step": step, **record})

    def failure(self, fault: BaseException) -> Path:
        """Write the traceback of what ended the run to failure.txt, whose path is returned."""
        path = self._run_dir / FAILURE
        with writable(f"to {path}", self._run_dir):
            replace(path, "".join(traceback.format_exception(fault)).encode(errors="replace"))
        return path

    def mean_score(self, checkpoint_step: int, protocol: str, mean_return: float) -> None:
        """An evaluation's one number, for the curves; the episodes themselves go to `score`."""
        self._scalars({f"score/{protocol}": mean_return}, checkpoint_step)

    def video(self, name: str, frames: Frames, step: int, fps: float) -> Path:
        """Write uint8 [T, H, W, 3] to videos/<name>-<step>.mp4, whose path is returned."""
        path = self._run_dir / "videos" / f"{name}-{step:08d}.mp4"
        try:
            make_way(path)
            write_mp4(path, frames, fps)
        except Exception as error:
            self._warn(f"{path} is not written: {one_line(error)}")
        self._hand(lambda sink: sink.video(name, frames, step, fps))
        return path

    def positions(self) -> dict[str, int]:
        """Where the histories stand, in bytes: a checkpoint keeps it, `rewind` returns to it."""
        histories = self._metrics, self._episodes, self._diagnoses
        return {lines.path.name: lines.position() for lines in histories}

    def close(self) -> None:
        """Close the files and the sinks, all of them, even if one raises."""
        files = self._metrics, self._episodes, self._scores, self._diagnoses
        with ExitStack() as parts:
            for file in files:
                parts.callback(file.close)
            self._hand(lambda sink: sink.close())

    def _scalars(self, values: Mapping[str, Any], step: int) -> None:
        self._hand(lambda sink: sink.scalars(values, step))

    def _hand(self, give: Callable[[Sink], None]) -> None:
        """Nobody who only looks on may end a run, whatever goes wrong there."""
        for sink in list(self._sinks):
            try:
                give(sink)
            except Exception as error:
                self._sinks.remove(sink)
                self._warn(f"{type(sink).__name__} gets nothing more: {one_line(error)}")
                with suppress(Exception):
                    sink.close()


def score_record(
    checkpoint_step: int,
    protocol: str,
    episode: int,
    episode_return: float,
    length: int,
    seed: int | None,
    cut_short: bool = False,
) -> dict[str, Any]:
    """A line of scores.jsonl: one evaluation episode of the agent as it was at a checkpoint.

    cut_short: the game had no end, and was stopped.
    """
    return {
        "checkpoint_step": checkpoint_step,
        "protocol": protocol,
        "episode": episode,
        "return": episode_return,
        "length": length,
        "seed": seed,
        **({"cut_short": True} if cut_short else {}),
    }


def one_line(error: Exception) -> str:
    """What an exception says, or what it is called where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def rewind(run_dir: str | Path, positions: Mapping[str, int], step: int) -> None:
    """Cut a run's histories back to the checkpoint at `step`, before a Recorder opens them.

    A history that `positions` does not name is emptied.
    Scores are cut by their checkpoint, not by position: `stormrl eval` adds some at any time.
    """
    run_dir = Path(run_dir)
    for name in (METRICS, EPISODES, DIAGNOSES):
        position = positions.get(name, 0)
        if position or (run_dir / name).exists():
            truncate(run_dir / name, position)
    keep_until(run_dir / SCORES, "checkpoint_step", step)
