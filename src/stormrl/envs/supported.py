"""Which spaces can be trained on, and what helps where one cannot be."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from stormrl.envs.adapt import layout, leaves, parts_of
from stormrl.spaces import MOST_NUMBERS

FLAT = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
OBSERVATION = "gymnasium.wrappers.TransformObservation(env, lambda obs: {}, {})"
ACTION = "gymnasium.wrappers.TransformAction(env, lambda action: {}, {})"


def observation_problem(space: object) -> str | None:
    """What keeps the agent from seeing this, and what helps; or None."""
    if not isinstance(space, spaces.Space):
        return _foreign("observation", space)
    if layout(space) is not None:
        return None
    for path, leaf in leaves(space, "obs"):
        if not isinstance(leaf, FLAT):
            remedy = "leave it out with gymnasium.wrappers.FilterObservation(env, [...])"
            return f"{path} is {leaf}, which has no fixed size in numbers; {remedy}"
        if path != "obs" and layout(leaf) is not None:
            code = OBSERVATION.format(path, path.replace("obs", "env.observation_space", 1))
            return f"{path} is a picture among other observations; {code} takes it alone"
    size = spaces.flatdim(space)
    if not 0 < size <= MOST_NUMBERS:
        return f"observations are {space}: {size:,} numbers, more than {MOST_NUMBERS:,}. {STACKED}"
    return None


STACKED = (
    "If these are several pictures at a time, leave out the wrapper that stacks them: the agent "
    "has a memory of its own"
)


def action_problem(space: object) -> str | None:
    """What keeps the agent from choosing these, and what helps; or None."""
    if not isinstance(space, spaces.Space):
        return _foreign("action", space)
    for path, leaf in leaves(space, "action"):
        if not isinstance(leaf, FLAT):
            return f"{path} is {leaf}, of which no list of possibilities can be made"
        if isinstance(leaf, spaces.Box) and not _is_bounded(leaf):
            bounded = f"gymnasium.spaces.Box(-1, 1, {leaf.shape}, {str(leaf.dtype)!r})"
            code = ACTION.format("SCALE * action", bounded)
            return f"{path} is {leaf}, without bounds; {code} gives it some"
    if isinstance(space, spaces.Discrete):
        return None
    if not list(leaves(space, "action")):
        return f"actions are {space}: there is nothing to choose"
    if parts_of(space) is None:
        return f"actions are {space}: too many parts at once to be counted; choose fewer"
    return None


def _is_bounded(space: spaces.Box) -> bool:
    return bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())


def _foreign(kind: str, space: object) -> str:
    """A class of the same name in another library looks the same when it is printed."""
    cls = type(space)
    named = f"{cls.__module__}.{cls.__qualname__}"
    ours = "make it of gymnasium.spaces"
    older = f"{ours}, or wrap the environment with shimmy (pip install 'shimmy[gym-v26]')"
    remedy = older if cls.__module__.partition(".")[0] == "gym" else ours
    return f"{kind}_space is a {named}, which is none of Gymnasium's spaces; {remedy}"
