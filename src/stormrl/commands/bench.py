"""`stormrl bench`: how fast this machine trains, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stormrl.commands.output import messages, number, print_facts, print_json, results, table
from stormrl.config import RunConfig
from stormrl.errors import UserError
from stormrl.flags import parse
from stormrl.presets import agent_config


@dataclass(frozen=True)
class Options:
    """Time every stage of one iteration of training, and compare it with the device's limit."""

    env: str = "ALE/Pong-v5"
    """Gymnasium id of the game."""
    protocol: str = "atari100k"
    """Named rules of play: official, atari100k or machado."""
    preset: str = "paper"
    """Algorithm."""
    size: str = "base"
    """Size of the networks."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the networks."""
    compile: Literal["auto", "off", "on"] = "auto"
    """Compile the update."""
    repeats: int = 20
    """Measurements of each stage."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Measure; returns the exit code."""
    options = parse(Options, args, "stormrl bench")
    if options.repeats < 2:
        raise UserError("repeats", f"is {options.repeats}; give 2 or more")
    config = _config(options)
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.bench import bench
    from stormrl.runs import check

    check(config)
    console = messages()
    console.quiet = options.json
    with console.status(f"measuring {config.env} at size {config.size}"):
        record = bench(config, options.repeats)
    if options.json:
        print_json(record)
    else:
        _show(record)
    return 0


def _config(options: Options) -> RunConfig:
    return RunConfig(
        env=options.env,
        protocol=options.protocol,
        preset=options.preset,
        size=options.size,
        device=options.device,
        precision=options.precision,
        compile=options.compile,
        agent=agent_config(options.preset, options.size),
    )


def _show(record: Mapping[str, Any]) -> None:
    rows = [
        (
            name,
            *(f"{1000 * stage[key]:.2f}" for key in ("median_s", "p10_s", "p90_s")),
            f"{stage['flops'] / 1e9:.2f}",
            "--" if stage["floor_fraction"] is None else f"{stage['floor_fraction']:.0%}",
        )
        for name, stage in record["stages"].items()
    ]
    compiled = "compiled" if record["compile"] else "eager"
    title = ", ".join(
        (record["env"], f"size {record['size']}", record["device"], record["dtype"], compiled)
    )
    numbers = ("median ms", "p10 ms", "p90 ms", "GFLOP", "of the limit")
    console, peak = results(), record["peak"]
    console.print(table(title, ("stage", *map(number, numbers)), rows))
    print_facts(
        console,
        {
            "device": record["device_name"],
            "limit": f"{peak['matmul_flops_per_s'] / 1e9:,.0f} GFLOP/s in matrix products, "
            f"{peak['copy_bytes_per_s'] / 1e9:,.1f} GB/s in copies",
            "first call": f"{record['first_call_s']:.1f} s",
            "operators": f"{record['operators']:,} in an update",
            "memory": f"{record['peak_memory_bytes'] / 2**30:.2f} GiB at most",
        },
    )
