"""The real emulator under the named protocols."""

import subprocess
import sys
from dataclasses import replace

import cv2
import gymnasium
import numpy as np
import pytest
import safetensors.numpy

from stormrl.envs import PROTOCOLS, action_meanings, make_env, restore, snapshot
from stormrl.errors import UserError

ATARI100K, OFFICIAL, MACHADO = (PROTOCOLS[n] for n in ("atari100k", "official", "machado"))


def random_actions(env, steps, seed=0):
    return [int(a) for a in np.random.default_rng(seed).integers(env.action_space.n, size=steps)]


def play(env, actions):
    """Steps with resets in between; everything an agent or a log could see of them."""
    seen = []
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        seen.append((obs.tobytes(), reward, terminated, truncated, info["lives"]))
        if terminated or truncated:
            obs, info = env.reset()
            seen.append((obs.tobytes(), info["lives"], info["life_lost"]))
    return seen


def resized(frame):
    return cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA)


def test_the_picture_is_the_maximum_of_the_last_two_frames_resized_by_area():
    env = make_env("ALE/Breakout-v5", OFFICIAL)
    raw = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.25)
    obs, _ = env.reset(seed=3)
    frame, _ = raw.reset(seed=3)
    assert obs.shape == (64, 64, 3)
    assert obs.dtype == np.uint8
    np.testing.assert_array_equal(obs, resized(frame))
    for action in random_actions(env, 60):
        obs, reward, *_ = env.step(action)
        frames, rewards = zip(*[raw.step(action)[:2] for _ in range(4)], strict=True)
        np.testing.assert_array_equal(obs, resized(np.maximum(frames[2], frames[3])))
        assert reward == sum(rewards)


@pytest.mark.parametrize(
    ("protocol", "sticky"), [(ATARI100K, 0), (OFFICIAL, 0.25), (MACHADO, 0.25)]
)
def test_sticky_actions_and_time_limit_reach_the_emulator(protocol, sticky):
    ale = make_env("ALE/Pong-v5", protocol).get_wrapper_attr("ale")
    assert ale.getFloat("repeat_action_probability") == sticky
    assert ale.getInt("max_num_frames_per_episode") == 108_000


def test_an_episode_starts_after_one_to_thirty_idle_frames_under_atari100k_alone():
    env = make_env("ALE/Pong-v5", ATARI100K)
    starts = {env.reset(seed=s)[1]["episode_frame_number"] for s in range(12)}
    assert starts <= set(range(1, 31))
    assert len(starts) > 4
    assert make_env("ALE/Pong-v5", OFFICIAL).reset(seed=1)[1]["episode_frame_number"] == 0


@pytest.mark.parametrize(("game", "actions"), [("Pong", 6), ("Freeway", 3), ("Boxing", 18)])
def test_the_action_set_is_minimal(game, actions):
    env = make_env(f"ALE/{game}-v5", ATARI100K)
    assert env.action_space == gymnasium.spaces.Discrete(actions)
    assert len(action_meanings(env)) == actions
    assert action_meanings(env)[0] == "NOOP"


def test_the_protocol_rules_whichever_registered_name_is_used():
    env = make_env("PongNoFrameskip-v4", MACHADO)
    env.reset(seed=0)
    *_, info = env.step(0)
    assert info["episode_frame_number"] == 4
    assert env.get_wrapper_attr("ale").getFloat("repeat_action_probability") == 0.25


def test_an_episode_is_truncated_after_max_frames():
    env = make_env("ALE/Pong-v5", replace(OFFICIAL, max_frames=40))
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(10)]
    assert ends == [(False, False)] * 9 + [(False, True)]


def test_a_lost_life_is_told_and_does_not_end_the_game():
    env = make_env("ALE/Breakout-v5", ATARI100K)
    _, info = env.reset(seed=0)
    assert info["life_lost"] is False
    lives, lost, terminated = info["lives"], 0, False
    while not terminated:
        *_, terminated, _, info = env.step(env.action_space.sample())
        assert info["life_lost"] == (info["lives"] < lives)
        lives, lost = info["lives"], lost + info["life_lost"]
    assert lost == 5


def test_the_official_protocol_repeats_the_first_seed_at_every_reset():
    env = make_env("ALE/Breakout-v5", OFFICIAL)
    actions = random_actions(env, 30)
    env.reset(seed=5)
    first = play(env, actions)
    env.reset()
    assert play(env, actions) == first
    env.reset(seed=6)
    assert play(env, actions) != first


def test_episodes_differ_where_the_seed_is_not_repeated():
    env = make_env("ALE/Breakout-v5", MACHADO)
    actions = random_actions(env, 30)
    env.reset(seed=5)
    first = play(env, actions)
    env.reset()
    assert play(env, actions) != first


# The short time limit brings truncations and resets into the compared steps. Qbert is here
# because the emulator's own saved state is not exact in it.
@pytest.mark.parametrize(
    ("game", "protocol"),
    [
        ("Pong", replace(MACHADO, noop_max=30, max_frames=300)),
        ("Qbert", replace(MACHADO, noop_max=30, max_frames=300)),
        ("Freeway", replace(OFFICIAL, max_frames=300)),
        ("Breakout", replace(MACHADO, noop_max=30, max_frames=500)),
    ],
)
def test_a_restored_game_plays_on_identically(game, protocol):
    env = make_env(f"ALE/{game}-v5", protocol)
    env.reset(seed=1)
    actions = random_actions(env, 250)
    play(env, actions[:93])
    data = safetensors.numpy.save(snapshot(env))
    copy = make_env(f"ALE/{game}-v5", protocol)
    assert restore(copy, safetensors.numpy.load(data))
    seen = play(env, actions)
    assert play(copy, actions) == seen
    assert len(seen) > len(actions), "no reset among the compared steps"
    assert env.action_space.sample() == copy.action_space.sample()


def test_a_game_played_under_another_protocol_is_not_restored():
    env = make_env("ALE/Pong-v5", MACHADO)
    env.reset(seed=1)
    play(env, random_actions(env, 50))
    assert not restore(make_env("ALE/Pong-v5", ATARI100K), snapshot(env))


def test_a_snapshot_of_another_game_is_refused():
    env = make_env("ALE/Pong-v5", MACHADO)
    env.reset(seed=1)
    with pytest.raises(UserError, match=r"^env: the saved state is of ALE/Pong-v5, not ALE/Boxing"):
        restore(make_env("ALE/Boxing-v5", MACHADO), snapshot(env))


def test_making_a_game_prints_nothing():
    code = (
        "from stormrl.envs import PROTOCOLS, make_env;"
        "make_env('ALE/Pong-v5', PROTOCOLS['atari100k']).reset()"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout + run.stderr == ""
