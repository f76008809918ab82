"""What environments return is received in one place: copied, checked, told as theirs."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from small_runs import new_run, opened, stored_steps
from stormrl.envs import PROTOCOLS, make_env
from stormrl.envs.faults import EnvironmentFault
from stormrl.runs.recording import record
from stranger import cases, game

PROTOCOL = PROTOCOLS["atari100k"]


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    with cases():
        yield


def made(**methods: Any) -> gymnasium.Env:
    """The good game with other methods, behind the gate."""
    cls: Any = type("Changed", (game("bugbase", "Base"),), methods)
    gymnasium.registry.pop("test/Changed-v0", None)
    gymnasium.register("test/Changed-v0", cls, max_episode_steps=20)
    return make_env("test/Changed-v0", PROTOCOL)


def refused(env: gymnasium.Env, steps: int = 3) -> str:
    def play() -> None:
        env.reset(seed=0)
        for _ in range(steps):
            env.step(0)

    with pytest.raises(EnvironmentFault) as fault:
        play()
    return fault.value.message


def replaced(**values):
    """A step whose returned values are others, by their position."""
    order = ["obs", "reward", "terminated", "truncated", "info"]

    def step(self, action):
        given = dict(zip(order, game("bugbase", "Base").step(self, action), strict=True))
        return tuple((given | values).values())

    return step


def test_what_an_environment_draws_into_again_is_kept_as_it_was(tmp_path):
    new_run(tmp_path / "run", env="inplace:Bug/InPlace-v0")
    opened(tmp_path / "run").train()
    steps = stored_steps(tmp_path / "run")
    red = steps.obs[0, :, 0, 0, 0].tolist()
    times = [row % 30 for row in range(60)][-len(red) :]
    assert red == [time * 8 % 256 for time in times]
    (episode,) = record("inplace:Bug/InPlace-v0", PROTOCOL, "random", 1).episodes
    assert episode.obs[:, 0, 0, 0].tolist() == [time * 8 % 256 for time in range(31)]


@pytest.mark.parametrize("size", [48, 64, 96])
@pytest.mark.parametrize("view", ["flipped", "mirrored", "swapped", "transposed", "locked"])
def test_views_of_every_kind_look_like_their_copies(size, view):
    views = {
        "flipped": lambda a: a[::-1],
        "mirrored": lambda a: a[:, ::-1],
        "swapped": lambda a: a[..., ::-1],
        "transposed": lambda a: a.transpose(1, 0, 2),
        "locked": lambda a: a,
    }

    def seen(copied: bool) -> np.ndarray:
        def picture(self):
            array = views[view](game("bugbase", "Base").picture(self))
            array.flags.writeable = False
            return array.copy() if copied else array

        env = made(picture=picture, size=size)
        env.reset(seed=0)
        return env.step(1)[0]

    obs = seen(copied=False)
    assert obs.flags.c_contiguous
    assert obs.flags.writeable
    np.testing.assert_array_equal(obs, seen(copied=True))


@pytest.mark.parametrize(
    ("name", "moment", "gave"),
    [
        ("Unit", "reset", "float32 [64, 64, 3]"),
        ("Float255", "reset", "float64 [64, 64, 3]"),
        ("OnlyInStep", "step 1", "float32 [64, 64, 3]"),
        ("Int64", "reset", "int64 [64, 64, 3]"),
        ("Nested", "reset", "a list of 64"),
    ],
)
def test_a_picture_that_is_not_the_spaces_is_told_with_both(name, moment, gave):
    said = refused(make_env(f"float_obs:Bug/{name}-v0", PROTOCOL))
    rule = f"the space says uint8 [64, 64, 3], {moment} gave {gave}"
    assert said == f"Bug/{name}-v0 breaks a rule: {rule}"


@pytest.mark.parametrize("shape", [(64, 64), (3, 64, 64), (1, 64, 64, 3), (96, 96, 3)])
def test_a_picture_of_another_shape_is_told_with_both(shape):
    said = refused(made(step=replaced(obs=np.zeros(shape, np.uint8))))
    assert said.endswith(f"uint8 [64, 64, 3], step 1 gave uint8 {list(shape)}")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Four", "step() has to return 5 values"),
        ("ObsOnly", "reset() has to return 2 values"),
        ("NoSeed", "reset() has to take seed= and options="),
        ("NoneInfo", "info has to be a dict; it is None"),
        ("NoneObs", "step 1 gave None"),
        ("LivesNone", 'info["lives"] has to be a whole number; it is None'),
        ("LivesArray", 'info["lives"] has to be a whole number; it is array([3, 3])'),
    ],
)
def test_the_rule_that_was_broken_is_told(name, rule):
    assert rule in refused(make_env(f"old_api:Bug/{name}-v0", PROTOCOL))


def test_the_number_of_values_is_counted_inside_of_a_time_limit():
    said = refused(made(step=lambda self, action: (self.picture(), 0.0, False, {})))
    assert "step() has to return 5 values, observation" in said
    assert said.endswith("it returns a tuple of 4")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"reward": None}, "gave a reward of None in step 1"),
        ({"reward": "1"}, "gave a reward of '1' in step 1"),
        ({"reward": np.ones(2)}, "gave a reward of array([1., 1.]) in step 1"),
        ({"reward": -np.inf}, "gave a reward of -inf in step 1"),
        ({"reward": 1e39}, "beyond what float32 holds"),
        ({"reward": 10**400}, "gave a reward of 1000"),
        ({"terminated": None}, "terminated has to be True or False; it is None"),
        ({"truncated": np.zeros(2, bool)}, "truncated has to be True or False"),
        ({"info": []}, "info has to be a dict; it is a list of 0"),
        ({"info": {"lives": 2.5}}, "has to be a whole number; it is 2.5"),
    ],
)
def test_numbers_are_checked_as_they_are_stored(values, said):
    assert said in refused(made(step=replaced(**values)))


def test_numbers_of_every_library_pass_as_plain_ones():
    values = {"reward": np.float32(0.5), "terminated": np.bool_(False), "truncated": 0}
    env = made(step=replaced(**values, info={"lives": np.int64(3)}))
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated, info["lives"]) == (0.5, False, False, 3)
    assert {type(reward), type(terminated), type(info["lives"])} == {float, bool, int}


def test_an_exit_inside_of_an_environment_is_its_fault():
    def step(self, action):
        raise SystemExit("no licence")

    said = refused(made(step=step))
    assert said.endswith("raised in step 1 of the episode with seed 0: SystemExit: no licence")


def test_nothing_wrong_enters_replay_and_the_run_is_saved_as_of_the_step_before(tmp_path):
    new_run(tmp_path / "run", env="huge_reward:Bug/Googol-v0")
    with pytest.raises(EnvironmentFault, match=r"beyond what float32 holds.*saved at step 0"):
        opened(tmp_path / "run").train()


def told(path, env: str, **methods: Any) -> list[str]:
    """What a short training says."""
    if methods:
        made(**methods).close()
    new_run(path, env=env)
    trainer, said = opened(path), list[str]()
    trainer.progress.message = said.append  # pyright: ignore[reportAttributeAccessIssue]
    trainer.train()
    return said


def test_rewards_beyond_the_last_bin_are_said_once(tmp_path):
    said = told(tmp_path / "run", "huge_reward:Bug/Billion-v0")
    (line,) = [line for line in said if "reward" in line]
    assert line.startswith("step 1: a reward of ")
    assert "rewards beyond 4.9e+08 are learned as if they were that" in line
    assert not any("reward" in line for line in told(tmp_path / "2", "huge_reward:Bug/Million-v0"))


def test_pictures_of_zero_and_one_and_black_ones_are_said_once(tmp_path):
    said = told(tmp_path / "run", "float_obs:Bug/Zero1-v0")
    (line,) = [line for line in said if "pictures" in line]
    assert line == (
        "step 17: none of the first 17 pictures have a value above 1 (of 255); pictures of 0 and 1 "
        "look almost black: multiply them by 255"
    )

    def black(self) -> np.ndarray:
        return np.zeros((64, 64, 3), np.uint8)

    said = told(tmp_path / "black", "test/Changed-v0", picture=black)
    assert any("a black picture shows nothing" in line for line in said)
