"""Snapshot: the state of a running environment as plain arrays, so that a run resumes mid-episode.

A snapshot is the seed of the episode and the actions since: restoring plays them again and checks
that every picture and reward comes out the same. This holds for any environment that obeys
Gymnasium's rule that `reset(seed)` decides what follows. The emulator's own saved state would be
faster and is not exact: in ale-py 0.12 it lacks the action that a sticky frame repeats and, in
games such as Qbert, how far the current frame has been drawn.
"""

import json
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np

from stormrl.envs.faults import blaming, raised_text
from stormrl.envs.gate import name_of
from stormrl.errors import UserError

Snapshot = dict[str, np.ndarray]
"""`header`, JSON as uint8 [bytes], and `actions`, int64 [steps since the episode began]."""


class Replayable(gymnasium.Wrapper):
    """Gives every episode a seed, told in the reset's `info["episode_seed"]`, and logs its actions.

    A reset with a seed uses that one and starts the sequence of seeds that later resets draw from.
    `same_seed` makes later resets repeat the given seed instead. Whatever goes wrong inside the
    environment, or in what shapes its pictures, is raised as `EnvironmentFault`.
    """

    def __init__(self, env: gymnasium.Env, same_seed: bool) -> None:
        super().__init__(env)
        self.same_seed = same_seed
        self.seeds = np.random.default_rng()
        self.episode_seed: int | None = None
        self.actions: list[int] = []
        self.checksum = 0  # of all that this episode has shown

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode with `seed`, or with the next one of the sequence."""
        if seed is not None:
            self.seeds = np.random.default_rng(seed)
        seed = self._next_seed() if seed is None else seed
        with blaming(name_of(self), f"the reset with seed {seed}"):
            obs, info = self.env.reset(seed=seed, options=options)
            checksum = zlib.crc32(obs.tobytes())
        self.episode_seed, self.actions, self.checksum = seed, [], checksum
        return obs, {**info, "episode_seed": self.episode_seed}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Plays `action` and logs it."""
        moment = f"step {len(self.actions) + 1} of the episode with seed {self.episode_seed}"
        with blaming(name_of(self), moment):
            obs, reward, terminated, truncated, info = self.env.step(action)
            outcome = np.array([reward, terminated, truncated], np.float64)
            shown = obs.tobytes() + outcome.tobytes()
        self.actions.append(int(action))
        self.checksum = zlib.crc32(shown, self.checksum)
        return obs, reward, terminated, truncated, info

    def close(self) -> None:
        """Lets go of the environment; that it fails in this is told and harms nobody."""
        try:
            self.env.close()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            raised = raised_text(error)
            warnings.warn(f"{name_of(self)} raised in close(): {raised}; ignored", stacklevel=2)

    def render(self) -> Any:
        """The environment's own picture."""
        with blaming(name_of(self), "render()"):
            return self.env.render()

    def _next_seed(self) -> int:
        if self.same_seed and self.episode_seed is not None:
            return self.episode_seed
        return int(self.seeds.integers(2**31))


def snapshot(env: gymnasium.Env) -> Snapshot:
    """The whole state of `env`, which comes from `make_env` and has been reset."""
    assert isinstance(env, Replayable)
    assert env.episode_seed is not None
    header = {
        "env": name_of(env),
        "episode_seed": env.episode_seed,
        "seeds": env.seeds.bit_generator.state,
        "action_space": env.action_space.np_random.bit_generator.state,
        "checksum": env.checksum,
    }
    encoded = np.frombuffer(json.dumps(header).encode(), np.uint8).copy()
    return {"header": encoded, "actions": np.array(env.actions, np.int64)}


def restore(env: gymnasium.Env, saved: Snapshot) -> bool:
    """Plays the saved episode again in `env`, made by `make_env` as the saved one was.

    Takes as long as the episode has lasted, without the agent. False means that the environment
    did not repeat itself: it is then in an unknown state, and the caller resets it.
    Raises UserError when the snapshot was taken from another environment, or is none.
    """
    assert isinstance(env, Replayable)
    header = _header(saved)
    if header["env"] != name_of(env):
        remedy = "resume with the environment the run was started with"
        raise UserError(
            "env", f"the saved state is of {header['env']}, not {name_of(env)}; {remedy}"
        )
    env.reset(seed=header["episode_seed"])
    _play(env, _actions(env, saved))
    with _usable():
        env.seeds.bit_generator.state = header["seeds"]
        env.action_space.np_random.bit_generator.state = header["action_space"]
    return env.checksum == header["checksum"]


def _header(saved: Snapshot) -> dict[str, Any]:
    with _usable():
        header = json.loads(saved["header"].tobytes())
        match header:
            case {"env": str(), "episode_seed": int(seed), "checksum": int()} if seed >= 0:
                return {"seeds": None, "action_space": None, **header}
    raise _unusable("its header")


def _actions(env: gymnasium.Env, saved: Snapshot) -> np.ndarray:
    with _usable():
        actions = saved["actions"]
        if actions.dtype == np.int64 and actions.ndim == 1 and _all_in(env, actions):
            return actions
    raise _unusable("its actions")


def _all_in(env: gymnasium.Env, actions: np.ndarray) -> bool:
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    return bool(((actions >= 0) & (actions < env.action_space.n)).all())


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _unusable(repr(error)[:80]) from error


def _unusable(what: str) -> UserError:
    return UserError("checkpoint", f"holds no usable state of the environment: {what}")


def _play(env: gymnasium.Env, actions: np.ndarray) -> None:
    """Stops where the episode ends, which before the last action means that it went otherwise."""
    for action in actions:
        _, _, terminated, truncated, _ = env.step(int(action))
        if terminated or truncated:
            return
