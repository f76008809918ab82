"""Which balls of Catch or HiddenCatch a trained agent catches, by the column they fall in.

    python benchmarks/caught.py RUN --episodes 40

Prints one JSON object: the mean return and, for each column, the share of its balls caught.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import gymnasium
import torch

from stormrl.envs import PROTOCOLS, make_env
from stormrl.envs.toy import Catch
from stormrl.runs.agent import Agent
from stormrl.seeds import GAME_SEED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--greedy", action="store_true", help="take the most probable action")
    options = parser.parse_args()
    torch.manual_seed(GAME_SEED)
    agent = Agent.load(options.run, device="cpu")
    env = make_env(agent.config.env, PROTOCOLS[agent.config.protocol])
    falls = [
        fall
        for episode in range(options.episodes)
        for fall in play(agent, env, GAME_SEED + episode, options.greedy)
    ]
    by_column = defaultdict(list)
    for column, reward in falls:
        by_column[column].append(reward > 0)
    result = {
        "run": str(options.run),
        "step": agent.step,
        "mean_return": sum(reward for _, reward in falls) / options.episodes,
        "caught": {c: round(sum(hits) / len(hits), 2) for c, hits in sorted(by_column.items())},
    }
    print(json.dumps(result))


def play(agent: Agent, env: gymnasium.Env, seed: int, greedy: bool) -> list[tuple[int, float]]:
    """Column and reward of every ball of one episode."""
    game = env.unwrapped
    assert isinstance(game, Catch)
    obs, _ = env.reset(seed=seed)
    carry, over, falls = None, False, []
    while not over:
        landed = game.landed
        action, carry = agent.act(obs, carry, greedy)
        obs, reward, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
        if game.landed > landed:
            falls.append((game.ball_column, float(reward)))
    return falls


if __name__ == "__main__":
    main()
