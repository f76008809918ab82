"""Benchmarks side by side, sweeps, their figure and their tables."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib
import psutil
import pytest
import torch
from rich.console import Console

import hand_count
from stormrl.bench import apart
from stormrl.bench.growth import DIMENSIONS, exponent, growth
from stormrl.bench.growth_figure import growth_figure
from stormrl.bench.memory import peak_memory
from stormrl.bench.timing import spread
from stormrl.cli import main
from stormrl.commands.bench import BenchOptions, combinations
from stormrl.commands.bench_tables import show
from stormrl.config.parts import AgentConfig, RunConfig, storm
from stormrl.config.presets import agent_config
from stormrl.errors import UserError

CATCH = RunConfig(env="stormrl/Catch-v0", size="toy", device="cpu")
TOY = agent_config("paper", "toy")
MIB = 2**20


def record(seconds: float, flops: int, **fields: Any) -> dict[str, Any]:
    """As `bench` gives it, with the same time for every stage."""
    stage = {
        "median_s": seconds,
        "p10_s": 0.9 * seconds,
        "p90_s": 1.2 * seconds,
        "flops": flops,
        "floor_fraction": flops / 1e9 / seconds,
    }
    names = ("world_model", "encode", "rollout", "actor_critic", "act", "iteration")
    nothing = {"flops": 0, "floor_fraction": None}
    return {
        "size": "toy",
        "env": "stormrl/Catch-v0",
        "device": "cpu",
        "device_name": "a processor",
        "dtype": "fp32",
        "compile": False,
        "cuda_graph": False,
        "threads": 1,
        "stages": {**dict.fromkeys(names, stage), "env": stage | nothing},
        "updates_per_s": 1 / seconds,
        "first_call_s": 3.0,
        "peak": {"matmul_flops_per_s": 1e9, "copy_bytes_per_s": 2e9},
        "parameters": {"world_model": 1_000_000, "actor_critic": 500_000},
        "operators": 1234,
        "peak_memory_bytes": 2**29,
        **fields,
    }


def die_or_answer(config: RunConfig, repeats: int, threads: int | None) -> dict[str, Any]:
    match config.seed:
        case 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case 2:
            raise UserError("env", "is closed")
    return {"seed": config.seed, "repeats": repeats, "threads": threads, "process": os.getpid()}


def test_one_that_cannot_be_measured_costs_no_other_its_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apart, "bench", die_or_answer)
    configs = [replace(CATCH, seed=seed) for seed in (1, 2, 3)]
    announced: list[int] = []
    records = apart.bench_apart(configs, 5, 2, lambda config, index: announced.append(index))
    killed, raised, measured = records
    assert "killed" in killed["error"]
    assert raised["error"] == "UserError: env: is closed"
    assert raised["size"] == "toy"
    assert (measured["seed"], measured["repeats"], measured["threads"]) == (3, 5, 2)
    assert measured["process"] != os.getpid()
    assert announced == [0, 1, 2]


def test_the_peak_of_memory_is_the_process_own_and_not_its_parents() -> None:
    ballast = b"x" * (900 * MIB)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        child = pool.submit(peak_memory, torch.device("cpu")).result()
    assert 20 * MIB < child < len(ballast)
    assert peak_memory(torch.device("cpu")) > len(ballast)


def test_the_spread_of_few_times_does_not_go_beyond_them() -> None:
    assert spread([3.0, 1.0]) == (2.0, 1.0, 3.0)
    assert spread([float(i) for i in range(101)])[0] == 50
    assert spread([float(i) for i in range(101)])[1:] == pytest.approx((10, 90), abs=1)


def test_combinations_are_every_size_on_every_device_in_every_mode() -> None:
    options = BenchOptions(
        env=CATCH.env, size=("toy", "base"), device=("cpu",), mode=("eager", "compile")
    )
    found = [(c.size, c.device, c.compile, c.agent) for c in combinations(options)]
    base = agent_config("paper", "base")
    assert found == [
        ("toy", "cpu", "off", TOY),
        ("toy", "cpu", "on", TOY),
        ("base", "cpu", "off", base),
        ("base", "cpu", "on", base),
    ]
    (config,) = combinations(BenchOptions(env=CATCH.env, compile="on"))
    assert (config.size, config.device, config.compile) == ("base", "auto", "on")


MISTAKES = (
    ("--size", "size", "has no value"),
    ("--size toy vast", "size", "'vast' is unknown"),
    ("--mode eager fast", "mode", "'fast' is unknown"),
    ("--mode eager --compile on", "compile", "--mode"),
    ("--threads 0", "threads", "is 0; give 1 or more"),
    ("--plot a.png", "plot", "--grow"),
    ("--grow width --plot a.gif", "plot", ".png"),
    ("--grow depth", "grow", "'depth' is unknown"),
    ("--grow width --size toy base", "grow", "one combination"),
    ("--grow layers --factors 2", "factors", "two or more"),
    ("--grow layers --factors 0.3 1", "factors", "0.6"),
    ("--grow width --size toy --factors 0.015625 1", "factors", "0.125"),
)


@pytest.mark.parametrize(("flags", "field", "message"), MISTAKES)
def test_a_mistake_is_told_in_a_line(
    flags: str, field: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--env", "stormrl/Catch-v0", "--device", "cpu", *flags.split()]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"stormrl: {field}: ")
    assert message in told
    assert told.count("\n") == 1


def test_an_exponent_is_that_of_a_power_law() -> None:
    values = [3, 6, 12, 48]
    assert exponent(values, [0.7 * v**1.75 for v in values]) == pytest.approx(1.75)


def flops_of(config: AgentConfig) -> hand_count.Count:
    return hand_count.iteration(config, actions=3)


def test_a_dimension_grows_and_all_else_stays() -> None:
    values = {
        name: [d.of(d.scale(TOY, f)) for f in (0.5, 1, 2, 4)] for name, d in DIMENSIONS.items()
    }
    own = {
        "width": storm(TOY).sequence.width,
        "batch": TOY.imagination.batch_size,
        "horizon": TOY.imagination.horizon,
        "layers": storm(TOY).sequence.layers,
        "context": TOY.imagination.context,
    }
    assert values == {name: [n / 2, n, 2 * n, 4 * n] for name, n in own.items()}
    for dimension in DIMENSIONS.values():
        assert dimension.scale(TOY, 1.0) == TOY
    before = flops_of(TOY)
    doubled = {name: flops_of(d.scale(TOY, 2.0)) for name, d in DIMENSIONS.items()}
    assert doubled["batch"] == tuple(2 * part for part in before)
    assert doubled["horizon"][:2] == before[:2]
    assert doubled["context"].world_model == before.world_model
    assert doubled["context"].actor_critic == before.actor_critic
    assert doubled["layers"].actor_critic == before.actor_critic
    assert all(
        2 * part < wide < 4 * part for part, wide in zip(before, doubled["width"], strict=True)
    )


def test_a_sweep_fits_time_and_arithmetic_over_what_could_be_measured() -> None:
    configs = [
        replace(CATCH, agent=DIMENSIONS["layers"].scale(TOY, factor)) for factor in (1, 2, 4, 8)
    ]
    records = [record(0.1 * 2**i, 10**6 * 4**i) for i in range(3)]
    failed = {"size": "toy", "device": "cpu", "compile": "off", "error": "no memory"}
    found = growth("layers", configs, [*records, failed])
    assert found["values"] == [2, 4, 8]
    assert found["exponents"]["iteration"] == pytest.approx(1.0)
    assert found["flops_exponents"]["iteration"] == pytest.approx(2.0)
    assert "env" not in found["flops_exponents"]
    assert found["failed"] == [failed]
    with pytest.raises(UserError, match="grow: fewer than two"):
        growth("layers", configs[:2], [records[0], failed])


def sweep() -> dict[str, Any]:
    scale = DIMENSIONS["horizon"].scale
    configs = [replace(CATCH, agent=scale(TOY, factor)) for factor in (0.5, 1, 2)]
    return growth("horizon", configs, [record(0.1 * 2**i, 10**6 * 4**i) for i in range(3)])


def test_the_figure_of_a_sweep_tells_every_stage_and_its_power(tmp_path: Path) -> None:
    path = tmp_path / "new" / "growth.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        growth_figure(path, sweep())
    drawn = path.read_text()
    for text in (
        "iteration: exponent 1.00",
        "world model: exponent 1.00",
        "imagined steps",
        "toy, cpu",
    ):
        assert text in drawn
    growth_figure(tmp_path / "growth.png", sweep())
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def printed(found: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=100)
    show(console, found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_show_one_combination_several_or_a_sweep() -> None:
    one = record(0.1, 10**7)
    assert "100.00" in printed(one)
    assert "10.00 a second" in printed(one)
    failed = {"size": "base", "device": "cpu", "compile": "on", "error": "no memory"}
    both = printed({"benches": [one, record(0.05, 10**7, compile=True), failed]})
    assert "cpu, fp32, eager" in both
    assert "cpu, fp32, compiled" in both
    assert "50.00 (20%)" in both
    assert "x 2.00" in both
    assert "size base, cpu, compile on: failed, no memory" in both
    grown = printed(sweep())
    assert "iteration" in grown
    assert "exponent" in grown
    assert "400.00" in grown


def test_one_combination_is_measured_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "bench.json"
    found = benched(f"--compile off --out {out}", capsys)
    assert json.loads(out.read_text()) == found
    check_record(found)
    assert set(found["peak"]) == {"matmul_flops_per_s", "copy_bytes_per_s"}
    assert {"python", "torch"} <= set(found["versions"])
    parts = ("encoder", "decoder", "latent", "sequence", "reward_head", "continues_head")
    total = sum(found["parameters"][part] for part in parts)
    assert found["parameters"]["world_model"] == total


@pytest.mark.slow
def test_two_combinations_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    bf16, fp32 = benched("--mode eager --precision bf16 fp32", capsys)["benches"]
    assert (bf16["dtype"], fp32["dtype"]) == ("bf16", "fp32")
    check_record(bf16)
    check_record(fp32)
    assert bf16["operators"] > fp32["operators"]  # casts


@pytest.mark.slow
def test_a_compiled_update_counts_as_the_eager_one(capsys: pytest.CaptureFixture[str]) -> None:
    eager, compiled = benched("--mode eager compile", capsys)["benches"]
    assert (eager["compile"], compiled["compile"]) == (False, True)
    check_record(compiled)
    assert compiled["operators"] == eager["operators"]
    assert compiled["first_call_s"] > eager["first_call_s"]  # compiling is in it


def benched(flags: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    command = "bench --env stormrl/Catch-v0 --size toy --device cpu --repeats 2 --threads 1 --json"
    assert main([*command.split(), *flags.split()]) == 0
    return json.loads(capsys.readouterr().out)


def check_record(bench: dict[str, Any]) -> None:
    assert (bench["device"], bench["threads"], bench["size"]) == ("cpu", 1, "toy")
    names = ["world_model", "encode", "rollout", "actor_critic", "act", "env", "iteration"]
    stages = bench["stages"]
    assert list(stages) == names
    for stage in stages.values():
        assert 0 < stage["p10_s"] <= stage["median_s"] <= stage["p90_s"]
    assert stages["env"]["floor_fraction"] is None
    expected = flops_of(TOY)
    for name in expected._fields:
        assert stages[name]["flops"] == 2 * getattr(expected, name)
    assert stages["iteration"]["flops"] == 2 * expected.update + stages["act"]["flops"]
    floor_s = stages["iteration"]["flops"] / bench["peak"]["matmul_flops_per_s"]
    fraction = floor_s / stages["iteration"]["median_s"]
    assert stages["iteration"]["floor_fraction"] == pytest.approx(fraction, rel=1e-4)
    updates = 1 / stages["iteration"]["median_s"]
    assert bench["updates_per_s"] == pytest.approx(updates, rel=1e-4)
    assert bench["peak_memory_bytes"] > 100 * MIB
    assert bench["first_call_s"] > 0
    assert bench["operators"] > sum(bench["operators_by_part"].values())


@pytest.mark.slow
def test_a_killed_bench_leaves_no_process_behind():
    """SIGKILL while another process measures, which no signal tells of it."""
    command = [sys.executable, "-m", "stormrl", "bench", "--env", CATCH.env, "--size", "toy"]
    with subprocess.Popen([*command, "--repeats", "1000000"], stderr=subprocess.DEVNULL) as bench:
        deadline = time.monotonic() + 300
        while not any(busy(child) for child in psutil.Process(bench.pid).children()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        left = psutil.Process(bench.pid).children(recursive=True)
        bench.kill()
    _, alive = psutil.wait_procs(left, timeout=30)
    for process in alive:
        process.kill()
    assert alive == []


def busy(process: psutil.Process) -> bool:
    """Whether it has done more than be started and import PyTorch."""
    return process.cpu_times().user > 12
