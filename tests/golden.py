"""The bits of STORM: what a short training leaves behind, tensor by tensor.

`python tests/golden.py` writes what this machine computes into tests/golden/bits.json, beside what
other processors have written. A change that is meant to change no bit leaves that file alone.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from miniature import shrunk
from stormrl.config import presets
from stormrl.config.parts import RunConfig
from stormrl.learning.state import learner_tensors
from stormrl.runs import whole
from stormrl.runs.trainer import Trainer

BITS = Path(__file__).parent / "golden" / "bits.json"
PRESETS = ("paper", "official")
STEPS = 60


def machine() -> str:
    """What decides about bits: the processor and its instructions, PyTorch, and its kernels."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = ("vendor_id", "cpu family", "model\t", "stepping")
    known = [line.split(":")[1].strip() for f in fields for line in lines if line.startswith(f)]
    cores = sum(line.startswith("processor") for line in lines)
    processor = "-".join(known[:: max(cores, 1)]) or platform.processor()
    return f"{processor} {torch.backends.cpu.get_cpu_capability()} torch {torch.__version__}"


def trained(preset: str, folder: Path) -> dict[str, Tensor]:
    """Every tensor of a learner, its replay and its random stream after a miniature training.

    Eager, float32, one thread: sixty steps of Catch, of which the last 43 are followed by an update
    of both parts.
    """
    kept: dict[str, Tensor] = {}

    def keep(trainer: Trainer) -> None:
        trainer.saved = lambda: kept.update(_tensors(trainer))

    agent = shrunk(presets.agent_config(preset))
    # Frozen here: the arithmetic of a longer window is another one.
    agent = replace(agent, world_model=replace(agent.world_model, batch_length=8))
    config = RunConfig(
        env="stormrl/Catch-v0",
        steps=STEPS,
        seed=7,
        preset=preset,
        device="cpu",
        precision="fp32",
        compile="off",
        evaluation_episodes=0,
        dream_every=0,
        agent=agent,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole.train(config, folder / preset, started=keep)
    finally:
        torch.set_num_threads(threads)
    return kept


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    groups = learner_tensors(trainer.learner)
    tensors = {
        f"{group}.{name}": t for group, members in groups.items() for name, t in members.items()
    }
    replay = trainer.replay
    for name in ("obs", "action", "reward", "continues", "is_first"):
        tensors[f"replay.{name}"] = getattr(replay, name)[: len(replay)]
    tensors["random"] = torch.get_rng_state()
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def bits(tensor: Tensor) -> str:
    """A checksum of the numbers, whatever their layout in memory."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def size(tensor: Tensor) -> float:
    """Root of the mean square, by which tensors are compared where bits may differ."""
    return float(tensor.double().square().mean().sqrt())


def is_weight(name: str, tensor: Tensor) -> bool:
    """Matrices and kernels: where one draw falls otherwise, they still come out about as large."""
    return name.startswith(("world_model.", "actor_critic.")) and tensor.ndim > 1


def write() -> None:
    """Write this machine's bits, and the sizes that hold anywhere."""
    record = json.loads(BITS.read_text()) if BITS.exists() else {"machines": {}}
    with tempfile.TemporaryDirectory() as folder:
        found = {preset: trained(preset, Path(folder)) for preset in PRESETS}
    record["machines"][machine()] = {
        preset: {name: bits(t) for name, t in tensors.items()} for preset, tensors in found.items()
    }
    record["sizes"] = {
        preset: {name: size(t) for name, t in tensors.items() if is_weight(name, t)}
        for preset, tensors in found.items()
    }
    BITS.parent.mkdir(exist_ok=True)
    BITS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    write()
