"""What `stormrl bench` prints: one combination in detail, or several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from stormrl.commands.output import number, print_facts, say, table

Record = Mapping[str, Any]

CELLS = "median ms (of the limit)"


def show(console: Console, record: Record) -> None:
    """Print what was measured."""
    if "grow" in record:
        show_growth(console, record)
    elif "benches" in record:
        show_side_by_side(console, record["benches"])
    else:
        show_one(console, record)


def show_one(console: Console, record: Record) -> None:
    """Time, spread and arithmetic of every stage."""
    rows = [
        (
            name,
            *(_ms(stage[key]) for key in ("median_s", "p10_s", "p90_s")),
            f"{stage['flops'] / 1e9:.2f}",
            _share(stage),
        )
        for name, stage in record["stages"].items()
    ]
    numbers = ("median ms", "p10 ms", "p90 ms", "GFLOP", "of the limit")
    title = f"{record['env']}, size {record['size']}, {_way(record)}"
    console.print(table(title, ("stage", *map(number, numbers)), rows))
    print_facts(console, {"device": record["device_name"], **_facts(record)})


def show_side_by_side(console: Console, benches: Sequence[Record]) -> None:
    """The stages' medians with their shares of the limit, a column for each combination."""
    good = [bench for bench in benches if "error" not in bench]
    columns = [number(f"{bench['size']}\n{_way(bench)}") for bench in good]
    rows = [(name, *(_cell(bench["stages"][name]) for bench in good)) for name in good[0]["stages"]]
    slowest = good[0]["stages"]["iteration"]["median_s"]
    rows.append(
        ("speed", *(f"x {slowest / b['stages']['iteration']['median_s']:.2f}" for b in good))
    )
    facts = [_facts(bench) for bench in good]
    rows += [(name, *(fact[name] for fact in facts)) for name in facts[0]]
    console.print(table(good[0]["env"], (CELLS, *columns), rows))
    _show_failures(console, benches)


def show_growth(console: Console, growth: Record) -> None:
    """The same over the values of one dimension, with the exponents that were fitted."""
    good = growth["benches"]
    columns = [*(number(f"{value:,}") for value in growth["values"]), number("exponent")]
    rows = [
        (
            name,
            *(_cell(bench["stages"][name]) for bench in good),
            f"{growth['exponents'][name]:.2f}",
        )
        for name in good[0]["stages"]
    ]
    memory = [f"{bench['peak_memory_bytes'] / 2**30:.2f} GiB" for bench in good]
    rows.append(("memory", *memory, ""))
    title = f"{good[0]['env']}, size {good[0]['size']}, {_way(good[0])}"
    header = f"{growth['grow']}\n{CELLS}"
    console.print(table(title, (header, *columns), rows))
    _show_failures(console, growth["failed"])


def _show_failures(console: Console, benches: Sequence[Record]) -> None:
    for bench in benches:
        if "error" in bench:
            which = f"size {bench['size']}, {bench['device']}, compile {bench['compile']}"
            say(console, f"{which}: failed, {bench['error']}")


def _facts(record: Record) -> dict[str, str]:
    peak, parameters = record["peak"], record["parameters"]
    total = parameters["world_model"] + parameters["actor_critic"]
    return {
        "updates": f"{record['updates_per_s']:,.2f} a second",
        "first call": f"{record['first_call_s']:.1f} s",
        "operators": f"{record['operators']:,} in an update",
        "memory": f"{record['peak_memory_bytes'] / 2**30:.2f} GiB at most",
        "parameters": f"{total / 1e6:.2f} M",
        "products": f"{peak['matmul_flops_per_s'] / 1e9:,.0f} GFLOP/s at most",
        "copies": f"{peak['copy_bytes_per_s'] / 1e9:,.1f} GB/s at most",
    }


def _way(record: Record) -> str:
    mode = "compiled" if record["compile"] else "eager"
    graph = ", CUDA graph" if record["cuda_graph"] else ""
    return f"{record['device']}, {record['dtype']}, {mode}{graph}"


def _cell(stage: Record) -> str:
    return f"{_ms(stage['median_s'])} ({_share(stage)})"


def _share(stage: Record) -> str:
    fraction = stage["floor_fraction"]
    return "--" if fraction is None else f"{fraction:.0%}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.2f}"
