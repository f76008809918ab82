"""What a page is told: one binary message holds numbers as JSON and pictures as PNG."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import cv2
import numpy as np

from stormrl.disk.jsonlines import plain
from stormrl.pictures.vectors import shown
from stormrl.play.keys import buttons, idle
from stormrl.play.real import RealGame
from stormrl.play.table import DreamGame, Table
from stormrl.runs.agent import Agent

Point = tuple[float | None, ...]


def greeting(agent: Agent, table: Table, context: int) -> dict[str, Any]:
    """What does not change during a session."""
    model, belief = agent.config.agent.world_model, table.real.info.get("probabilities")
    return {
        "type": "hello",
        "game": agent.config.env,
        "protocol": agent.config.protocol,
        "checkpoint": agent.step,
        "actions": [button._asdict() for button in buttons(table.real.words)],
        "idle": idle(table.real.words),
        "latent": None if belief is None else list(belief.shape),
        "context": context,
        "window": model.batch_length,
        "imagined": agent.config.agent.imagination.horizon,
    }


def point(table: Table) -> Point:
    """The numbers of one step for the page's curves: of reality, then of the dream."""
    sides = (table.real, table.dream)
    names = ("continues", "value")
    values = [[side.reward, *(side.info[name] for name in names)] for side in sides]
    return tuple(value if math.isfinite(value) else None for side in values for value in side)


class Pace(NamedTuple):
    """How fast a game goes."""

    fps: float
    """Steps a second, as measured."""
    step_ms: float
    """Time that one step takes, pictures included."""


def packet(frame: int, table: Table, step: int, points: Sequence[Point], pace: Pace) -> bytes:
    """One message, with the numbers of the last steps up to `step`.

    Its header's length stands first as 4 bytes (big-endian), then the header, then the parts. The
    header's `parts` lists name and bytes of what follows it: `real` and `dream` are PNG, the
    latents, where there are, `K * C` bytes of probability, 255 for certain, and then `K` drawn
    classes.
    """
    games = {"real": table.real, "dream": table.dream}
    parts = {side: png(shown(game.obs)) for side, game in games.items()}
    parts |= {f"{s}_latent": latent(g.info) for s, g in games.items() if "latent" in g.info}
    header = {
        "frame": frame,
        "settings": asdict(table.settings),
        **pace._asdict(),
        "step": step,
        "recorded": len(table.shown) if table.settings.recording else 0,
        "points": points,
        **{side: _state(game, table) for side, game in games.items()},
        "parts": [[name, len(content)] for name, content in parts.items()],
    }
    encoded = json.dumps(plain(header), allow_nan=False).encode()
    return b"".join([len(encoded).to_bytes(4, "big"), encoded, *parts.values()])


def png(image: np.ndarray) -> bytes:
    """An RGB picture [height, width, 3], lossless."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def latent(info: dict[str, Any]) -> bytes:
    """Probabilities and drawn classes."""
    shades = np.round(info["probabilities"] * 255).astype(np.uint8)
    return shades.tobytes() + info["latent"].astype(np.uint8).tobytes()


def _state(game: RealGame | DreamGame, table: Table) -> dict[str, Any]:
    policy = game.info["policy"]
    if len(table.real.words) > 1:
        policy = table.env.actions.joint(policy)
    return {
        "steps": game.steps,
        "action": game.action,
        "total": game.total,
        "over": game.over,
        "value": game.info["value"],
        "continues": game.info["continues"],
        "reward": game.reward,
        "policy": [round(float(p), 4) for p in policy[: len(table.real.words)]],
    }
