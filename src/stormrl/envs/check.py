"""What stormrl makes of an environment: can the agent play it, can a run of it be resumed."""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import env_checker

from stormrl.envs.adapt import Numbered, layout, leaves
from stormrl.envs.faults import EnvironmentFault, blaming, raised_text
from stormrl.envs.gate import name_of
from stormrl.envs.make import (
    NO_KWARGS,
    action_meanings,
    find_spec,
    make_env,
    make_plain,
)
from stormrl.envs.protocols import DEFAULT_PROTOCOL, PROTOCOLS
from stormrl.envs.snapshots import restore, snapshot
from stormrl.envs.supported import action_problem, observation_problem

PLAYED_STEPS = 1000
COMPARED_STEPS = 200


@dataclass(frozen=True)
class Check:
    """One finding about an environment."""

    name: str
    ok: bool
    detail: str
    required: bool = True
    """Whether training is impossible or meaningless when this is not ok."""


@dataclass(frozen=True)
class EnvReport:
    """Everything `check_env` found out about one environment."""

    env_id: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether the agent can be trained here."""
        return all(check.ok for check in self.checks if check.required)


class Step(NamedTuple):
    """What one step returned; the picture as bytes, so that steps can be compared."""

    obs: bytes
    brightest: int
    reward: float
    terminated: bool
    truncated: bool


def check_env(env_id: str, kwargs: Mapping[str, Any] = NO_KWARGS) -> EnvReport:
    """Looks at the spaces, Gymnasium's rules, determinism, resume, pictures, rewards and speed.

    Plays about a thousand random steps under the default protocol, as training would receive them:
    what these show decides. A rule of Gymnasium that does no harm there is a note.
    Raises UserError when there is no such environment or it cannot be built.
    """
    plain = make_plain(find_spec(env_id), kwargs=kwargs)
    with blaming(name_of(plain), "telling its spaces"):
        checks = _space_checks(plain)
    checks += [*_api_checks(plain), *_close_checks(plain)]
    if all(check.ok for check in checks if check.required):
        checks += _play_checks(env_id, kwargs)
    return EnvReport(env_id, tuple(checks))


def _space_checks(env: gymnasium.Env) -> list[Check]:
    observation = observation_problem(env.observation_space)
    action = action_problem(env.action_space)
    seen = observation or seen_as(env.observation_space)
    choice = action or chosen_as(env)
    return [
        Check("observation space", observation is None, _one_line(seen)),
        Check("action space", action is None, _one_line(choice)),
    ]


def seen_as(space: gymnasium.Space) -> str:
    """What each part of an observation is for the agent."""
    if layout(space) is not None:
        return f"{space}: a picture"
    sizes = [f"{path}: {spaces.flatdim(leaf)}" for path, leaf in leaves(space, "obs")]
    return f"{spaces.flatdim(space)} numbers ({', '.join(sizes)})"


def chosen_as(env: gymnasium.Env) -> str:
    """What each part of an action is for the agent."""
    if isinstance(env.action_space, spaces.Discrete) and env.action_space.start == 0:
        return ", ".join(action_meanings(env))
    numbered = Numbered(env)
    if numbered.words:
        return ", ".join(numbered.words)
    return f"{' x '.join(map(str, numbered.parts))} choices at once"


def _api_checks(env: gymnasium.Env) -> list[Check]:
    """What Gymnasium's own checker asserts or warns of."""
    name = "gymnasium rules"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            env_checker.check_env(env.unwrapped, skip_render_check=True)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        # Whatever a foreign environment raises is the finding.
        except BaseException as error:
            return [Check(name, False, _one_line(raised_text(error)), required=False)]
    if not caught:
        return [Check(name, True, "no complaint")]
    messages = dict.fromkeys(_one_line(warning.message) for warning in caught)
    return [Check(name, False, message, required=False) for message in messages]


def _close_checks(env: gymnasium.Env) -> list[Check]:
    try:
        env.close()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        detail = f"raised {_one_line(raised_text(error))}, which training ignores"
        return [Check("close", False, detail, required=False)]
    return []


def _play_checks(env_id: str, kwargs: Mapping[str, Any]) -> list[Check]:
    def made() -> gymnasium.Env:
        return make_env(env_id, PROTOCOLS[DEFAULT_PROTOCOL], kwargs=kwargs)

    try:
        # Close has been looked at; it is not to be told once for every copy.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [_determinism_check(made), _resume_check(made), *_random_play_checks(made)]
    except EnvironmentFault as fault:
        return [Check("random play", False, fault.message)]


