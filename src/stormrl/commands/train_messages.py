"""What `stormrl train` says before and after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape

from stormrl import __version__
from stormrl.commands.flags import argument_text
from stormrl.commands.output import messages, print_facts, print_json, say
from stormrl.config.parts import RunConfig
from stormrl.learning.parameters import count_parameters
from stormrl.machine.stop import EXIT_INTERRUPTED
from stormrl.runs.trainer import Outcome, Trainer
from stormrl.runs.whole import frames_per_step
from stormrl.scores.summary import score_text, summary

COMPILING = "compiling the update takes about a minute the first time"


def say_start(trainer: Trainer) -> None:
    """What is about to be trained, with what, and where to look."""
    config, path = trainer.config, trainer.run.path
    console = messages()
    verb = f"goes on at step {trainer.step:,} in" if trainer.step else "trains in"
    console.print(
        f"[bold]stormrl {__version__}[/] {verb} [bold]{escape(str(path))}[/]",
        soft_wrap=True,
    )
    print_facts(
        console,
        {
            "environment": f"{_game_text(config)}, protocol {config.protocol}",
            "length": f"{length_text(config)}, seed {config.seed}",
            "algorithm": f"preset {config.preset}, size {config.size}",
            **_demonstration_fact(trainer),
            **_parameter_facts(trainer),
            "backend": _backend_text(trainer),
            "watch": f"tensorboard --logdir {path / 'tensorboard'}",
            "stop": "Ctrl-C saves the run and says how to go on",
        },
    )


def _game_text(config: RunConfig) -> str:
    return f"{config.env} {argument_text(config.env_kwargs)}".rstrip()


def report(run_dir: Path, config: RunConfig, outcome: Outcome, json: bool) -> int:
    """How it ended and what to do next; the exit code."""
    if json:
        print_json(_record(run_dir, config, outcome))
    elif outcome.finished:
        _say_end(run_dir, config, outcome)
    else:
        say(
            messages(),
            f"Stopped and saved at step {outcome.step:,}. To go on exactly there:\n"
            f"  stormrl train --resume {run_dir}",
        )
    return 0 if outcome.finished else EXIT_INTERRUPTED


def length_text(config: RunConfig) -> str:
    """Steps, and the emulator frames that they are taken for all too easily."""
    frames = frames_per_step(config)
    steps = f"{config.steps:,} environment steps"
    return steps if frames is None else f"{steps} = {config.steps * frames:,} emulator frames"


def _say_end(run_dir: Path, config: RunConfig, outcome: Outcome) -> None:
    console = messages()
    if outcome.scores:
        record = summary(config.env, config.protocol, outcome.step, outcome.scores)
        score = score_text(record["mean"], record["stderr"])
        episodes = f"{record['episodes']} episodes under protocol {config.protocol}"
        console.print(f"[bold]score {score}[/]  mean ± standard error of {episodes}")
    print_facts(
        console,
        {
            "curves": f"tensorboard --logdir {run_dir / 'tensorboard'}",
            "records": f"{run_dir}/metrics.jsonl, episodes.jsonl, scores.jsonl, videos/",
            "evaluate": f"stormrl eval {run_dir}",
            "look": f"stormrl dream {run_dir}",
        },
    )


def _record(run_dir: Path, config: RunConfig, outcome: Outcome) -> dict[str, Any]:
    record = {"run_dir": str(run_dir), "step": outcome.step, "finished": outcome.finished}
    if outcome.scores:
        record |= summary(config.env, config.protocol, outcome.step, outcome.scores)
    return record


def _demonstration_fact(trainer: Trainer) -> dict[str, str]:
    if trainer.demonstration is None:
        return {}
    agent = trainer.config.agent
    windows = agent.demonstration.world_model_windows
    rollouts = agent.demonstration.imagination_windows
    shares = (
        f"{windows} of {windows + agent.world_model.batch_size:,} windows, "
        f"{rollouts:,} of {rollouts + agent.imagination.batch_size:,} imagined trajectories"
    )
    return {"demonstration": f"{len(trainer.demonstration):,} steps: {shares}"}


def _parameter_facts(trainer: Trainer) -> dict[str, str]:
    """For each of the two models, how many parameters it and its parts have."""
    models = {
        "world model": trainer.learner.world_model,
        "actor, critic": trainer.learner.actor_critic,
    }
    texts = {}
    for name, model in models.items():
        whole, *parts = count_parameters(model).items()
        inside = ", ".join(f"{part.replace('_', ' ')} {count:,}" for part, count in parts)
        texts[name] = f"{whole[1]:,} parameters: {inside}"
    return texts


def _backend_text(trainer: Trainer) -> str:
    backend = trainer.backend
    return f"{backend}; {COMPILING}" if backend.compiled else str(backend)
