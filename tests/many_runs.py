"""Run directories written by hand: hundreds in no time, their scores those of a published agent."""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np

from stormrl.config.parts import RunConfig, to_dict
from stormrl.config.presets import agent_config
from stormrl.disk.run_directory import FORMAT
from stormrl.machine.provenance import provenance
from stormrl.scores.published import STORM, published_agent

STEPS = 100_000
LINES = 50


def write_run(path: Path, env: str, seed: int, score: float, steps: int = STEPS, **fields) -> Path:
    """A finished run whose evaluation episodes average `score`."""
    agent = agent_config("official", "base")
    settings = {"protocol": "official", "preset": "official", "agent": agent, **fields}
    config = RunConfig(env=env, seed=seed, steps=steps, **settings)
    path.mkdir(parents=True)
    record = {"format": FORMAT, "config": to_dict(config), **_provenance()}
    (path / "config.json").write_text(json.dumps(record))
    rng = np.random.default_rng([seed, len(env), abs(int(score))])
    _write(path / "metrics.jsonl", [_metrics(index, steps, rng) for index in range(1, LINES + 1)])
    _write(path / "episodes.jsonl", [_episode(i, steps, score, rng) for i in range(1, LINES + 1)])
    _write(path / "scores.jsonl", [_score(i, steps, score, settings) for i in range(20)])
    return path


def write_published(folder: Path, agent: str = STORM) -> list[Path]:
    """A run for each published one of `agent`: 26 games, five seeds."""
    return [
        write_run(folder / f"{game.lower()}-{seed}", f"ALE/{game}-v5", seed, score)
        for game, scores in published_agent(agent).seeds.items()
        for seed, score in enumerate(scores, start=1)
    ]


def one_run(folder: Path, **fields) -> Path:
    return write_run(folder / "boxing", "ALE/Boxing-v5", 1, 71.5, **fields)


@cache
def _provenance() -> dict:
    return provenance()


def _metrics(index: int, steps: int, rng: np.random.Generator) -> dict:
    done = index / LINES
    noise = 1 + 0.1 * rng.standard_normal()
    return {
        "step": round(done * steps),
        "update": round(done * steps),
        "wall_s": done * 3600,
        "world_model/reconstruction": 10 + 400 * math.exp(-8 * done) * noise,
        "world_model/reward": 0.1 + math.exp(-4 * done) * abs(noise),
        "world_model/continuation": 0.02 + 0.1 * math.exp(-4 * done),
        "world_model/kl": 2 + 4 * math.exp(-4 * done) * noise,
        "world_model/posterior_entropy": 0.3,
        "world_model/prior_entropy": 0.4,
        "world_model/skipped": 0.0,
        "agent/total": 1.0,
        "agent/value": 1 + 3 * math.exp(-4 * done),
        "agent/entropy": 1 + math.exp(-2 * done) * noise,
        "agent/uniform_entropy": math.log(18),
        "agent/return_scale": 1.0,
        "agent/imagined_return": 5 * done,
        "agent/skipped": 0.0,
    }


def _episode(index: int, steps: int, score: float, rng: np.random.Generator) -> dict:
    done = index / LINES
    level = score * (1 - math.exp(-4 * done)) + abs(score) * 0.1 * rng.standard_normal()
    return {"step": round(done * steps), "return": round(level, 2), "length": 900, "seed": index}


def _score(index: int, steps: int, score: float, settings: dict) -> dict:
    spread = score / 10 * (1 if index % 2 else -1)
    return {
        "checkpoint_step": steps,
        "protocol": settings["protocol"],
        "episode": index,
        "return": score + spread,
        "length": 900,
        "seed": 1_000_000 + index,
    }


def _write(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
