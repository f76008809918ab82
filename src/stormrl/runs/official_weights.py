"""Checkpoint conversion: the authors' released weights to a run directory, and back.

Two things differ beside the names. Queries, keys and values are three matrices there and one here;
and their last predictor gives the logit of an episode's end, ours that of its going on.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.disk import checkpoint
from stormrl.disk.files import plain_size, readable, reason, replace
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import find_protocol, make_env, spaces_of
from stormrl.errors import UserError
from stormrl.learning.learner import Learner
from stormrl.learning.state import module_tensors
from stormrl.machine.device import Backend
from stormrl.runs.agent import Agent
from stormrl.spaces import Spaces

STEPS = 100_000
"""Environment steps after which the authors' runs are saved for the last time and evaluated."""

Names = dict[str, tuple[str, ...]]
"""By module of ours: the released modules whose tensors, stacked in this order, are its own."""

_NEGATED = "continues_head.6"
_SCALE = ("scale_low", "scale_high")


def import_official(
    world_model_path: str | Path, agent_path: str | Path, env_id: str, out: str | Path
) -> RunDirectory:
    """A run directory with released weights, as the preset `official` at size base.

    The released files do not hold optimizer states or the running range of returns, so that the
    run can be looked at in every way but not trained further.
    Raises `UserError` if a file is not what it should be, or the game has other actions.
    """
    config = RunConfig(
        env=env_id,
        protocol="official",
        steps=STEPS,
        preset="official",
        size="base",
        agent=agent_config("official", "base"),
    )
    spaces = _spaces(config)
    learner = Learner(config.agent, spaces, Backend(torch.device("cpu")))
    world_model, agent = read_tensors(world_model_path), read_tensors(agent_path)
    _check_actions(agent, learner, agent_path, env_id)
    import_world_model(learner.world_model, world_model, world_model_path)
    import_actor_critic(learner.actor_critic, agent, agent_path)
    tensors = {
        "world_model": module_tensors(learner.world_model),
        "actor_critic": module_tensors(learner.actor_critic),
    }
    run = RunDirectory.create(out, config, spaces)
    source = {"world_model": str(world_model_path), "agent": str(agent_path)}
    checkpoint.save(run.path, STEPS, tensors, {"step": STEPS, "imported_from": source})
    return run


def export_official(
    run: str | Path,
    world_model_path: str | Path,
    agent_path: str | Path,
    step: int | None = None,
) -> None:
    """Write a run's networks, by default the newest, as files for the authors' code.

    Raises `UserError` if their code has no such network: it knows size base without ablations.
    """
    agent = Agent.load(run, step, "cpu")
    world_model = export_world_model(agent.world_model)
    actor_critic = export_actor_critic(agent.actor_critic)
    cpu = Backend(torch.device("cpu"))
    released = Learner(agent_config("official", "base"), agent.spaces, cpu)
    _check(world_model, export_world_model(released.world_model), run)
    _check(actor_critic, export_actor_critic(released.actor_critic), run)
    _write(Path(world_model_path), world_model)
    _write(Path(agent_path), actor_critic)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """A file of named tensors, as `torch.save` writes a state dict; runs no code from it.

    Raises `UserError` if it is missing, damaged, or holds anything else.
    """
    path = Path(path)
    plain_size(path)
    remedy = "give a file that the released code has saved"
    try:
        with readable(path):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # A damaged pickle raises whatever it likes.
        problem = f"holds no plain tensors ({type(error).__name__})"
        raise UserError(str(path), f"{problem}; {remedy}") from None
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise UserError(str(path), f"holds no named tensors; {remedy}")
    return content


