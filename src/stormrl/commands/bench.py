"""`stormrl bench`: how fast this machine trains, stage by stage."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from stormrl.commands.flags import parse
from stormrl.commands.output import messages, print_json, results, writing
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

Compile = Literal["auto", "off", "on"]
Mode = Literal["eager", "compile", "graph", "compile-graph"]

MODES: dict[Mode, dict[str, Any]] = {
    "eager": {"compile": "off", "cuda_graph": "off"},
    "compile": {"compile": "on", "cuda_graph": "off"},
    "graph": {"compile": "off", "cuda_graph": "on"},
    "compile-graph": {"compile": "on", "cuda_graph": "on"},
}
"""What each mode sets in the run's configuration."""


@dataclass(frozen=True)
class BenchOptions:
    """Time every stage of one iteration of training, and compare it with the device's limit.

    Several sizes, devices, precisions or modes are measured one after the other, each in a process
    of its own, and shown side by side.
    """

    env: str = "ALE/Pong-v5"
    """Gymnasium id of the game."""
    protocol: str = "atari100k"
    """Named rules of play: official, atari100k or machado."""
    preset: str = "paper"
    """Algorithm."""
    size: tuple[str, ...] = ("base",)
    """Sizes of the networks."""
    device: tuple[str, ...] = ("auto",)
    """Of auto, cpu, cuda and cuda:N."""
    precision: tuple[Literal["auto", "bf16", "fp32"], ...] = ("auto",)
    """Arithmetic of the networks."""
    compile: Compile = "auto"
    """Compile the update."""
    mode: tuple[Mode, ...] = ()
    """Ways to run the update, instead of --compile."""
    grow: Literal["width", "batch", "horizon", "layers", "context"] | None = None
    """Multiply this dimension by each of --factors, and fit how the cost grows with it."""
    factors: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """What --grow multiplies the size's own value by."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw what --grow has found; the suffix chooses the format: .png, .svg or .pdf."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Threads of the CPU; by default as many as PyTorch chooses."""
    repeats: int = 20
    """Measurements of each stage."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the JSON object to this file as well."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Measure; returns the exit code."""
    options = parse(BenchOptions, args, "stormrl bench")
    _check(options)
    configs = combinations(options)
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.commands.bench_tables import show
    from stormrl.machine.device import choose_backend
    from stormrl.runs.whole import playable

    for config in configs:
        playable(config).close()
        choose_backend(config)  # What is not possible here is told before anything is measured.
    console = messages()
    console.quiet = options.json
    record = _measured(options, configs, console)
    _write(options, record)
    if options.json:
        print_json(record)
    else:
        show(results(), record)
    return 0


def combinations(options: BenchOptions) -> list[RunConfig]:
    """A configuration for each size on each device in each mode, or for each factor of a sweep."""
    modes = [MODES[mode] for mode in options.mode] or [{"compile": options.compile}]
    products = itertools.product(options.size, options.device, options.precision, modes)
    configs = [
        RunConfig(
            env=options.env,
            protocol=options.protocol,
            preset=options.preset,
            size=size,
            device=device,
            precision=precision,
            agent=agent_config(options.preset, size),
            **mode,
        )
        for size, device, precision, mode in products
    ]
    return configs if options.grow is None else _sweep(options, configs)


def _sweep(options: BenchOptions, configs: list[RunConfig]) -> list[RunConfig]:
    from stormrl.bench.growth import DIMENSIONS

    if len(configs) > 1:
        message = "sweeps one combination; give one size, device, precision and mode"
        raise UserError("grow", message)
    config, scale = configs[0], DIMENSIONS[str(options.grow)].scale
    return [replace(config, agent=scale(config.agent, factor)) for factor in options.factors]


def _check(options: BenchOptions) -> None:
    if options.repeats < 2:
        raise UserError("repeats", f"is {options.repeats}; give 2 or more")
    if options.threads is not None and options.threads < 1:
        raise UserError("threads", f"is {options.threads}; give 1 or more")
    for name in ("size", "device", "precision"):
        if not getattr(options, name):
            raise UserError(name, "has no value; give one or more")
    if options.mode and options.compile != "auto":
        raise UserError("compile", "says the same as --mode; give one of them")
    if options.grow is None and options.plot is not None:
        raise UserError("plot", "draws what --grow has found; give --grow too")
    if options.plot is not None and options.plot.suffix not in (".png", ".svg", ".pdf"):
        raise UserError("plot", f"{options.plot} ends in no known format; give .png, .svg or .pdf")
    if options.grow is not None and len(set(options.factors)) < 2:
        raise UserError("factors", "give two or more that differ")


def _measured(options: BenchOptions, configs: list[RunConfig], console: Console) -> dict[str, Any]:
    from stormrl.bench.apart import bench_apart

    with console.status("measuring") as status:

        def announce(config: RunConfig, index: int) -> None:
            which = f"{index + 1} of {len(configs)}: " if len(configs) > 1 else ""
            mode = {"off": "eager", "on": "compiled"}.get(config.compile, "")
            what = ", ".join(filter(None, (config.env, f"size {config.size}", config.device, mode)))
            status.update(f"measuring {which}{what}")

        records = bench_apart(configs, options.repeats, options.threads, announce)
    return _record(options, configs, records)


def _record(
    options: BenchOptions, configs: list[RunConfig], records: list[dict[str, Any]]
) -> dict[str, Any]:
    """The object that is written: of one combination flat, of several a list under `benches`."""
    errors = [record["error"] for record in records if "error" in record]
    if len(errors) == len(records):
        raise UserError("bench", f"nothing could be measured: {errors[0]}")
    if options.grow is not None:
        from stormrl.bench.growth import growth

        return growth(options.grow, configs, records)
    return records[0] if len(records) == 1 else {"benches": records}


def _write(options: BenchOptions, record: dict[str, Any]) -> None:
    if options.out is not None:
        from stormrl.disk.jsonlines import plain

        with writing(options.out):
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(plain(record), indent=2, allow_nan=False) + "\n")
    if options.plot is not None:
        from stormrl.bench.growth_figure import growth_figure

        with writing(options.plot):
            growth_figure(options.plot, record)
