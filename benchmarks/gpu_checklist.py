"""What to verify first on a GPU, in seven steps, each in a process of its own with a time-out.

The machine needs Python 3.12, PyTorch 2.11 or newer, and of other packages NumPy, jaxtyping and
safetensors alone: experience is random, no emulator is started. Whatever of these it lacks is
carried there as wheels. Where there is a network:

    make wheelhouse WHEELS="--no-deps jaxtyping wadler_lindig safetensors"

On the machine, in the repository's root, with wheelhouse/ beside it; COMMIT is what
`git rev-parse HEAD` says where the files come from, if .git was not carried along:

    python3 -m pip install --no-index --no-deps --target site wheelhouse/*.whl
    PYTHONPATH=site:src python3 benchmarks/gpu_checklist.py --out results/gpu --commit COMMIT

`stormrl bench` and whole runs need more, some 100 MB; the toy games do without OpenCV, half of it:

    make wheelhouse WHEELS="--no-deps gymnasium ale-py Farama-Notifications cloudpickle tyro \\
        docstring-parser typeguard rich av opencv-python-headless jaxtyping wadler_lindig \\
        safetensors"

DIR/checklist.json is written anew after every step: what a step has found before it died or ran out
of time is kept. The steps together stay below half an hour; --steps runs some of them, and keeps
what the file has of the others. With --device cpu, what needs CUDA says so and is skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[1] / "src"))

STEPS = {
    "machine": 90,
    "profile": 150,
    "capture": 180,
    "compiled": 420,
    "variants": 240,
    "resume": 240,
    "sharing": 300,
}
"""Modules of gpu_steps in their order, and the seconds that each may take."""

ERROR_LINES = 15


def main() -> int:
    options = _options()
    if options.run:
        return run(options)
    path = options.out / "checklist.json"
    options.out.mkdir(parents=True, exist_ok=True)
    steps = _read(path)
    for name in options.steps:
        steps[name] = step(name, options)
        _write(path, steps)
        print(f"{name:9} {steps[name]['status']:9} {steps[name]['seconds']:6.1f} s", flush=True)
    print(json.dumps(steps))
    return 0 if all(steps[name]["status"] == "ok" for name in options.steps) else 1


def step(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one step in a process of its own; its record, also if it died."""
    flags = ("device", "size", "updates", "commit")
    command = [sys.executable, __file__, "--run", name]
    command += [f"--{flag}={getattr(options, flag)}" for flag in flags]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # A group of its own, so that whatever the step has started ends with it.
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        status = _status(process, options.timeout or STEPS[name])
        out.seek(0)
        err.seek(0)
        found, errors = _found(out.read()), err.read().splitlines()[-ERROR_LINES:]
    record = {"status": status, "seconds": time.perf_counter() - started, **found}
    return record if status == "ok" else {**record, "error": errors}


def _status(process: subprocess.Popen[str], timeout: float) -> str:
    try:
        return "ok" if process.wait(timeout) == 0 else "failed"
    except subprocess.TimeoutExpired:
        return "timed out"
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _found(output: str) -> dict[str, Any]:
    """Whole lines of a step's output, each with one finding; the circumstances come first."""
    lines = [line for line in output.splitlines(keepends=True) if line.endswith("\n")]
    findings: dict[str, Any] = {}
    for line in lines:
        try:
            findings |= json.loads(line)
        except ValueError:
            continue  # Some library's own words.
    return {"circumstances": findings.pop("circumstances", None), "results": findings}


def run(options: argparse.Namespace) -> int:
    """The inside of a step's process: write a line for everything that it finds."""
    from gpu_steps.setting import Setting, circumstances

    setting = Setting.of(options.device, options.size, options.updates)
    _tell({"circumstances": circumstances(setting, options.commit)})
    for name, value in importlib.import_module(f"gpu_steps.{options.run}").findings(setting):
        _tell({name: value})
    return 0


def _tell(finding: dict[str, Any]) -> None:
    print(json.dumps(finding), flush=True)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["steps"] if path.exists() else {}


def _write(path: Path, steps: dict[str, Any]) -> None:
    ordered = {name: steps[name] for name in STEPS if name in steps}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"steps": ordered}, indent=2) + "\n")
    partial.replace(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), metavar="DIR")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--size", default="base", help="toy, tiny, small or base")
    parser.add_argument("--updates", type=int, default=20, help="updates in one timing")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--timeout", type=float, help="seconds for each step, instead of its own")
    parser.add_argument("--commit", default="", help="what to record where Git cannot be asked")
    parser.add_argument("--run", choices=list(STEPS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
