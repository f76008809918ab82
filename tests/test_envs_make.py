"""Environments of one's own, bad names, and what `check_env` says about them."""

from dataclasses import replace

import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from stormrl.envs import PROTOCOLS, action_meanings, check_env, make_env, restore, snapshot
from stormrl.errors import UserError

PROTOCOL = PROTOCOLS["atari100k"]


class Noise(gymnasium.Env):
    """Pictures of noise; lives follow a script; ends after six steps."""

    LIVES = (2, 3, 2, 2, 0, 0)

    def __init__(self, size=64, actions=None, render_mode=None):
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = actions or spaces.Discrete(2)
        self.time = 0

    def picture(self):
        return self.np_random.integers(0, 256, self.observation_space.shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.picture(), {"lives": 3}

    def step(self, action):
        info = {"lives": self.LIVES[self.time]}
        self.time += 1
        return self.picture(), float(action), self.time == len(self.LIVES), False, info


class UnseededNoise(Noise):
    """Its pictures do not come from the seed."""

    def picture(self):
        return np.random.default_rng().integers(0, 256, (64, 64, 3), np.uint8)


class FailingNoise(Noise):
    def step(self, action):
        if self.time == 5:
            raise RuntimeError("the\ngame broke")
        return super().step(action)


@pytest.fixture(autouse=True, scope="module")
def registered():
    made = {
        "test/Noise-v0": (Noise, {}),
        "test/Large-v0": (Noise, {"size": 96}),
        "test/Unbounded-v0": (Noise, {"actions": spaces.Box(-np.inf, 1, (2,), np.float32)}),
        "test/Words-v0": (Noise, {"actions": spaces.Text(3)}),
        "test/Unseeded-v0": (UnseededNoise, {}),
        "test/Failing-v0": (FailingNoise, {}),
    }
    for name, (entry_point, kwargs) in made.items():
        gymnasium.register(name, entry_point, kwargs=kwargs)
    yield
    for name in made:
        del gymnasium.registry[name]


def test_a_life_lost_after_an_extra_life_is_noticed():
    env = make_env("test/Noise-v0", PROTOCOL)
    assert env.reset(seed=0)[1]["life_lost"] is False
    lost = [env.step(0)[4]["life_lost"] for _ in range(6)]
    assert lost == [True, False, True, False, True, False]


def test_no_life_is_lost_where_there_are_none():
    env = make_env("stormrl/Catch-v0", PROTOCOL)
    assert env.reset(seed=0)[1] == {"life_lost": False, "episode_seed": 0}
    assert env.step(0)[4] == {"life_lost": False}


def test_other_picture_sizes_are_resized_by_area():
    env = make_env("test/Large-v0", PROTOCOL)
    raw = gymnasium.make("test/Large-v0")
    obs, expected = env.reset(seed=1)[0], raw.reset(seed=1)[0]
    assert env.observation_space == spaces.Box(0, 255, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(obs, cv2.resize(expected, (64, 64), interpolation=cv2.INTER_AREA))


def test_actions_without_words_are_numbered():
    assert action_meanings(make_env("test/Noise-v0", PROTOCOL)) == ["0", "1"]


def test_the_seed_is_repeated_in_any_environment():
    env = make_env("test/Noise-v0", replace(PROTOCOL, fixed_seed_at_reset=True))
    first = env.reset(seed=7)[0]
    np.testing.assert_array_equal(env.reset()[0], first)
    assert not np.array_equal(env.reset(seed=8)[0], first)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("ALE/Pong-v6", "ALE/Pong-v5"),
        ("pong", "ALE/Pong-v5"),
        ("ALE/Boxng-v5", "ALE/Boxing-v5"),
        ("Catch-v0", "stormrl/Catch-v0"),
        ("qqqqqq", "Is its package imported"),
        ("", "no environment is called ''"),
        ("no_such_module:Id-v0", "cannot import 'no_such_module'"),
        (".relative:Id-v0", "cannot import '.relative'"),
        ("test/Unbounded-v0", r"without bounds; gymnasium\.wrappers\.TransformAction"),
        ("test/Words-v0", r"action is Text\(.*no list of possibilities"),
    ],
)
def test_what_cannot_be_played_is_a_users_mistake_told_in_one_line(env_id, message):
    with pytest.raises(UserError, match=message) as caught:
        make_env(env_id, PROTOCOL)
    assert caught.value.field == "env"
    assert "\n" not in str(caught.value)


