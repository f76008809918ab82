"""Packs a finished run as a pretrained agent: rounds its networks, then scores what was rounded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stormrl.acting.evaluate import Score, random_scores
from stormrl.config.json import CONFIG
from stormrl.config.parts import RunConfig, leaves, to_dict
from stormrl.config.presets import agent_config
from stormrl.disk import pretrained, tensor_files
from stormrl.disk.files import Seal, read_json, reason, replace
from stormrl.disk.jsonlines import is_number, read_jsonlines
from stormrl.disk.pretrained import Pretrained
from stormrl.disk.run_files import EPISODES, METRICS
from stormrl.envs import find_protocol
from stormrl.errors import UserError
from stormrl.learning.state import copy_tensors, module_tensors
from stormrl.runs.agent import Agent
from stormrl.runs.whole import agent_scores
from stormrl.seeds import EVALUATION_SEED

NAMED = ("env", "preset", "size", "steps", "seed")
"""Flags that a command is given even where they are the default."""
LINES = 256
"""Most lines of metrics that are kept: as many as a curve can show."""
DIGITS = 4
"""Significant digits of a metric."""


def pack(
    run: str | Path,
    name: str,
    step: int | None = None,
    episodes: int = 20,
    protocol: str | None = None,
    device: str = "auto",
) -> Pretrained:
    """Put a run's networks, scores and learning history into the package, as the agent `name`.

    The scores are those of the rounded networks, played anew for `episodes` episodes, by default
    under the training's protocol; random play has episodes of the same seeds. step: the checkpoint,
    by default the newest. An agent of the same name is replaced.
    Raises `UserError`, and writes nothing, if the name cannot be one, the run cannot be read or had
    a demonstration, the agent is too large or the package's folder cannot be written.
    """
    path = pretrained.path_of(name)
    agent = Agent.load(run, step, device)
    _refuse_demonstration(agent.config)
    content = tensor_files.to_bytes(round_networks(agent))
    _check_size(content, run)
    rules = find_protocol(protocol or agent.config.protocol)
    played = agent_scores(agent, episodes, rules)
    random = random_scores(
        agent.config.env, rules, episodes, EVALUATION_SEED, agent.config.env_kwargs
    )
    record = {
        "format": pretrained.FORMAT,
        "step": agent.step,
        "protocol": rules.name,
        "scores": _score_columns(played),
        "random": _score_columns(random),
        "episodes": _columns(_history(agent, EPISODES), ("step", "return", "length")),
        "metrics": _metric_columns(_history(agent, METRICS)),
        "run": read_json(agent.path / CONFIG) | {"command": command(agent.config)},
        "networks": Seal.of(content)._asdict(),
    }
    _write(path, record | {pretrained.CHECKSUM: pretrained.checksum(record)}, content)
    return pretrained.read(path)


def round_networks(agent: Agent) -> dict[str, Tensor]:
    """An agent's networks as they are packed, by `group.name`; the agent plays with them from here.

    Matrices and kernels are bfloat16. Vectors stay as they are, and so do all buffers: they are
    half a per cent of the whole, and a BatchNorm divides the error of its running mean by the
    standard deviation, which may be far smaller than the mean.
    """
    groups = {"world_model": agent.world_model, "actor_critic": agent.actor_critic}
    packed = {f"{group}.{name}": t for group in groups for name, t in _rounded(groups[group])}
    for group, tensors in pretrained.widened(packed).items():
        copy_tensors(module_tensors(groups[group]), tensors)
    return packed


def command(config: RunConfig) -> list[str]:
    """`stormrl train` with every flag that its preset and size do not give by themselves."""
    agent = agent_config(config.preset, config.size)
    default = RunConfig(config.env, preset=config.preset, size=config.size, agent=agent)
    before, fields = dict(leaves(to_dict(default))), dict(leaves(to_dict(config)))
    words = ["stormrl", "train"]
    for name in NAMED:
        words += _flag(name, fields.pop(name))
    for name, value in fields.items():
        if before[name] != value:
            words += _flag(name.removeprefix("agent."), value)
    return words


def _flag(name: str, value: object) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]


def _rounded(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module.named_parameters():
        narrow = parameter.ndim > 1
        yield name, parameter.detach().to(torch.bfloat16 if narrow else parameter.dtype)
    yield from module.named_buffers()


def _refuse_demonstration(config: RunConfig) -> None:
    """Its file does not come along, and where it lies is nobody else's business."""
    if config.agent.demonstration.path:
        raise UserError("run", "had a demonstration, which is not packed; pack a run without one")


def _check_size(content: bytes, run: str | Path) -> None:
    if len(content) > pretrained.LARGEST:
        sizes = f"{len(content):,} bytes, more than {pretrained.LARGEST:,}"
        raise UserError("run", f"the networks of {run} take {sizes}; train at a smaller size")


def _history(agent: Agent, name: str) -> list[dict[str, Any]]:
    """The lines up to the agent's checkpoint."""
    lines = read_jsonlines(agent.path / name)
    return [line for line in lines if is_number(line.get("step")) and line["step"] <= agent.step]


def _metric_columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    thinned = _thinned(lines)
    names = dict.fromkeys(name for line in thinned for name in line)
    columns = _columns(thinned, ("step", "update", *names))
    return {name: [_shortened(value) for value in values] for name, values in columns.items()}


def _thinned(lines: Sequence[Any]) -> list[Any]:
    """At most `LINES` of them at even distances, the first and the last included."""
    if len(lines) <= LINES:
        return list(lines)
    last = len(lines) - 1
    return [lines[index * last // (LINES - 1)] for index in range(LINES)]


def _columns(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list]:
    """Values by name; null for what a line lacks or what is no finite number."""
    return {name: [_value(line.get(name)) for line in lines] for name in names}


def _value(value: object) -> float | None:
    return value if is_number(value) else None


def _shortened(value: float | None) -> float | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _score_columns(scores: Sequence[Score]) -> dict[str, list]:
    return {
        "seed": [score.seed for score in scores],
        "return": [score.total for score in scores],
        "length": [score.length for score in scores],
    }


def _write(path: Path, record: Mapping[str, Any], networks: bytes) -> None:
    """The JSON file moves last: it holds the checksum of the other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(pretrained.networks_path(path), networks)
        replace(path, _to_json(record))
    except OSError as error:
        raise UserError("pretrained", f"{path} cannot be written: {reason(error)}") from None


def _to_json(record: Mapping[str, Any]) -> bytes:
    """A line for each field: what changes from one version to the next can be read."""
    fields = (f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in record.items())
    return ("{\n" + ",\n".join(fields) + "\n}\n").encode()
