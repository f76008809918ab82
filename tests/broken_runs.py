"""Runs broken on purpose, each in one way, and one that is whole: really trained, in half a minute.

`python tests/broken_runs.py` trains them all and records their metrics under tests/data/doctor.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from stormrl.config.common import CategoricalConfig, ConvConfig, HeadConfig
from stormrl.config.parts import AgentConfig, RunConfig, storm
from stormrl.config.presets import agent_config
from stormrl.disk.run_directory import RunDirectory
from stormrl.history.progress import SilentProgress
from stormrl.runs.trainer import Trainer

RECORDED = Path(__file__).parent / "data" / "doctor"
WARMUP, UPDATES = 256, 350


def quick() -> AgentConfig:
    """A model that begins to learn Catch within some hundred updates of 50 ms."""
    agent = agent_config(size="toy")
    world_model, actor_critic = storm(agent), agent.actor_critic
    head = HeadConfig(width=64)
    return replace(
        agent,
        world_model=replace(
            world_model,
            image=ConvConfig(channels=4),
            latent=CategoricalConfig(categoricals=8, classes=8),
            sequence=replace(world_model.sequence, width=64, heads=2, feedforward=128, layers=1),
            head=head,
            batch_length=16,
        ),
        imagination=replace(agent.imagination, batch_size=32, horizon=8),
        actor_critic=replace(actor_critic, head=head),
        replay=replace(agent.replay, warmup=WARMUP),
    )


def _world_model(**fields) -> AgentConfig:
    agent = quick()
    return replace(agent, world_model=replace(agent.world_model, **fields))


def _without_learning_rate() -> AgentConfig:
    return _world_model(optimizer=replace(quick().world_model.optimizer, learning_rate=0.0))


def _without_kl() -> AgentConfig:
    return _world_model(dynamics_weight=0.0, representation_weight=0.0)


def _too_much_kl() -> AgentConfig:
    return _world_model(dynamics_weight=1e3, representation_weight=1e3, free_nats=0.0)


def _with_entropy() -> AgentConfig:
    agent = quick()
    return replace(agent, actor_critic=replace(agent.actor_critic, entropy=10.0))


def _one_update() -> AgentConfig:
    ratio = 1.5 / UPDATES
    return replace(quick(), world_model_ratio=ratio, agent_ratio=ratio)


CONFIGS: dict[str, Callable[[], AgentConfig]] = {
    "whole": quick,
    "learning rate 0": _without_learning_rate,
    "KL weights 0": _without_kl,
    "KL weights 1000": _too_much_kl,
    "reward head frozen": quick,
    "entropy 10": _with_entropy,
    "one update": _one_update,
}


def run_config(name: str) -> RunConfig:
    return RunConfig(
        env="stormrl/Catch-v0",
        steps=WARMUP + UPDATES,
        seed=1,
        size="toy",
        agent=CONFIGS[name](),
        device="cpu",
        compile="off",
        log_every=50,
        dream_every=0,
        evaluation_episodes=0,
    )


def train(name: str, path: Path) -> Path:
    """Train the run of that name; its directory."""
    trainer = Trainer(RunDirectory.create(path, run_config(name)), SilentProgress())
    if name == "reward head frozen":
        trainer.learner.world_model.reward_head.requires_grad_(False)
    trainer.train()
    return path


def recorded(name: str) -> Path:
    """Where the metrics of the run of that name are kept."""
    return RECORDED / f"{name.replace(' ', '-')}.jsonl"


def record_all() -> None:
    RECORDED.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for name in CONFIGS:
            run = train(name, Path(folder) / name)
            recorded(name).write_bytes((run / "metrics.jsonl").read_bytes())


if __name__ == "__main__":
    record_all()