def _determinism_check(made: Callable[[], gymnasium.Env]) -> Check:
    runs = []
    for _ in range(2):
        env = made()
        first, _ = env.reset(seed=0)
        runs.append((first.tobytes(), _play(env, COMPARED_STEPS)))
        env.close()
    same = runs[0] == runs[1]
    detail = f"{COMPARED_STEPS} steps {'are' if same else 'are not'} the same under the same seed"
    return Check("deterministic", same, detail, required=False)


def _resume_check(made: Callable[[], gymnasium.Env]) -> Check:
    """Plays on from a snapshot in a second environment and compares."""
    name = "restorable"
    env, copy = (made() for _ in range(2))
    env.reset(seed=0)
    _play(env, COMPARED_STEPS // 2)
    restored = restore(copy, snapshot(env))
    same = restored and _play(copy, COMPARED_STEPS) == _play(env, COMPARED_STEPS)
    env.close()
    copy.close()
    if same:
        return Check(name, True, "a restored copy plays on identically", required=False)
    remedy = "let reset(seed) decide all that follows, drawing only from self.np_random"
    return Check(name, False, f"a resumed run starts a new episode; {remedy}", required=False)


def _random_play_checks(made: Callable[[], gymnasium.Env]) -> list[Check]:
    env = made()
    env.reset(seed=0)
    start = time.perf_counter()
    steps = _play(env, PLAYED_STEPS)
    speed = PLAYED_STEPS / (time.perf_counter() - start)
    env.close()
    return [
        _seen_check(env, steps),
        _reward_check([step.reward for step in steps]),
        _length_check(steps),
        Check("speed", True, f"{speed:,.0f} steps/s"),
    ]


def _seen_check(env: gymnasium.Env, steps: list[Step]) -> Check:
    different = len({step.obs for step in steps})
    if env.observation_space.dtype == np.uint8:
        return _picture_check(max(step.brightest for step in steps), different)
    if different == 1:
        return Check("numbers", False, "always the same: nothing can be told from them", False)
    return Check("numbers", True, f"{different} different ones in {PLAYED_STEPS} random steps")


def _picture_check(brightest: int, different: int) -> Check:
    name, seen = "pictures", f"{different} different ones in {PLAYED_STEPS} random steps"
    if brightest <= 1:
        detail = f"no value is above {brightest} (of 255); {dark(brightest)}"
        return Check(name, False, detail, required=False)
    if different == 1:
        return Check(name, False, "always the same: nothing can be told from it", required=False)
    return Check(name, True, f"{seen}, values up to {brightest}")


def dark(brightest: int) -> str:
    """What to do about pictures none of which has a value above `brightest`, 0 or 1."""
    if brightest:
        return "pictures of 0 and 1 look almost black: multiply them by 255"
    return "a black picture shows nothing to learn from: look at what the environment draws"


def _reward_check(rewards: list[float]) -> Check:
    changing = len(set(rewards)) > 1
    detail = f"from {min(rewards):g} to {max(rewards):g} in {PLAYED_STEPS} random steps"
    if not changing:
        detail += "; with a reward that never changes there is nothing to learn"
    return Check("rewards", changing, detail, required=False)


def _length_check(steps: list[Step]) -> Check:
    ends = [t for t, step in enumerate(steps, 1) if step.terminated or step.truncated]
    lengths = np.diff([0, *ends])
    if not len(lengths):
        return Check("episodes", True, f"longer than {PLAYED_STEPS} random steps")
    detail = f"{len(lengths)} of {lengths.min()} to {lengths.max()} random steps"
    return Check("episodes", True, detail)


def _play(env: gymnasium.Env, steps: int) -> list[Step]:
    """Random play from the current state, always with the same actions."""
    actions = np.random.default_rng(0).integers(env.action_space.n, size=steps)  # pyright: ignore[reportAttributeAccessIssue]
    played = []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(int(action))
        shown = obs.tobytes(), int(obs.max(initial=0))
        played.append(Step(*shown, float(reward), terminated, truncated))
        if terminated or truncated:
            env.reset()
    return played


def _one_line(message: object) -> str:
    """Without line breaks and without the colour and prefix of Gymnasium's warnings."""
    plain = str(message).replace("\033[33m", "").replace("\033[0m", "")
    return " ".join(plain.removeprefix("WARN: ").split())
