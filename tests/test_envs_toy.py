"""The toy games: their pictures, their optimum, and that HiddenCatch needs memory."""

import itertools

import gymnasium
import numpy as np
import pytest

from stormrl.envs import PROTOCOLS, Catch, action_meanings, make_env, restore, snapshot
from stormrl.envs.toy import CENTRE, GRID, LEFT, RIGHT, STAY

GAMES = ("stormrl/Catch-v0", "stormrl/HiddenCatch-v0")
PROTOCOL = PROTOCOLS["atari100k"]


def make(env_id):
    return make_env(env_id, PROTOCOL)


def ball(obs):
    """[row, column] of the white cell; empty when there is none."""
    cells = obs.reshape(GRID, 8, GRID, 8, 3)[:, 0, :, 0]
    return np.argwhere((cells == 255).all(-1))[:1].ravel().tolist()


def paddle(obs):
    return int(np.argwhere((obs[-1] == (64, 160, 255)).all(-1))[0, 0]) // 8


def towards(column, target):
    return STAY + int(np.sign(target - column))


def episode(env, policy, seed):
    """Return and pictures of one episode; `policy` maps the pictures so far to an action."""
    obs, _ = env.reset(seed=seed)
    seen, total, terminated = [obs], 0.0, False
    while not terminated:
        obs, reward, terminated, truncated, _ = env.step(policy(seen))
        seen.append(obs)
        total += reward
        assert not truncated
    return total, seen


def remember(seen):
    """Goes to the column where a ball was last seen to start."""
    starts = [ball(obs) for obs in seen if ball(obs) and ball(obs)[0] == 0]
    return towards(paddle(seen[-1]), starts[-1][1])


@pytest.mark.parametrize("env_id", GAMES)
def test_pictures_show_paddle_and_visible_ball(env_id):
    env = make(env_id)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert action_meanings(env) == ["LEFT", "STAY", "RIGHT"]
    _, seen = episode(env, lambda _: RIGHT, seed=2)
    visible = 2 if "Hidden" in env_id else GRID
    for step, obs in enumerate(seen):
        row = step % GRID
        assert paddle(obs) == min(CENTRE + row, GRID - 1)
        assert bool(ball(obs)) == (row < visible)
        if row < visible:
            assert ball(obs) == [row, ball(seen[step - row])[1]]


def test_an_episode_has_five_falls_of_eight_pictures():
    _, seen = episode(make("stormrl/Catch-v0"), lambda _: STAY, seed=0)
    assert len(seen) == 5 * GRID


@pytest.mark.parametrize("env_id", GAMES)
def test_the_optimal_return_is_always_reached_with_memory(env_id):
    env = make(env_id)
    returns = {episode(env, remember, seed)[0] for seed in range(40)}
    assert returns == {env.get_wrapper_attr("optimal_return")} == {5.0}


def test_every_ball_can_be_caught_by_an_agent_that_learns_of_it_one_step_late():
    for column, first in itertools.product(range(GRID), (LEFT, STAY, RIGHT)):
        env = Catch()
        env.reset(seed=0)
        env.ball_column = column
        obs, *_ = env.step(first)
        reward = 0.0
        for _ in range(GRID - 2):
            obs, reward, *_ = env.step(towards(paddle(obs), column))
        assert reward == 1.0


@pytest.mark.parametrize("env_id", GAMES)
def test_play_that_ignores_the_ball_expects_a_clearly_negative_return(env_id):
    env = make(env_id)
    actions = np.random.default_rng(0)
    returns = [episode(env, lambda _: int(actions.integers(3)), seed)[0] for seed in range(400)]
    expected = 5 * (2 / GRID - 1)
    spread = np.sqrt(5 * 4 * (1 / GRID) * (1 - 1 / GRID))
    assert abs(np.mean(returns) - expected) < 4 * spread / np.sqrt(len(returns))


def test_the_best_memoryless_policy_catches_five_of_eight_hidden_balls():
    """All 3**8 rules from paddle column to action for the pictures without a ball.

    In the two pictures that show the ball, the paddle can go anywhere within two cells of the
    centre; then the rule alone takes it, for five moves, to where the ball lands.
    """
    within_reach = range(CENTRE - 2, CENTRE + 3)
    rules = np.array(list(itertools.product((-1, 0, 1), repeat=GRID)))
    columns = np.tile(within_reach, (len(rules), 1))
    for _ in range(GRID - 1 - 2):
        columns = np.clip(columns + np.take_along_axis(rules, columns, 1), 0, GRID - 1)
    caught = max(len(set(row)) for row in columns.tolist())
    assert caught == 5
    expected_return = 5 * (2 * caught / GRID - 1)
    assert expected_return == 1.25


def test_a_memoryless_policy_plays_as_badly_as_computed():
    """The best one: go for the ball while it shows, else stay."""

    def memoryless(seen):
        target = ball(seen[-1])
        return towards(paddle(seen[-1]), target[1]) if target else STAY

    env = make("stormrl/HiddenCatch-v0")
    returns = [episode(env, memoryless, seed)[0] for seed in range(400)]
    spread = np.sqrt(5 * 4 * (5 / 8) * (3 / 8))
    assert abs(np.mean(returns) - 1.25) < 4 * spread / np.sqrt(len(returns))


@pytest.mark.parametrize("env_id", GAMES)
@pytest.mark.parametrize("steps", [0, 11, 39])
def test_a_restored_game_plays_on_identically(env_id, steps):
    env, copy = make(env_id), make(env_id)
    actions = np.random.default_rng(0).integers(3, size=200)

    def play(env, actions):
        seen = []
        for action in actions:
            obs, reward, terminated, *_ = env.step(int(action))
            seen.append((obs.tobytes(), reward, terminated))
            if terminated:
                seen.append(env.reset()[0].tobytes())
        return seen

    env.reset(seed=4)
    play(env, actions[:steps])
    assert restore(copy, snapshot(env))
    assert play(copy, actions) == play(env, actions)


@pytest.mark.parametrize("env_id", GAMES)
def test_render_gives_the_picture(env_id):
    env = make_env(env_id, PROTOCOL, render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), obs)
