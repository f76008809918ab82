"""Where a result comes from: versions, commit, machine and command."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from stormrl.machine.system import physical_memory, usable_cores

PACKAGES = ("torch", "gymnasium", "ale_py", "stormrl")


def provenance() -> dict[str, Any]:
    """What must be known to repeat a run on another machine, ready for JSON."""
    return {
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(),
        "command": list(sys.argv),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide about results; None if missing."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def commit() -> str | None:
    """Git commit of this package's own checkout, "-dirty" if edited; None outside of one."""
    source = Path(__file__)
    # An installed package may lie inside somebody else's repository.
    if _git("ls-files", "--error-unmatch", source.name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory in bytes, and the first GPU or None."""
    return {
        "cpu": processor(),
        "cores": usable_cores(),
        "memory": physical_memory(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def circumstances(device: torch.device) -> dict[str, str]:
    """What the bits of a run hang on beside its config, in words."""
    capability = torch.backends.cpu.get_cpu_capability()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "PyTorch": torch.__version__,
        "processor": f"{processor()}, {capability}",
        "device": gpu,
        "threads": str(torch.get_num_threads()),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    """The processor by its maker's name for it, or by what the system calls its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
