"""Reconstruction and open-loop prediction of real windows: all frames seen, or only a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stormrl.agents.protocol import Behaviour
from stormrl.dreams.env import DreamContext, DreamEnv, observed, seen
from stormrl.nn.functional import categorical_kl
from stormrl.pictures.media import Row, side_by_side, upscale
from stormrl.pictures.vectors import shown
from stormrl.types import Batch, channels_last
from stormrl.worlds.protocol import World

SCALE = 3


class Course(NamedTuple):
    """How a window went in reality or in the model's eyes: index `t` is what came with frame `t`.

    So `reward[t]` and `continues[t]` follow the action before frame `t`, unlike in a batch. What
    is not known is NaN.
    """

    frames: np.ndarray
    """uint8 [T, height, width, channels] or float32 [T, V]"""
    reward: np.ndarray
    """float64 [T]; predicted, unless the course is the real one."""
    continues: np.ndarray
    """float64 [T]: probability that the episode went on, or whether it did."""
    value: np.ndarray
    """float64 [T]: the critic's value of the state at frame `t`."""
    kl: np.ndarray
    """float64 [T]: nats between the posterior, which has seen frame `t`, and the prior."""


class Scene(NamedTuple):
    """One window four times over; the dreams saw its first `context` frames."""

    context: int
    real: Course
    reconstruction: Course
    """The model saw every frame: what it predicts is one step ahead."""
    dream: Course
    """The model went on under the actions that were taken."""
    own: Course | None
    """The policy acted in the dream; None without a policy."""


def scenes(
    world_model: World,
    actor_critic: Behaviour | None,
    batch: Batch,
    context: int,
    temperature: float = 1.0,
    limit: int | None = None,
) -> list[Scene]:
    """A scene for each window of a batch. Draws from torch's default generator.

    limit: most steps that a state of the dreams looks back on, as of `DreamEnv`.
    """
    env = DreamEnv(world_model, actor_critic, temperature=temperature, limit=limit)
    windows = [Batch(*(part[row] for part in batch)) for row in range(len(batch.action))]
    return [_scene(env, window, context, int(torch.randint(2**31, ()))) for window in windows]


def dream_rows(
    world_model: World, batch: Batch, context: int, temperature: float = 1.0
) -> Sequence[Row]:
    """Three rows to look at: real, reconstruction and dream; windows stand side by side."""
    return picture_rows(scenes(world_model, None, batch, context, temperature))


def picture_rows(seen: Sequence[Scene]) -> list[Row]:
    """A row for each course of the scenes, which stand side by side."""
    context = seen[0].context
    rows = [
        _row("real", [scene.real for scene in seen]),
        _row("reconstruction", [scene.reconstruction for scene in seen]),
        _row("dream", [scene.dream for scene in seen], context),
    ]
    own = [scene.own for scene in seen if scene.own is not None]
    return [*rows, _row("own actions", own, context)] if own else rows


def _row(label: str, courses: Sequence[Course], dream_from: int | None = None) -> Row:
    frames = side_by_side([upscale(shown(course.frames), SCALE) for course in courses])
    return Row(label, frames, dream_from)


def _scene(env: DreamEnv, window: Batch, context: int, seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    reconstruction, beliefs = watch(env, window, rng)
    taken = window.action.tolist()
    dream = _dream(env, window, context, seed, lambda t, _: taken[t], reconstruction, beliefs)
    own = None
    if env.actor_critic is not None:

        def policy(_: int, info: dict) -> int:
            return env.actions.pick(info["policy"], rng)

        own = _dream(env, window, context, seed, policy, reconstruction)
    return Scene(context, _real(window), reconstruction, dream, own)


def _real(window: Batch) -> Course:
    unknown = np.full(len(window.action), np.nan)
    return Course(
        _frames(window.obs), _after(window.reward), _after(window.continues), unknown, unknown
    )


@torch.no_grad()
def watch(env: DreamEnv, window: Batch, rng: np.random.Generator) -> tuple[Course, list[Tensor]]:
    """The course of a model that sees every frame, and what it believed of each, if it tells.

    At the beginning of an episode there is nothing to look back on.
    """
    world, agent = env.world_model, env.actor_critic
    mind, steps = world.mind(), len(window.action)
    course = Course(np.empty_like(_frames(window.obs)), *np.full((4, steps), np.nan))
    beliefs: list[Tensor] = []
    expected, habit = None, ()

    def uniform(shape: Sequence[int]) -> Tensor:
        return torch.from_numpy(rng.random(tuple(shape), np.float32)).to(world.device)

    for t, begins in enumerate(world.resets(window.is_first).tolist()):
        frame = window.obs[t : t + 1]
        if expected is None or begins:
            mind.begin(frame.unsqueeze(1), window.action[None, :0], uniform)
            habit = () if agent is None else agent.begin(1)
        else:
            mind.see(frame, uniform)
        view = mind.view
        course.frames[t] = observed(world, view)[0]
        if agent is not None:
            opinion, habit = agent.opinion(view, habit)
            course.value[t] = seen(view, opinion)["value"]
        if view.belief is not None:
            beliefs.append(view.belief[0])
            if expected is not None and expected.belief is not None and not begins:
                course.kl[t] = float(categorical_kl(view.belief, expected.belief))
        expected = mind.take(int(window.action[t]), uniform)
        if t + 1 < steps:
            course.reward[t + 1], course.continues[t + 1] = map(float, expected.outcome)
    return course, beliefs


def _dream(
    env: DreamEnv,
    window: Batch,
    context: int,
    seed: int,
    act: Callable[[int, dict], int],
    seen: Course,
    beliefs: Sequence[Tensor] = (),
) -> Course:
    """The course that goes as `seen` up to the context and as dreamt from there on."""
    # Of a context with an episode's beginning in it, the dream goes on from what comes after.
    resets = env.world_model.resets(window.is_first[:context])
    begin = max([0, *resets.nonzero().flatten().tolist()])
    obs = _frames(window.obs[begin:context])
    start = DreamContext(obs, window.action[begin : context - 1].cpu().numpy())
    _, info = env.reset(seed=seed, options={"context": start})
    course = Course(*(part.copy() for part in seen))
    for t in range(context, len(window.action)):
        course.frames[t], course.reward[t], _, _, info = env.step(act(t - 1, info))
        course.continues[t], course.value[t] = info["continues"], info["value"]
        course.kl[t] = np.nan
        if t < len(beliefs) and "probabilities" in info:
            prior = torch.from_numpy(info["probabilities"]).to(beliefs[t].device)
            course.kl[t] = float(categorical_kl(beliefs[t], prior))
    return course


def _after(steps: Tensor) -> np.ndarray:
    """By frame what was by the action before it."""
    return np.concatenate([[np.nan], steps[:-1].double().cpu().numpy()])


def _frames(obs: Tensor) -> np.ndarray:
    """Observations as environments show them, [T, ...]."""
    return np.ascontiguousarray(channels_last(obs).cpu().numpy())
