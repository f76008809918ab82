"""Which spaces can be trained on, and the wrapper that helps where one cannot be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from gymnasium import spaces

WANTED = "Box(0, 255, [height, width, 3], uint8)"
WRAPPER = "gymnasium.wrappers.TransformObservation(env, lambda obs: {}, {})"
CHOICES = (
    "gymnasium.wrappers.TransformAction(env, lambda action: {}, gymnasium.spaces.Discrete({}))"
)
FEW = 4
"""Up to so many channels are colours; a picture with more of them is many pictures."""
MOST_COMBINED = 64
"""Up to so many combinations of several choices are a list of actions worth learning."""


def observation_problem(space: object) -> str | None:
    """What keeps `space` from being an RGB picture, and what makes it one; or None."""
    if not isinstance(space, spaces.Space):
        return _foreign("observation", space)
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and _is_rgb(space.shape):
        return None
    return f"observations are {space}; supported are RGB pictures, {WANTED}. {_help(space)}"


def action_problem(space: object) -> str | None:
    """What keeps `space` from being actions 0..A-1, and what makes it some; or None."""
    if not isinstance(space, spaces.Space):
        return _foreign("action", space)
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return None
    return f"actions are {space}; supported is Discrete(n) counted from 0. {_choice(space)}"


def _foreign(kind: str, space: object) -> str:
    """A class of the same name in another library looks the same when it is printed."""
    cls = type(space)
    named = f"{cls.__module__}.{cls.__qualname__}"
    ours = "make it of gymnasium.spaces"
    older = f"{ours}, or wrap the environment with shimmy (pip install 'shimmy[gym-v26]')"
    remedy = older if cls.__module__.partition(".")[0] == "gym" else ours
    return f"{kind}_space is a {named}, which is none of Gymnasium's spaces; {remedy}"


def _is_rgb(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[-1] == 3


def _help(space: spaces.Space) -> str:
    """What to wrap the environment in."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _inside(space)
    if isinstance(space, spaces.Box) and len(space.shape) in (2, 3):
        code = _as_rgb(space)
        if code is not None:
            return f"{WRAPPER.format(code, _box(space))} makes them from these"
    if len(space.shape or ()) in (3, 4):
        return (
            "These are several pictures at a time: leave out the wrapper that stacks them, the "
            "agent has a memory of its own"
        )
    return "gymnasium.wrappers.AddRenderObservation(env, render_only=True) makes them from render()"


def _inside(space: spaces.Dict | spaces.Tuple) -> str:
    """The picture among several observations, if there is one."""
    for key, part in _parts(space):
        if observation_problem(part) is None:
            code = f"obs[{key!r}]"
            return f"{WRAPPER.format(code, f'env.observation_space[{key!r}]')} takes the picture"
    return "gymnasium.wrappers.AddRenderObservation(env, render_only=True) makes them from render()"


def _parts(space: spaces.Dict | spaces.Tuple) -> Iterator[tuple[str | int, spaces.Space]]:
    if isinstance(space, spaces.Dict):
        yield from space.spaces.items()
    else:
        yield from enumerate(space.spaces)


def _as_rgb(space: spaces.Box) -> str | None:
    """An expression that makes an RGB picture of `obs`; None for what is no single picture."""
    whole = _whole_numbers(space)
    match _sides(space):
        case (_, _):
            return f"{whole}[..., None].repeat(3, -1)"
        case (_, _, 1):
            return f"{whole}.repeat(3, -1)"
        case (_, _, 3):
            return whole
        case (_, _, 4):
            return f"{whole}[..., :3]"
        case (1, _, _):
            return f"{whole}.transpose(1, 2, 0).repeat(3, -1)"
        case (3, _, _):
            return f"{whole}.transpose(1, 2, 0)"
    return None


def _sides(space: spaces.Box) -> tuple[int, ...] | None:
    """The shape, where it is that of a picture whose channels come last or first."""
    shape = space.shape
    if len(shape) == 2 or shape[-1] <= FEW or shape[0] in (1, 3):
        return shape
    return None


def _whole_numbers(space: spaces.Box) -> str:
    """`obs` from 0 to 255 in bytes, whatever range it has."""
    if space.dtype == np.uint8:
        return "obs"
    if (
        space.dtype is not None
        and np.issubdtype(space.dtype, np.floating)
        and space.high.max() <= 1
    ):
        return "(255 * obs).astype('uint8')"
    return "obs.clip(0, 255).astype('uint8')"


def _box(space: spaces.Box) -> str:
    shape = _rgb_shape(space.shape)
    return f"gymnasium.spaces.Box(0, 255, {shape}, 'uint8')"


def _rgb_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    first = 0 if len(shape) == 2 or shape[-1] <= FEW else 1
    return shape[first], shape[first + 1], 3


def _choice(space: spaces.Space) -> str:
    """What to wrap the environment in."""
    if isinstance(space, spaces.Discrete):
        code = CHOICES.format(f"action + {space.start}", space.n)
        return f"{code} counts them from 0"
    sizes = _sizes(space)
    count = int(np.prod(sizes, dtype=np.float64)) if sizes else 0
    if 0 < count <= MOST_COMBINED:
        code = CHOICES.format(f"numpy.array(numpy.unravel_index(action, {sizes}))", count)
        return f"{code} makes one action of every combination"
    code = CHOICES.format("CHOSEN[action]", "len(CHOSEN)")
    return f"{code} offers a list CHOSEN of yours"


def _sizes(space: spaces.Space) -> tuple[int, ...]:
    """How many there are of each of several choices; none for what are no choices."""
    if isinstance(space, spaces.MultiBinary):
        return (2,) * int(np.prod(space.shape)) if len(space.shape) == 1 else ()
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return tuple(space.nvec.tolist()) if not np.any(space.start) else ()
    return ()
