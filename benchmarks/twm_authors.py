"""TWM against its authors' released code on a CPU: the same numbers, and how fast.

    git clone https://github.com/jrobine/twm authors
    python benchmarks/twm_authors.py --code authors --compare
    python benchmarks/twm_authors.py --code authors --repeats 5

`--compare` gives both the same weights, experience and draws at base size, and prints the largest
difference of each quantity. Without it, one update of each is timed, in turn, in processes of their
own: 100 windows of 16 steps for the world model, 400 dreams of 15 steps, one update of actor and
critic on them. `--golden FILE` writes what their modules compute at the size of the tests
(tests/test_twm_weights.py). What their modules import of loggers and emulators is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import torch
from safetensors.torch import save_file
from torch import Tensor

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import twm_miniature as miniature  # noqa: E402  # pyright: ignore[reportMissingImports]
from stormrl.config.twm import AdvantageConfig, TwmConfig  # noqa: E402
from stormrl.nn.functional import sample_index, straight_through  # noqa: E402

ACTIONS = 6
WARM_UP, TIMED = 1, 3


class Theirs(NamedTuple):
    """Their modules, loaded as released."""

    world_model: Any
    actor_critic: Any
    agent: Any
    config: Any


def load(code: Path) -> Theirs:
    stubs = {
        "gym": gymnasium,
        "wandb": types.ModuleType("wandb"),
        "wandb.sdk.data_types.base_types.wb_value": types.ModuleType("wb_value"),
        "ale_py.roms.utils": types.ModuleType("utils"),
        "ale_py.env.gym": types.ModuleType("gym"),
    }
    stubs["wandb.sdk.data_types.base_types.wb_value"].WBValue = object  # type: ignore[attr-defined]
    stubs["ale_py.roms.utils"].rom_name_to_id = None  # type: ignore[attr-defined]
    stubs["ale_py.env.gym"].AtariEnv = object  # type: ignore[attr-defined]
    sys.modules.update(stubs)
    sys.path.insert(0, str(code / "twm"))
    import actor_critic  # pyright: ignore[reportMissingImports]
    import agent  # pyright: ignore[reportMissingImports]
    import config  # pyright: ignore[reportMissingImports]
    import world_model  # pyright: ignore[reportMissingImports]

    return Theirs(world_model, actor_critic, agent, config)


def their_config(theirs: Theirs, world: TwmConfig, agent: AdvantageConfig) -> dict[str, Any]:
    """Theirs of the same size as ours, which must be of a shape that they can have."""
    head, hidden = world.head, agent.head
    return theirs.config.CONFIGS["default"] | {
        "z_categoricals": world.latent.categoricals,
        "z_categories": world.latent.classes,
        "obs_channels": world.image.channels,
        "dyn_embed_dim": world.sequence.width,
        "dyn_num_heads": world.sequence.heads,
        "dyn_num_layers": world.sequence.layers,
        "dyn_feedforward_dim": world.sequence.feedforward,
        "dyn_head_dim": world.sequence.head_width,
        "dyn_z_dims": [world.latent_head.width] * world.latent_head.layers,
        "dyn_reward_dims": [head.width] * head.layers,
        "dyn_discount_dims": [head.width] * head.layers,
        "dyn_dropout": world.sequence.dropout,
        "wm_memory_length": world.sequence.memory,
        "wm_sequence_length": world.batch_length,
        "actor_dims": [hidden.width] * hidden.layers,
        "critic_dims": [hidden.width] * hidden.layers,
    }


def computed(theirs: Theirs, setting: miniature.Setting) -> dict[str, Tensor]:
    """What their modules make of the weights, experience and draws of a setting."""
    world, behaviour, batch, noise = setting
    config = their_config(theirs, world.config, behaviour.config)
    actions = world.spaces.action.n
    agent = theirs.agent.Agent(config, actions)
    miniature.fill(agent, skip=("encodings",))
    lead = world.config.lead
    stacks = world.stacks(batch.obs, batch.is_first)[:, lead:]
    action, reward = batch.action[:, lead:-1], batch.reward[:, lead:-1].tanh()
    terminated = batch.continues[:, lead:-1] == 0
    truncated = batch.is_first[:, lead + 1 :] & ~terminated
    wm, found = agent.wm, {}
    with_latent_loss(wm.dyn_model)
    draws = iter([noise.loss[:, :1, :-1], noise.loss[:, 1:, :-1]])
    wm.obs_model.sample_z = lambda dist, *_, **__: drawn(dist, next(draws))
    with torch.no_grad():
        dist = wm.obs_model.encode(stacks)
        found["posterior"] = dist.base_dist.logits
        latents = drawn(dist, torch.cat([noise.loss[..., :-1], noise.loss[:, -1:, :-1]], 1))
        found["images"] = wm.obs_model.decode(latents[:, 1:-1])[..., ::9, ::9]
        ends = terminated | truncated
        wm.eval()
        before = latents[:, :-1], action, reward[:, :-1], None, ends[:, :-1]
        preds, hidden, _ = wm.dyn_model.predict(*before, tgt_length=before[0].shape[1])
        found["hidden"], found["prior"] = hidden, preds["z_dist"].base_dist.logits
        found["reward"], found["discount"] = preds["r"], preds["g"]
        wm.obs_model.sample_z = lambda dist, *_, **__: drawn(dist, next(draws))
    z, _, metrics = wm.optimize(stacks, action, reward, terminated, truncated)
    for name in ("dec_loss", "enc_prior_ce", "z_pred_ce", "reward_loss", "discount_loss"):
        found[f"loss.{name}"] = metrics[name]
    found["loss.z_norm_ent"] = metrics["z_norm_ent"]
    for name, parameter in agent.wm.named_parameters():
        found[f"after.wm.{name}"] = miniature.sample(parameter)
    found |= dreamt(theirs, agent, setting, z, action, reward, terminated, truncated)
    return {name: tensor.detach().float().contiguous() for name, tensor in found.items()}


def dreamt(
    theirs: Theirs,
    agent: Any,
    setting: miniature.Setting,
    z: Tensor,
    action: Tensor,
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
) -> dict[str, Tensor]:
    """Their imagination from the pairs that the noise chooses, and one update of their agent."""
    noise = setting.noise
    order = noise.loss[:, 1:, -1].flatten().argsort()
    count = setting.world.dreams
    chosen, spare = order[:count], order.flip(0)[:count]
    pairs = torch.stack([z[:, :-1], z[:, 1:]], dim=2).flatten(0, 1)
    starts = [part[:, :-1].flatten(0, 1)[chosen][:, None] for part in (action, reward)]
    starts += [part[:, :-1].flatten(0, 1)[chosen][:, None] for part in (terminated, truncated)]
    others = z[:, 1:].flatten(0, 1)[spare]
    step = 0

    def restarted(_: Tensor) -> Tensor:
        over = dreamer.cumulative_g[:, 0] < agent.config["wm_discount_threshold"]
        pick = (noise.dream.steps[:, step, -1] * count).long()
        return others[pick][over]

    dreamer = theirs.agent.Dreamer(
        agent.config,
        agent.wm,
        mode="imagine",
        ac=agent.ac,
        store_data=True,
        start_z_sampler=restarted,
    )
    agent.wm.obs_model.sample_z = lambda dist, **_: drawn(
        dist, noise.dream.steps[:, step, None, :-1]
    ).detach()
    dreamer.imagine_reset(pairs[chosen], *starts)
    for step in range(noise.dream.action.shape[1]):
        with torch.no_grad():
            logits = agent.ac.actor(dreamer.prev_z)
        done = sample_index(logits.softmax(-1), noise.dream.action[:, step, None])
        dreamer.imagine_step(done)
    dream_z, _, _, done, paid, discount, over, weights = dreamer.get_data()
    metrics = agent.ac.optimize(dream_z, None, done, paid, discount, over, weights)
    found = {
        "dream.z": dream_z,
        "dream.action": done,
        "dream.reward": paid,
        "dream.discount": discount,
        "dream.over": over,
        "dream.weight": weights,
        "agent.policy": metrics["actor_loss"],
        "agent.value": metrics["critic_loss"],
        "agent.returns": metrics["returns"],
    }
    for name, parameter in agent.ac.named_parameters():
        found[f"after.ac.{name}"] = miniature.sample(parameter)
    return found


def with_latent_loss(dynamics: Any) -> None:
    """As released, the loss of the predicted latent asks for a key that is never there."""
    losses = dynamics.compute_dynamics_loss
    dynamics.compute_dynamics_loss = lambda preds, *args, **fields: losses(
        preds | {"z": preds["z_dist"]}, *args, **fields
    )


def drawn(dist: Any, uniform: Tensor) -> Tensor:
    probs = dist.base_dist.probs
    return straight_through(sample_index(probs, uniform), probs).flatten(-2)


def compare(theirs: Theirs, setting: miniature.Setting) -> dict[str, float]:
    """Largest difference of each quantity; losses and sizes of weights relative to their own."""
    expected, found = computed(theirs, setting), miniature.computed(setting)
    worst: dict[str, float] = {}
    for name, tensor in found.items():
        scale = max(float(expected[name].abs()), 1e-6) if tensor.ndim == 0 else 1.0
        difference = float((tensor - expected[name]).abs().max()) / scale
        group = ".".join(name.split(".")[:2]) if name.startswith("after") else name
        worst[group] = max(worst.get(group, 0.0), difference)
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--code", type=Path, required=True, help="clone of jrobine/twm")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--size", choices=("miniature", "base"), default="base")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.golden:
        theirs = load(options.code)
        save_file(computed(theirs, miniature.setting()), options.golden)
    elif options.compare:
        size = {"miniature": miniature.setting, "base": miniature.base_setting}[options.size]
        print(json.dumps(compare(load(options.code), size()), indent=1))
    elif options.side:
        print(json.dumps(measure(options)))
    else:
        rounds = [{side: in_own_process(side) for side in SIDES} for _ in range(options.repeats)]
        print(json.dumps(summary(rounds) | {"threads": options.threads}))
    return 0


def in_own_process(side: str) -> dict[str, float]:
    """Each side with its own allocator; taking turns, a busy machine troubles both."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of one update, world model and agent, once it is warm."""
    torch.manual_seed(0)
    update = SIDES[options.side](options.code)
    times = [seconds(update) for _ in range(WARM_UP + TIMED)]
    return {"update": statistics.median(times[WARM_UP:])}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    medians = {side: statistics.median(each[side]["update"] for each in rounds) for side in SIDES}
    ratios = [each["theirs"]["update"] / each["ours"]["update"] for each in rounds]
    return medians | {"times_faster": statistics.median(ratios), "of_each_round": ratios}


