"""Environment factory: from a name to a wrapped environment that the agent can play."""

import difflib

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import ResizeObservation

from stormrl.config.imports import ForeignId, import_for, is_missing, trusted_path
from stormrl.envs.atari import is_atari, make_atari
from stormrl.envs.gate import gated
from stormrl.envs.lives import LifeLost
from stormrl.envs.protocols import Protocol
from stormrl.envs.snapshots import Replayable
from stormrl.envs.supported import action_problem, observation_problem
from stormrl.errors import UserError
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces

IMAGE_SIZE = 64


def make_env(env_id: str, protocol: Protocol, render_mode: str | None = None) -> gymnasium.Env:
    """The environment as the agent sees it: uint8 RGB [64, 64, 3] and actions 0..A-1.

    `env_id` is any Gymnasium id with RGB pictures and discrete actions; `module:Name-v0` imports
    the module first, of an id that a run names only if it is installed. Every info has `life_lost`,
    a reset's also `episode_seed`.
    Raises UserError when the id is unknown or the spaces are not supported.
    """
    spec = find_spec(env_id)
    with trusted_path(env_id):
        if is_atari(spec):
            env = gated(make_atari(spec, protocol, IMAGE_SIZE, render_mode))
        else:
            env = _resized(gated(_supported(make_plain(spec, render_mode))))
    return Replayable(LifeLost(env), same_seed=protocol.fixed_seed_at_reset)


def action_meanings(env: gymnasium.Env) -> list[str]:
    """A word for each action: the environment's `get_action_meanings()`, else its number."""
    if hasattr(env.unwrapped, "get_action_meanings"):
        return list(env.unwrapped.get_action_meanings())  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(env.action_space, spaces.Discrete)
    return [str(action) for action in range(env.action_space.n)]


def spaces_of(env: gymnasium.Env) -> Spaces:
    """The spaces of what `make_env` gave, as data."""
    assert isinstance(env.action_space, spaces.Discrete)
    assert env.observation_space.shape is not None
    height, width, channels = env.observation_space.shape
    return Spaces(
        ImageSpace(height, width, channels),
        DiscreteSpace(int(env.action_space.n), tuple(action_meanings(env))),
    )


def find_spec(env_id: str) -> EnvSpec:
    """The registered specification of `env_id`; raises UserError with the nearest names."""
    module, _, name = env_id.rpartition(":")
    if module:
        _import(env_id, module)
    if name not in gymnasium.registry:
        raise UserError("env", f"no environment is called {name!r}.{_suggestion(name)}")
    return gymnasium.registry[name]


def make_plain(spec: EnvSpec, render_mode: str | None = None) -> gymnasium.Env:
    """`gymnasium.make`; what is missing to build the environment is raised as UserError."""
    try:
        return gymnasium.make(spec, disable_env_checker=True, render_mode=render_mode)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError("env", f"{spec.id} cannot be built: {error}") from error


def _supported(env: gymnasium.Env) -> gymnasium.Env:
    problems = observation_problem(env.observation_space), action_problem(env.action_space)
    for problem in problems:
        if problem is not None:
            raise UserError("env", problem)
    return env


def _resized(env: gymnasium.Env) -> gymnasium.Env:
    assert env.observation_space.shape is not None
    if env.observation_space.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
        return env
    return ResizeObservation(env, (IMAGE_SIZE, IMAGE_SIZE))


def _import(env_id: str, module: str) -> None:
    try:
        import_for(env_id, module)
    # An empty or relative module name is a ValueError or a TypeError.
    except (ImportError, ValueError, TypeError) as error:
        if isinstance(env_id, ForeignId) and is_missing(module, error):
            raise _not_allowed(env_id, module) from None
        remedy = "install the package, or put its folder on PYTHONPATH"
        raise UserError("env", f"cannot import {module!r} ({error}); {remedy}") from error


def _not_allowed(env_id: ForeignId, module: str) -> UserError:
    elsewhere = "and what a run names is imported from nowhere else unless you allow it"
    remedy = f"if you trust it, add --allow-import {module}"
    named = f"{module!r}, named by {env_id.source}, is not imported: it is not installed"
    return UserError("env", f"{named}, {elsewhere}; {remedy}")


def _suggestion(name: str) -> str:
    known = {}
    for spec in gymnasium.registry.values():
        if is_atari(spec) and spec.namespace != "ALE":
            continue  # Legacy names of games that ALE/ has under their current one.
        known[spec.name.lower()] = spec.id
        known[spec.id.lower()] = spec.id
    nearest = difflib.get_close_matches(name.lower(), known, n=2)
    ids = dict.fromkeys(known[match] for match in nearest)
    return f" Did you mean {' or '.join(ids)}?" if ids else " Is its package imported?"
