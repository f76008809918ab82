"""What every test shares: shape checks, threads, seeds and the devices that are there."""

import os
import random

if "PYTEST_XDIST_WORKER" in os.environ:
    # One worker per core already; also binds the commands that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jaxtyping
import numpy as np
import pytest
import torch

pytest_plugins = ["browser"]

TENSOR_MODULES = (
    "actor_critic",
    "functional",
    "imagination",
    "latent",
    "learner",
    "nn",
    "replay",
    "sequence",
    "types",
    "world_model",
)


class _SkippedWhileTracing(type(jaxtyping.config)):
    """torch.compile cannot trace the checks; the same code's eager calls still make them."""

    @property
    def jaxtyping_disable(self) -> bool:
        return torch.compiler.is_compiling()

    @jaxtyping_disable.setter
    def jaxtyping_disable(self, value: bool) -> None:
        raise AttributeError("the checks are switched off with STORMRL_TYPECHECK=0")


if os.environ.get("STORMRL_TYPECHECK", "1") != "0":
    # Annotated shapes and types become checks. They must be installed before the first import of
    # the package, and cover the modules that compute with tensors.
    jaxtyping.config.__class__ = _SkippedWhileTracing
    jaxtyping.install_import_hook(
        [f"stormrl.{name}" for name in TENSOR_MODULES], "beartype.beartype"
    )

hypothesis.settings.register_profile(
    "stormrl", derandomize=True, database=None, deadline=None, max_examples=50
)
hypothesis.settings.load_profile("stormrl")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same state of the process: random generators, denormals."""
    # Training flushes denormals for good; hypothesis refuses to draw floats under that.
    torch.set_flush_denormal(False)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries may still draw from it
    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # as a trainer of another test may have left it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