def ours(_: Path) -> Callable[[], object]:
    from stormrl.config.presets import agent_config
    from stormrl.learning.learner import Learner
    from stormrl.machine.allocator import keep_freed_memory
    from stormrl.machine.device import Backend

    keep_freed_memory()
    torch.set_flush_denormal(True)
    learner = Learner(
        agent_config("twm", "base"), miniature.spaces(ACTIONS), Backend(torch.device("cpu"))
    )
    replay = miniature.replay(4000, ACTIONS)
    return lambda: learner.update_both(replay)


def their_side(code: Path) -> Callable[[], object]:
    theirs = load(code)
    config = their_config(theirs, TwmConfig(), AdvantageConfig())
    agent, batch_of = theirs.agent.Agent(config, ACTIONS), their_batches()
    with_latent_loss(agent.wm.dyn_model)

    def starts_of(part: Tensor) -> Tensor:
        return part[:, :-1].flatten(0, 1)[:, None]

    def update() -> None:
        stacks, action, reward, terminated, truncated = batch_of()
        z, _, _ = agent.wm.optimize(stacks, action, reward, terminated, truncated)
        chosen = torch.randperm(1600)[:400]
        pairs = torch.stack([z[:, :-1], z[:, 1:]], dim=2).flatten(0, 1)[chosen]
        parts = [starts_of(part)[chosen] for part in (action, reward, terminated, truncated)]

        def restarted(count: Tensor) -> Tensor:
            fresh = batch_of()[0].flatten(0, 1)[: int(count)]
            return agent.wm.obs_model.eval().encode_sample(fresh[:, None]).squeeze(1)

        dreamer = theirs.agent.Dreamer(
            config, agent.wm, "imagine", agent.ac, True, start_z_sampler=restarted
        )
        dreamer.imagine_reset(pairs, *parts)
        for _ in range(15):
            dreamer.imagine_step(dreamer.act())
        dreamt_z, _, _, done, paid, discount, over, weights = dreamer.get_data()
        agent.ac.optimize(dreamt_z, None, done, paid, discount, over, weights)

    return update


def their_batches() -> Callable[[], tuple[Tensor, ...]]:
    """As their replay gives them: stacked grey bytes, scaled when they are drawn."""
    grey = torch.randint(256, (4000, 64, 64), dtype=torch.uint8)
    offsets = torch.arange(18)[:, None] + torch.arange(4)

    def batch() -> tuple[Tensor, ...]:
        start = torch.randint(4000 - 22, (100,))
        stacks = grey[start[:, None, None] + offsets].float() / 255
        action, reward = torch.randint(ACTIONS, (100, 17)), torch.randn(100, 17).tanh()
        terminated = torch.rand(100, 17) < 0.01
        return stacks, action, reward, terminated, torch.zeros_like(terminated)

    return batch


SIDES = {"ours": ours, "theirs": their_side}

if __name__ == "__main__":
    sys.exit(main())
