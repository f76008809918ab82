"""One person's game: reality and dream side by side, without anything of a network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stormrl.dreams.env import DreamEnv
from stormrl.play.keys import idle
from stormrl.play.real import RealGame
from stormrl.play.tape import LONGEST, Played, PlayFilm, Tape
from stormrl.runs.agent import Agent

SIDES = ("real", "dream")
REST_S = 1.5
"""How long a finished game stays on the screen before the next one begins."""


@dataclass
class Settings:
    """What the page can change; its messages bear these names."""

    action: int = 0
    """What the person holds."""
    paused: bool = False
    recording: bool = False
    view: str = "both"
    """`both`, or `dream`, in which reality stands still."""
    real: str = "you"
    """Who plays reality: `you` or `agent`."""
    dream: str = "you"
    """Who plays the dream: `you`, `agent`, or `real`: whatever is done in reality."""
    speed: float = 15.0
    """Steps a second."""
    temperature: float = 1.0


@dataclass
class DreamGame:
    """The dream as the table sees it."""

    obs: np.ndarray
    info: dict[str, Any]
    action: int = -1
    reward: float = 0.0
    total: float = 0.0
    over: bool = False

    @property
    def steps(self) -> int:
        """Steps since the last real frame."""
        return self.info["dreamt"]


class Table:
    """Plays reality and dream step by step; `advance` is all that a session calls."""

    def __init__(self, agent: Agent, seed: int, context: int) -> None:
        self.settings = Settings()
        self.real = RealGame(agent, seed, context)
        self.settings.action = idle(self.real.words)
        self.rng = np.random.default_rng(seed)
        limit = agent.config.agent.dreamt_steps
        self.env = DreamEnv(agent.world_model, agent.actor_critic, limit=limit)
        self.tapes: dict[str, Tape] | None = None
        self.shown: list[dict[str, np.ndarray]] = []
        self.finished: deque[PlayFilm] = deque()
        """Recordings that wait to be saved."""
        self.reset(seed)

    def close(self) -> None:
        """Free the emulator."""
        self.real.close()

    def advance(self, commands: Mapping[str, Any], due: bool = True) -> bool:
        """Obey commands, then take a step if one is due; whether anything has changed."""
        for name, value in commands.items():
            self._obey(name, value)
        due = (due and not self.settings.paused) or "step" in commands
        if due and self._resting():
            return bool(commands)
        if due:
            self._step()
        return due or bool(commands)

    def reset(self, seed: int | None = None) -> None:
        """Another moment of another episode, in reality and in the dream."""
        self.real.reset()
        self._begin("real", self.real.obs)
        self.sync(seed)

    def sync(self, seed: int | None = None) -> None:
        """The dream begins anew, at what reality shows now."""
        obs, info = self.env.reset(seed=seed, options={"context": self.real.context()})
        self.dream = DreamGame(obs, info)
        self.over_since: float | None = None
        self._begin("dream", obs)

    def _obey(self, name: str, value: Any) -> None:
        match name:
            case "reset":
                self.reset()
            case "sync":
                self.sync()
            case "step":
                pass
            case "recording":
                self._record(value)
            case _:
                was = getattr(self.settings, name)
                setattr(self.settings, name, value)
                if (name, was, value) == ("view", "dream", "both"):
                    self.sync()  # Reality has stood still: they meet again where it stands.

    def _step(self) -> None:
        settings = self.settings
        real_action, dream_action = self._choices()
        steps: dict[str, np.ndarray] = {}
        if settings.view == "both" and not self.real.over:
            self.real.step(real_action)
            steps["real"] = self.real.obs
            end = "terminated" if self.real.terminated else "truncated" if self.real.over else None
            self._keep("real", self.real, end)
        if not self.dream.over:
            self.env.temperature = settings.temperature
            dream = self.dream
            dream.obs, dream.reward, dream.over, _, dream.info = self.env.step(dream_action)
            dream.action, dream.total = dream_action, dream.total + dream.reward
            steps["dream"] = dream.obs
            self._keep("dream", dream, "terminated" if dream.over else None)
        self._show(steps)

    def _choices(self) -> tuple[int, int]:
        """Actions in reality and in the dream."""
        settings = self.settings
        real = self.real.choose() if settings.real == "agent" else settings.action
        if settings.dream == "agent":
            return real, self.env.actions.pick(self.dream.info["policy"], self.rng)
        return real, real if settings.dream == "real" else settings.action

    def _resting(self) -> bool:
        """Whether a finished game is still looked at; the next one begins after that."""
        leading = self.real if self.settings.view == "both" else self.dream
        if not leading.over:
            return False
        now = time.monotonic()
        self.over_since = self.over_since or now
        if now - self.over_since > REST_S:
            self.reset()
        return True

    def _record(self, on: bool) -> None:
        if on and self.tapes is None:
            self.tapes, self.shown = {side: Tape() for side in SIDES}, []
            self._begin("real", self.real.obs)
            self._begin("dream", self.dream.obs)
        elif not on and self.tapes is not None:
            self.finished.append(PlayFilm(self.tapes, self.shown, self.settings.speed))
            self.tapes = None
        self.settings.recording = on

    def _begin(self, side: str, obs: np.ndarray) -> None:
        if self.tapes is not None:
            self.tapes[side].begin(obs)

    def _keep(self, side: str, game: RealGame | DreamGame, end: Any) -> None:
        if self.tapes is not None:
            step = Played(game.action, game.reward, game.info["continues"], game.obs, end)
            self.tapes[side].add(step)

    def _show(self, frames: dict[str, np.ndarray]) -> None:
        if self.tapes is None:
            return
        self.shown.append(frames)
        if len(self.shown) >= LONGEST:
            self._record(False)
