"""Ray: one task a run, in a worker process of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from typing import Any, Self

import psutil

from stormrl.errors import UserError
from stormrl.machine.system import usable_cores
from stormrl.suite.heartbeat import Sign
from stormrl.suite.share import Machine, Share
from stormrl.suite.work import Ended, Job, work

CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Whether Ray's machines reach each other, on any system; the name is older than that."""
OBJECT_STORE_BYTES = 100 * 2**20
"""Ray's least is near: only configurations and outcomes pass through it."""


class RayPool:
    """A Ray cluster that trains jobs; the local machine's own if no address is given.

    Raises `UserError` if Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, address: str | None) -> None:
        self._ray = import_ray(address)
        self._names: dict[Any, str] = {}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        local: dict[str, Any] = {
            "num_cpus": usable_cores(),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        try:
            self._ray.init(
                address=address or "local",
                log_to_driver=False,
                configure_logging=False,
                **({} if address else local),
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            message = f"no Ray cluster answers at {address}: {error}"
            raise UserError("ray_address", message) from None

    def __enter__(self) -> Self:
        # Ray prints what its machines report on standard output, which belongs to results.
        self._output = contextlib.redirect_stdout(sys.stderr)
        self._output.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Leave the cluster; a local one ends."""
        self._ray.shutdown()
        self._output.__exit__(*exception)

    def machines(self) -> list[Machine]:
        """What the cluster consists of at this moment."""
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [Machine(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive]

    def submit(self, job: Job, share: Share) -> None:
        """Have a job trained as soon as its share of a machine is free."""
        # A fresh process each: threads, devices and allocators are set up once in a process.
        # Retries are the session's: it knows whether an attempt got any further.
        remote = self._ray.remote(max_calls=1, max_retries=0)(_on_worker)
        options = remote.options(num_cpus=share.cpus, num_gpus=share.gpus, name=job.name)
        self._names[options.remote(job, share.gpus > 0)] = job.name

    def wait(self, timeout_s: float) -> list[tuple[str, Ended]]:
        """Jobs that have ended by now, by name; waits for the first for at most `timeout_s`."""
        pending = list(self._names)
        done, _ = self._ray.wait(pending, num_returns=1, timeout=timeout_s)
        more, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
        return [(self._names.pop(ref), self._ended(ref)) for ref in {*done, *more}]

    @property
    def pending(self) -> bool:
        """Whether any job has not ended."""
        return bool(self._names)

    def stop(self) -> None:
        """Ask every job to save itself and end."""
        for ref in self._names:
            self._ray.cancel(ref)

    def kill(self, name: str, sign: Sign) -> None:
        """End the process that gave the sign, and hear no more of its job.

        On another machine Ray asks the process itself to leave, which one that is stopped does not
        hear; then its run stays locked.
        """
        (ref,) = [ref for ref, known in self._names.items() if known == name]
        self._names.pop(ref)
        self._ray.cancel(ref, force=True)
        if sign.host == socket.gethostname():
            with contextlib.suppress(psutil.Error):
                _kill_worker(psutil.Process(sign.pid))

    def _ended(self, ref: Any) -> Ended:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.TaskCancelledError:
            return Ended(0, False)
        except self._ray.exceptions.RayError as error:
            return Ended(0, False, _first_sentence(error))


def import_ray(address: str | None) -> Any:
    """Ray itself, for a cluster of this machine's own if no address is given.

    Raises `UserError` if it is not installed.
    """
    if address is None:
        # Else Ray listens wherever this machine can be reached; it reads this as it is imported.
        os.environ.setdefault(CLUSTERS, "0")
    try:
        import ray
    except ImportError:
        raise UserError("ray", "is not installed: pip install 'stormrl[suite]'") from None
    return ray


def _on_worker(job: Job, on_gpu: bool) -> Ended:
    if not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return work(job)


def _kill_worker(process: psutil.Process) -> None:
    """Nothing but a worker of Ray's, whatever number was written down."""
    if "".join(process.cmdline()[:1]).startswith("ray::"):
        process.kill()


def _first_sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0].partition('. ')[0]}"