def import_world_model(model: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Put released tensors into a world model of the same size, in place.

    Raises `UserError` that names `source` and the tensor which is missing, unknown or misshapen.
    """
    _check(tensors, export_world_model(model), source)
    _import(module_tensors(model), _world_model_names(model), tensors)


def import_actor_critic(
    model: nn.Module, tensors: Mapping[str, Tensor], source: str | Path
) -> None:
    """Put released tensors into actor, critic and slow critic; raises as `import_world_model`."""
    _check(tensors, export_actor_critic(model), source)
    _import(_networks(model), _actor_critic_names(model), tensors)


def export_world_model(model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a world model under the released names."""
    return _export(module_tensors(model), _world_model_names(model))


def export_actor_critic(model: nn.Module) -> dict[str, Tensor]:
    """Tensors of actor, critic and slow critic under the released names."""
    return _export(_networks(model), _actor_critic_names(model))


def _networks(model: nn.Module) -> dict[str, Tensor]:
    """All but the range of returns, which the authors keep outside of their tensors."""
    return {name: t for name, t in module_tensors(model).items() if name not in _SCALE}


def _actor_critic_names(model: nn.Module) -> Names:
    return {_owner(name): (_owner(name),) for name in _networks(model)}


def _world_model_names(model: nn.Module) -> Names:
    names: dict[str, str] = {
        "encoder.first": "encoder.backbone.0",
        "decoder.stem": "image_decoder.backbone.0",
        "latent.posterior_head": "dist_head.post_head",
        "latent.prior_head": "dist_head.prior_head",
        "sequence.positions": "storm_transformer.position_encoding.pos_emb",
        "sequence.norm": "storm_transformer.layer_norm",
        "reward_head.6": "reward_decoder.head",
        "continues_head.6": "termination_decoder.head.0",
    }
    for i in range(12):
        names[f"encoder.stages.{i}"] = f"encoder.backbone.{i + 1}"
        names[f"decoder.stages.{i}"] = f"image_decoder.backbone.{i + 2}"
    for i in range(5):
        names[f"sequence.mixer.layers.{i}"] = f"storm_transformer.stem.{i}"
        names[f"reward_head.{i}"] = f"reward_decoder.backbone.{i}"
        names[f"continues_head.{i}"] = f"termination_decoder.backbone.{i}"
    blocks = len({name.split(".")[2] for name in module_tensors(model) if ".blocks." in name})
    return {ours: (theirs,) for ours, theirs in names.items()} | _block_names(blocks)


def _block_names(blocks: int) -> Names:
    names: Names = {}
    for i in range(blocks):
        ours, theirs = f"sequence.blocks.{i}", f"storm_transformer.layer_stack.{i}"
        attention, feedforward = f"{theirs}.slf_attn", f"{theirs}.pos_ffn"
        names |= {
            f"{ours}.attention.qkv": tuple(f"{attention}.{w}" for w in ("w_qs", "w_ks", "w_vs")),
            f"{ours}.attention.out": (f"{attention}.fc",),
            f"{ours}.attention.norm": (f"{attention}.layer_norm",),
            f"{ours}.feedforward.expand": (f"{feedforward}.w_1",),
            f"{ours}.feedforward.contract": (f"{feedforward}.w_2",),
            f"{ours}.feedforward.norm": (f"{feedforward}.layer_norm",),
        }
    return names


def _export(ours: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    exported = {}
    for name, tensor in ours.items():
        parts = _released(name, names)
        signed = _signed(name, tensor.detach())
        split = signed.chunk(len(parts)) if len(parts) > 1 else (signed,)
        exported |= {part: t.contiguous().clone() for part, t in zip(parts, split, strict=True)}
    return exported


@torch.no_grad()
def _import(ours: Mapping[str, Tensor], names: Names, theirs: Mapping[str, Tensor]) -> None:
    for name, tensor in ours.items():
        parts = [theirs[part] for part in _released(name, names)]
        tensor.copy_(_signed(name, torch.cat(parts) if len(parts) > 1 else parts[0]))


def _released(name: str, names: Names) -> list[str]:
    """Names of the released tensors that make up one of ours."""
    leaf = name.rpartition(".")[2]
    return [f"{module}.{leaf}" for module in names[_owner(name)]]


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _signed(name: str, tensor: Tensor) -> Tensor:
    return -tensor if _owner(name) == _NEGATED else tensor


def _check(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str | Path) -> None:
    """Raises `UserError` unless the tensors are those of the released networks."""
    for name in sorted(expected.keys() - given.keys()):
        raise _wrong(source, f"lacks {name!r}")
    for name in sorted(given.keys() - expected.keys()):
        raise _wrong(source, f"holds {name!r}, which the released networks do not have")
    for name, tensor in expected.items():
        if given[name].shape != tensor.shape:
            shapes = f"{list(given[name].shape)}, not {list(tensor.shape)}"
            raise _wrong(source, f"holds {name!r} of shape {shapes}")
        if given[name].dtype != tensor.dtype:
            raise _wrong(source, f"holds {name!r} as {given[name].dtype}, not {tensor.dtype}")
        if not bool(given[name].isfinite().all()):
            raise UserError(str(source), f"holds numbers that are not finite, in {name!r}")


def _wrong(source: str | Path, what: str) -> UserError:
    return UserError(str(source), f"{what}; only networks of the released sizes can be converted")


def _spaces(config: RunConfig) -> Spaces:
    env = make_env(config.env, find_protocol(config.protocol))
    spaces = spaces_of(env)
    env.close()
    return spaces


def _check_actions(
    agent: Mapping[str, Tensor], learner: Learner, path: str | Path, env_id: str
) -> None:
    expected = learner.world_model.spaces.action.n
    bias = agent.get("actor.6.bias")
    if bias is not None and bias.ndim == 1 and len(bias) != expected:
        problem = f"{env_id} has {expected} actions, the agent in {path} has {len(bias)}"
        raise UserError("env", f"{problem}; give the game that it was trained on")


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, buffer.getvalue())
    except OSError as error:
        raise UserError(str(path), f"cannot be written: {reason(error)}") from None
