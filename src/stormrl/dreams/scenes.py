"""Reconstruction and open-loop prediction of real windows: all frames seen, or only a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stormrl.agents.reinforce import ActorCritic
from stormrl.dreams.env import DreamContext, DreamEnv, picture
from stormrl.nn.functional import categorical_kl
from stormrl.pictures.media import Row, side_by_side, upscale
from stormrl.types import Batch
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.unbounded import UnboundedSequence

SCALE = 3


class Course(NamedTuple):
    """How a window went in reality or in the model's eyes: index `t` is what came with frame `t`.

    So `reward[t]` and `continues[t]` follow the action before frame `t`, unlike in a batch. What
    is not known is NaN.
    """

    frames: np.ndarray
    """uint8 [T, height, width, channels]"""
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
    world_model: WorldModel,
    actor_critic: ActorCritic | None,
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
    world_model: WorldModel, batch: Batch, context: int, temperature: float = 1.0
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
    frames = side_by_side([upscale(course.frames, SCALE) for course in courses])
    return Row(label, frames, dream_from)


def _scene(env: DreamEnv, window: Batch, context: int, seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    reconstruction, posterior = watch(env, window, rng)
    taken = window.action.tolist()
    dream = _dream(env, window, context, seed, lambda t, _: taken[t], reconstruction, posterior)
    own = None
    if env.actor_critic is not None:

        def policy(_: int, info: dict) -> int:
            return int(rng.choice(env.actions, p=info["policy"] / info["policy"].sum()))

        own = _dream(env, window, context, seed, policy, reconstruction, None)
    return Scene(context, _real(window), reconstruction, dream, own)


def _real(window: Batch) -> Course:
    unknown = np.full(len(window.action), np.nan)
    frames = np.ascontiguousarray(window.obs.movedim(1, -1).cpu().numpy())
    return Course(frames, _after(window.reward), _after(window.continues), unknown, unknown)


@torch.no_grad()
def watch(env: DreamEnv, window: Batch, rng: np.random.Generator) -> tuple[Course, Tensor]:
    """The course of a model that sees every frame, and the posteriors [T, K, C]."""
    model, agent = env.world_model, env.actor_critic
    posterior = model.encode(window.obs)
    uniform = torch.from_numpy(rng.random(posterior.shape[:-1], np.float32)).to(posterior.device)
    z = model.latent.sample(posterior, uniform)
    h = _hidden(model, z, window)
    predicted = model.predict(z, h)
    kl = categorical_kl(posterior[1:], model.latent.prior(h[:-1]))
    value = torch.full_like(kl, torch.nan)
    if agent is not None:
        value = agent.value(agent.state(z[1:], h[:-1]))
    # At the beginning of an episode there is nothing to look back on.
    unknown = model.resets(window.is_first)[1:]
    course = Course(
        picture(model.decode(z)),
        _after(predicted.reward),
        _after(predicted.continues),
        _from_second(value.masked_fill(unknown, torch.nan)),
        _from_second(kl.masked_fill(unknown, torch.nan)),
    )
    return course, posterior


def _hidden(model: WorldModel, z: Tensor, window: Batch) -> Tensor:
    """Hidden states [T, D] of a model that sees every frame."""
    sequence, hidden = UnboundedSequence(model), []
    for t, begins in enumerate(model.resets(window.is_first).tolist()):
        if begins:
            sequence = UnboundedSequence(model)
        hidden.append(sequence.push(z[t : t + 1], window.action[t : t + 1]))
    return torch.cat(hidden)


def _dream(
    env: DreamEnv,
    window: Batch,
    context: int,
    seed: int,
    act: Callable[[int, dict], int],
    seen: Course,
    posterior: Tensor | None,
) -> Course:
    """The course that goes as `seen` up to the context and as dreamt from there on."""
    # Of a context with an episode's beginning in it, the dream goes on from what comes after.
    resets = env.world_model.resets(window.is_first[:context])
    begin = max([0, *resets.nonzero().flatten().tolist()])
    obs = np.ascontiguousarray(window.obs[begin:context].movedim(1, -1).cpu().numpy())
    start = DreamContext(obs, window.action[begin : context - 1].cpu().numpy())
    _, info = env.reset(seed=seed, options={"context": start})
    course = Course(*(part.copy() for part in seen))
    for t in range(context, len(window.action)):
        course.frames[t], course.reward[t], _, _, info = env.step(act(t - 1, info))
        course.continues[t], course.value[t] = info["continues"], info["value"]
        course.kl[t] = np.nan
        if posterior is not None:
            prior = torch.from_numpy(info["probabilities"]).to(posterior.device)
            course.kl[t] = float(categorical_kl(posterior[t], prior))
    return course


def _after(steps: Tensor) -> np.ndarray:
    """By frame what was by the action before it."""
    return _from_second(steps[:-1])


def _from_second(values: Tensor) -> np.ndarray:
    return np.concatenate([[np.nan], values.double().cpu().numpy()])
