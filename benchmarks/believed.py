"""What a trained world model believes about HiddenCatch: the reward of every end of a fall.

    python benchmarks/believed.py RUN --episodes 20

The ball is seen in a real game; then the paddle is moved, within the dream, to each column in turn.
Prints one JSON object: for each column that the ball falls in, the mean reward that the model
expects when it lands, by the column of the paddle. A model that knows the game says 1 where the
two are the same and -1 everywhere else.
"""

import argparse
import json
from pathlib import Path

import gymnasium
import numpy as np
import torch

from stormrl.dreams.env import DreamContext, DreamEnv
from stormrl.envs import PROTOCOLS, make_env
from stormrl.envs.toy import CENTRE, GRID, STAY, Catch
from stormrl.runs.agent import Agent
from stormrl.seeds import PROBE_SEED


def main() -> None:
    parser = argparse.ArgumentParser(description="What a world model believes about HiddenCatch.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=20, help="falls for each column")
    options = parser.parse_args()
    torch.manual_seed(PROBE_SEED)
    agent = Agent.load(options.run, device="cpu")
    env = make_env(agent.config.env, PROTOCOLS[agent.config.protocol])
    game = env.unwrapped
    assert isinstance(game, Catch)
    by_column = {column: [] for column in range(GRID)}
    seed = PROBE_SEED
    while min(len(found) for found in by_column.values()) < options.episodes:
        column, context = hidden_ball(env, seed, agent.config.agent.acting.context)
        by_column[column].append(context)
        seed += 1
    dream, steps = DreamEnv(agent.world_model), GRID - 1 - game.visible_rows
    beliefs = {
        column: [
            expected_reward(dream, found[: options.episodes], way(paddle, steps))
            for paddle in range(GRID)
        ]
        for column, found in by_column.items()
    }
    print(json.dumps({"run": str(options.run), "step": agent.step, "reward": beliefs}))


def hidden_ball(env: gymnasium.Env, seed: int, steps: int) -> tuple[int, DreamContext]:
    """The last `steps` steps up to where the second ball of an episode vanishes, and its column.

    The first fall is played at random, in the second the paddle stays in the centre.
    """
    game = env.unwrapped
    assert isinstance(game, Catch)
    assert game.visible_rows < GRID - 1
    env.action_space.seed(seed)
    frames, actions = [env.reset(seed=seed)[0]], []
    while not (game.landed and game.ball_row == game.visible_rows):
        seen = game.landed and game.ball_row < game.visible_rows
        actions.append(STAY if seen else env.action_space.sample())
        frames.append(env.step(actions[-1])[0])
    context = DreamContext(np.stack(frames[-steps - 1 :]), np.array(actions[-steps:]))
    return game.ball_column, context


def expected_reward(dream: DreamEnv, contexts: list[DreamContext], moves: list[int]) -> float:
    """Mean reward that the dreams expect after the last of the moves."""
    rewards = []
    for context in contexts:
        dream.reset(options={"context": context})
        rewards.append([dream.step(STAY + move)[1] for move in moves][-1])
    return round(float(np.mean(rewards)), 2)


def way(paddle: int, steps: int) -> list[int]:
    """Moves from the centre to that column, then none."""
    distance = paddle - CENTRE
    return [int(np.sign(distance))] * abs(distance) + [0] * (steps - abs(distance))


if __name__ == "__main__":
    main()
