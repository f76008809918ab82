"""What a person sees of `stormrl demo`: lines that stay, and live ones while something goes on."""

from __future__ import annotations

from contextlib import AbstractContextManager

from stormrl.commands.output import messages, say
from stormrl.commands.train_messages import say_start
from stormrl.history.progress import Progress, TrainingProgress, busy
from stormrl.runs.demo import Screen
from stormrl.runs.trainer import Trainer


class VisibleScreen(Screen):
    """All of it on standard error."""

    def say(self, text: str) -> None:
        """A line that stays."""
        say(messages(), text)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """A live line, and how long it took."""
        return busy(messages(), text)

    def training(self, steps: int, seconds: float) -> Progress:
        """The display of `stormrl train`."""
        return TrainingProgress(steps, limit_s=seconds)

    def started(self, trainer: Trainer) -> None:
        """What `stormrl train` says at the start."""
        say_start(trainer)