def test_a_module_before_the_colon_is_imported(tmp_path, monkeypatch):
    source = "import gymnasium; gymnasium.register('mine/Env-v0', 'stormrl.envs.toy:Catch')"
    (tmp_path / "my_games.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert make_env("my_games:mine/Env-v0", PROTOCOL).action_space == spaces.Discrete(3)


def test_every_episode_has_a_seed_that_repeats_it():
    env, again = (make_env("test/Noise-v0", PROTOCOL) for _ in range(2))
    assert env.reset(seed=11)[1]["episode_seed"] == 11
    seeds = set()
    for _ in range(3):
        obs, info = env.reset()
        seeds.add(info["episode_seed"])
        np.testing.assert_array_equal(again.reset(seed=info["episode_seed"])[0], obs)
    assert len(seeds) == 3
    again.reset(seed=11)
    assert {again.reset()[1]["episode_seed"] for _ in range(3)} == seeds


def test_a_restored_environment_plays_on_identically():
    env, copy = (make_env("test/Noise-v0", PROTOCOL) for _ in range(2))
    env.reset(seed=0)
    env.step(1)
    assert restore(copy, snapshot(env))
    for _ in range(5):
        ours, theirs = env.step(1), copy.step(1)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:]
    np.testing.assert_array_equal(env.reset()[0], copy.reset()[0])


def test_an_environment_that_ignores_its_seed_is_not_restored():
    env, copy = (make_env("test/Unseeded-v0", PROTOCOL) for _ in range(2))
    env.reset(seed=0)
    assert not restore(copy, snapshot(env))


def findings(env_id):
    report = check_env(env_id)
    return report.ok, {check.name: check for check in report.checks}


def test_check_env_finds_a_toy_game_in_order():
    ok, checks = findings("stormrl/Catch-v0")
    assert ok
    assert all(check.ok for check in checks.values())
    assert checks["action space"].detail == "LEFT, STAY, RIGHT"
    assert checks["rewards"].detail == "from -1 to 1 in 1000 random steps"
    assert checks["episodes"].detail == "25 of 39 to 39 random steps"
    assert checks["speed"].detail.endswith("steps/s")


def test_check_env_reports_unsupported_spaces():
    ok, checks = findings("test/Unbounded-v0")
    assert not ok
    assert not checks["action space"].ok
    assert "speed" not in checks


def test_check_env_tells_what_each_part_will_be():
    ok, checks = findings("Blackjack-v1")
    assert ok
    assert checks["observation space"].detail == "45 numbers (obs[0]: 32, obs[1]: 11, obs[2]: 2)"
    ok, checks = findings("Pendulum-v1")
    assert ok
    assert checks["observation space"].detail == "3 numbers (obs: 3)"
    assert checks["action space"].detail.startswith("-2, -1.6, -1.2")
    assert checks["numbers"].ok


def test_check_env_tells_what_is_restorable():
    ok, checks = findings("test/Noise-v0")
    assert ok
    assert checks["deterministic"].ok
    assert checks["restorable"].ok


def test_check_env_tells_when_the_seed_is_ignored():
    # It can be trained on all the same, so it is a note.
    ok, checks = findings("test/Unseeded-v0")
    assert ok
    assert not checks["deterministic"].ok
    assert "seed" in checks["gymnasium rules"].detail


def test_check_env_reports_an_environment_that_raises():
    ok, checks = findings("test/Failing-v0")
    assert not ok
    place = "step 6 of the episode with seed 0"
    expected = f"test/Failing-v0 raised in {place}: RuntimeError: the game broke"
    assert checks["random play"].detail == expected


def test_check_env_refuses_an_unknown_name():
    with pytest.raises(UserError, match="Did you mean stormrl/Catch-v0"):
        check_env("stormrl/Cach-v0")
