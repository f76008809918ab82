"""Environment factory: from a name to a wrapped environment that the agent can play."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import ResizeObservation

from stormrl.config.imports import ForeignId, import_for, is_missing, trusted_path
from stormrl.envs.adapt import adapted
from stormrl.envs.atari import is_atari, make_atari
from stormrl.envs.faults import EnvironmentFault, blaming, raised_text
from stormrl.envs.gate import gated, name_of
from stormrl.envs.lives import LifeLost
from stormrl.envs.protocols import Protocol
from stormrl.envs.snapshots import Replayable
from stormrl.envs.supported import action_problem, observation_problem
from stormrl.errors import UserError
from stormrl.spaces import DiscreteSpace, ImageSpace, ObservationSpace, Spaces, VectorSpace

IMAGE_SIZE = 64
NO_KWARGS: Mapping[str, Any] = MappingProxyType({})


def make_env(
    env_id: str,
    protocol: Protocol,
    render_mode: str | None = None,
    kwargs: Mapping[str, Any] = NO_KWARGS,
) -> gymnasium.Env:
    """The environment as the agent sees it: pictures or numbers, and actions 0..A-1.

    Pictures are uint8 [64, 64, channels], numbers float32 [V] (`stormrl.envs.adapt`). `env_id` is
    any Gymnasium id; `module:Name-v0` imports the module first, of an id that a run names only if
    it is installed. Every info has `life_lost`, a reset's also `episode_seed`. kwargs: arguments of
    the environment.
    Raises UserError when the id is unknown, the environment cannot be built or its spaces are not
    supported; `EnvironmentFault`, which is one, for whatever it raises later or breaks.
    """
    spec = find_spec(env_id)
    with trusted_path(env_id):
        if is_atari(spec):
            env = gated(_atari(spec, protocol, render_mode, kwargs))
        else:
            env = _resized(adapted(gated(_supported(make_plain(spec, render_mode, kwargs)))))
    return Replayable(LifeLost(env), same_seed=protocol.fixed_seed_at_reset)


def action_meanings(env: gymnasium.Env) -> list[str]:
    """A word for each action of the space: the environment's `get_action_meanings()`, else numbers.

    Words are used if there are as many as actions, each a different text that can be printed. The
    numbers are the environment's own; none at all where those are too many to be named.
    """
    assert isinstance(env.action_space, spaces.Discrete)
    words = _own_words(env.unwrapped)
    if len(words) == env.action_space.n and len({word.lower() for word in words}) == len(words):
        return words
    if env.has_wrapper_attr("words"):
        return env.get_wrapper_attr("words")
    return [str(action) for action in range(env.action_space.n)]


def _own_words(env: gymnasium.Env) -> list[str]:
    """What the environment calls its actions; nothing where it has no words, or fails to say."""
    try:
        words = list(env.get_action_meanings())  # pyright: ignore[reportAttributeAccessIssue]
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:
        return []
    texts = all(isinstance(word, str) and word and word.isprintable() for word in words)
    return [str(word) for word in words] if texts else []


def spaces_of(env: gymnasium.Env) -> Spaces:
    """The spaces of what `make_env` gave, as data."""
    assert isinstance(env.action_space, spaces.Discrete)
    parts = env.get_wrapper_attr("parts") if env.has_wrapper_attr("parts") else ()
    action = DiscreteSpace(int(env.action_space.n), tuple(action_meanings(env)), parts)
    return Spaces(_seen(env.observation_space), action)


def _seen(space: gymnasium.Space) -> ObservationSpace:
    assert space.shape is not None
    return ImageSpace(*space.shape) if space.dtype == np.uint8 else VectorSpace(*space.shape)


def find_spec(env_id: str) -> EnvSpec:
    """The registered specification of `env_id`; raises UserError with the nearest names."""
    module, _, name = env_id.rpartition(":")
    if module:
        _import(env_id, module)
    if name not in gymnasium.registry:
        raise UserError("env", f"no environment is called {name!r}.{_suggestion(name)}")
    return gymnasium.registry[name]


def make_plain(
    spec: EnvSpec, render_mode: str | None = None, kwargs: Mapping[str, Any] = NO_KWARGS
) -> gymnasium.Env:
    """`gymnasium.make`; whatever keeps the environment from being built is raised as UserError."""
    shown = {} if render_mode is None else {"render_mode": render_mode}
    with _building(spec):
        return gymnasium.make(spec, **{"disable_env_checker": True, **shown, **kwargs})


def _atari(
    spec: EnvSpec, protocol: Protocol, render_mode: str | None, kwargs: Mapping[str, Any]
) -> gymnasium.Env:
    with _building(spec):
        return make_atari(spec, protocol, IMAGE_SIZE, render_mode, kwargs)


@contextmanager
def _building(spec: EnvSpec) -> Iterator[None]:
    """What the environment's own code raises meanwhile is told as its own, with the way out."""
    try:
        yield
    except (UserError, KeyboardInterrupt, GeneratorExit):
        raise
    except gymnasium.error.Error as error:
        raise UserError("env", f"{spec.id} cannot be built: {error}") from error
    except BaseException as error:
        told = f"{spec.id} cannot be built, it raised {raised_text(error)}"
        raise EnvironmentFault("env", f"{told}; {_way_out(error)}") from error


def _way_out(error: BaseException) -> str:
    if isinstance(error, TypeError):
        return "arguments are given with --env-kwargs KEY=VALUE"
    if isinstance(error, ImportError):
        return "install what it needs"
    return "that is its own code's: mend it, or give it what it asks for"


def _supported(env: gymnasium.Env) -> gymnasium.Env:
    with blaming(name_of(env), "telling its spaces"):
        problems = observation_problem(env.observation_space), action_problem(env.action_space)
    for problem in problems:
        if problem is not None:
            raise UserError("env", problem)
    return env


def _resized(env: gymnasium.Env) -> gymnasium.Env:
    shape = env.observation_space.shape
    if env.observation_space.dtype != np.uint8 or shape is None:
        return env
    if shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
        return env
    return ResizeObservation(env, (IMAGE_SIZE, IMAGE_SIZE))


def _import(env_id: str, module: str) -> None:
    try:
        import_for(env_id, module)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    # An empty or relative module name is a ValueError or a TypeError; the module's own code may
    # raise whatever it likes, and end the program.
    except BaseException as error:
        if (
            isinstance(env_id, ForeignId)
            and isinstance(error, Exception)
            and is_missing(module, error)
        ):
            raise _not_allowed(env_id, module) from None
        raise _unimportable(module, error) from error


def _unimportable(module: str, error: BaseException) -> UserError:
    named = all(part.isidentifier() for part in module.split("."))
    if isinstance(error, ImportError) or not named:
        remedy = "install the package, or put its folder on PYTHONPATH"
        return UserError("env", f"cannot import {module!r} ({error}); {remedy}")
    remedy = "that is the module's own code: mend it, or give it what it asks for"
    return EnvironmentFault("env", f"{module!r} raised {raised_text(error)} on import; {remedy}")


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
