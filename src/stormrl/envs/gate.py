"""The gate: all that an environment returns is received, checked and copied in one place.

`make_env` puts it around every environment, so nobody behind it (training, evaluation, recordings,
the page, `check-env`) sees anything that breaks a rule. Whatever breaks one is the environment's
fault, and is told with the rule.
"""

from __future__ import annotations

import copy
import inspect
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from stormrl.envs.faults import EnvironmentFault, blaming

RESET = "observation and info"
STEP = "observation, reward, terminated, truncated and info"


class Interface(gymnasium.Wrapper):
    """Innermost of all: the environment takes and returns as many values as Gymnasium says.

    Gymnasium's own wrappers take them apart, and would say it in Python's words.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; two values come back."""
        try:
            returned = self.env.reset(seed=seed, options=options)
        except TypeError:
            if _takes_seed(self.env):
                raise
            raise _broken(self, "reset() has to take seed= and options=") from None
        return self._counted("reset()", RESET, 2, returned)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment; five values come back."""
        return self._counted("step()", STEP, 5, self.env.step(action))

    def _counted(self, call: str, wanted: str, count: int, returned: Any) -> Any:
        if isinstance(returned, tuple | list) and len(returned) == count:
            return tuple(returned)
        given = f"it returns {_kind(returned)}"
        raise _broken(self, f"{call} has to return {count} values, {wanted}; {given}")


class EnvironmentGate(gymnasium.Wrapper):
    """What passes fits: observations are the space's and nobody else's; numbers are plain.

    Whatever the environment raises or breaks is an `EnvironmentFault`.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.seed: int | None = None
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and looks at what it gives."""
        moment = f"the reset with seed {seed}"
        with blaming(name_of(self), moment):
            obs, info = self.env.reset(seed=seed, options=options)
            seen = self._seen(obs, "reset"), self._info(info, moment)
        self.seed, self.steps = seed, 0
        return seen

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the environment and looks at what it gives."""
        number = self.steps + 1
        moment = f"step {number} of the episode with seed {self.seed}"
        with blaming(name_of(self), moment):
            obs, reward, terminated, truncated, info = self.env.step(action)
            seen = (
                self._seen(obs, f"step {number}"),
                self._reward(reward, moment),
                self._flag("terminated", terminated, moment),
                self._flag("truncated", truncated, moment),
                self._info(info, moment),
            )
        self.steps = number
        return seen

    def _seen(self, obs: object, moment: str) -> Any:
        """A copy: the environment may draw into its arrays again, turn them round or lock them."""
        return self._part(self.observation_space, obs, "", moment)

    def _part(self, space: gymnasium.Space, obs: Any, path: str, moment: str) -> Any:
        """A copy of what belongs to one space, of nested ones part by part."""
        if isinstance(space, spaces.Dict) and isinstance(obs, Mapping):
            if obs.keys() == space.spaces.keys():
                return {
                    key: self._part(part, obs[key], f"{path}[{key!r}]", moment)
                    for key, part in space.spaces.items()
                }
        elif isinstance(space, spaces.Tuple) and isinstance(obs, tuple | list):
            if len(obs) == len(space.spaces):
                parts = zip(space.spaces, obs, strict=True)
                return tuple(
                    self._part(part, given, f"{path}[{index}]", moment)
                    for index, (part, given) in enumerate(parts)
                )
        elif isinstance(space, spaces.Box):
            return self._numbers(space, obs, path, moment)
        elif space.contains(obs):
            return copy.deepcopy(obs)
        raise _broken(self, _unlike(space, obs, path, moment))

    def _numbers(self, space: spaces.Box, obs: Any, path: str, moment: str) -> np.ndarray:
        """What stands in a Box: exactly its type and shape, and finite."""
        if isinstance(obs, np.generic):
            obs = np.asarray(obs)
        fits = isinstance(obs, np.ndarray) and obs.dtype == space.dtype and obs.shape == space.shape
        if not fits:
            raise _broken(self, _unlike(space, obs, path, moment))
        if np.issubdtype(obs.dtype, np.floating) and not np.isfinite(obs).all():
            told = f"{name_of(self)} showed numbers that are not finite{_inside(path)} in {moment}"
            raise EnvironmentFault("env", told)
        return np.array(obs, order="C", copy=True)

    def _reward(self, reward: Any, moment: str) -> float:
        value = _number(reward)
        if value is None or not math.isfinite(value):
            told = reprlib.repr(reward)
            raise EnvironmentFault("env", f"{name_of(self)} gave a reward of {told} in {moment}")
        if not math.isfinite(as_stored(value)):
            beyond = f"{name_of(self)} gave a reward of {value:g} in {moment}, beyond what"
            raise EnvironmentFault("env", f"{beyond} float32 holds; scale its rewards down")
        return value

    def _flag(self, name: str, value: Any, moment: str) -> bool:
        number = _number(value)
        if number not in (0, 1):
            rule = f"{name} has to be True or False; it is {reprlib.repr(value)} in {moment}"
            raise _broken(self, rule)
        return bool(number)

    def _info(self, info: Any, moment: str) -> dict[str, Any]:
        if not isinstance(info, Mapping):
            raise _broken(self, f"info has to be a dict; it is {_kind(info)} in {moment}")
        if "lives" not in info:
            return dict(info)
        lives = _number(info["lives"])
        if lives is None or not lives.is_integer():
            told = reprlib.repr(info["lives"])
            rule = f'info["lives"] has to be a whole number; it is {told} in {moment}'
            raise _broken(self, rule)
        return {**info, "lives": int(lives)}


def gated(env: gymnasium.Env) -> gymnasium.Env:
    """`env` behind the gate; what its innermost wrapper receives is counted."""
    if env.unwrapped is env:
        return EnvironmentGate(Interface(env))
    inner = env
    while isinstance(inner.env, gymnasium.Wrapper):  # pyright: ignore[reportAttributeAccessIssue]
        inner = inner.env  # pyright: ignore[reportAttributeAccessIssue]
    inner.env = Interface(inner.env)  # pyright: ignore[reportAttributeAccessIssue]
    return EnvironmentGate(env)


def name_of(env: gymnasium.Env) -> str:
    """The id of an environment, or what its class is called."""
    return env.unwrapped.spec.id if env.unwrapped.spec else type(env.unwrapped).__name__


def as_stored(reward: float) -> float:
    """A reward as replay and recordings keep it."""
    with np.errstate(over="ignore"):
        return float(np.float32(reward))


def _broken(env: gymnasium.Env, rule: str) -> EnvironmentFault:
    return EnvironmentFault("env", f"{name_of(env)} breaks a rule: {rule}")


def _takes_seed(env: gymnasium.Env) -> bool:
    try:
        inspect.signature(env.reset).bind(seed=0, options=None)
    except TypeError:
        return False
    except ValueError:  # Code that is not Python's tells nothing of what it takes.
        return True
    return True


def _number(value: Any) -> float | None:
    """One number as Python has it, whatever library made it; None for what is none."""
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        return float(value) if np.ndim(value) == 0 else None
    except (TypeError, ValueError, OverflowError):
        return None


def _kind(value: object) -> str:
    """What a value is, in few words: its type, and its shape or length if it has one."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _unlike(space: gymnasium.Space, obs: Any, path: str, moment: str) -> str:
    named = space if not isinstance(space, spaces.Box) else f"{space.dtype} {list(space.shape)}"
    return f"the space says {named}{_inside(path)}, {moment} gave {_kind(obs)}"


def _inside(path: str) -> str:
    return f" for obs{path}" if path else ""
