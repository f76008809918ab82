"""What a suite consists of, how far its directories are, and what that takes."""

import dataclasses
import json
from contextlib import suppress

import pytest

from small_runs import go_on, new_run, small_config
from stormrl.config.parts import RunConfig, to_dict
from stormrl.config.presets import agent_config
from stormrl.disk.jsonlines import read_jsonlines
from stormrl.disk.run_directory import RunDirectory
from stormrl.errors import UserError
from stormrl.machine.device import settled
from stormrl.suite.estimate import Figures, figures_for, parse_all, parse_figures
from stormrl.suite.plan import SuitePlan, check_games, env_id, refuse_others, tasks
from stormrl.suite.share import Machine, Share, at_once
from stormrl.suite.standing import Standing, read_config, read_standing
from stormrl.suite.storage import Storage


def planned(**fields):
    return tasks(["stormrl/Catch-v0"], [1, 2], {"paper": small_config(**fields)})


@pytest.mark.parametrize(
    ("game", "env"),
    [
        ("Boxing", "ALE/Boxing-v5"),
        ("stormrl/Catch-v0", "stormrl/Catch-v0"),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
        ("my_package:MyEnv-v0", "my_package:MyEnv-v0"),
        ("CartPole-v1", "CartPole-v1"),
    ],
)
def test_games_go_by_name_or_id(game, env):
    assert env_id(game) == env


def test_a_task_for_each_game_preset_and_seed():
    configs = {name: RunConfig(env="", preset=name) for name in ("paper", "official")}
    made = tasks(["Boxing", "stormrl/Catch-v0"], [1, 2], configs)
    assert [task.name for task in made] == [
        f"{game}-{preset}-base-seed{seed}"
        for seed in (1, 2)
        for game in ("boxing", "catch")
        for preset in ("paper", "official")
    ]
    assert {(t.config.env, t.config.seed, t.config.preset) for t in made} == {
        (env, seed, preset)
        for env in ("ALE/Boxing-v5", "stormrl/Catch-v0")
        for seed in (1, 2)
        for preset in configs
    }


def test_the_benchmark_is_its_26_games():
    made = tasks(["atari100k"], [1], {"paper": RunConfig(env="")})
    assert len(made) == 26
    check_games(made)


def test_two_runs_cannot_share_a_directory():
    with pytest.raises(UserError, match="games: two runs would both be catch-paper-base-seed1"):
        tasks(["stormrl/Catch-v0"], [1, 1], {"paper": small_config()})


def test_an_unknown_game_is_named_before_anything_runs():
    with pytest.raises(UserError, match="Boxng"):
        check_games(tasks(["Boxng"], [1], {"paper": RunConfig(env="")}))


def test_standing_is_read_from_the_directory(tmp_path):
    storage = Storage(str(tmp_path))
    task, other = planned(log_every=5)
    assert read_standing(storage, task.name) == Standing()
    assert read_config(storage, task.name) is None
    RunDirectory.create(tmp_path / task.name, task.config)
    go_on(tmp_path / task.name, stop_at=52)
    half = read_standing(storage, task.name)
    episodes = read_jsonlines(tmp_path / task.name / "episodes.jsonl")
    metrics = read_jsonlines(tmp_path / task.name / "metrics.jsonl")[-5:]
    assert (half.saved, half.step) == (52, 52)
    mean = sum(line["return"] for line in episodes) / len(episodes)
    assert half.mean_return == pytest.approx(mean)
    span = metrics[-1]["wall_s"] - metrics[0]["wall_s"]
    assert half.steps_per_s == pytest.approx((metrics[-1]["step"] - metrics[0]["step"]) / span)
    plan = SuitePlan({task: half, other: Standing()})
    assert (plan.left, plan.finished) == ([task, other], [])
    go_on(tmp_path / task.name)
    plan = SuitePlan({task: read_standing(storage, task.name), other: Standing()})
    assert (plan.left, plan.finished) == ([other], [task])


def test_runs_that_have_begun_come_first():
    fresh, begun = planned()
    assert SuitePlan({fresh: Standing(), begun: Standing(saved=25)}).left == [begun, fresh]


def test_a_line_that_is_being_written_is_not_read(tmp_path):
    storage, (task, _) = Storage(str(tmp_path)), planned()
    (tmp_path / task.name).mkdir()
    history = tmp_path / task.name / "episodes.jsonl"
    history.write_text('{"step": 5, "return": 1.0}\n{"step": 9, "ret')
    assert read_standing(storage, task.name) == Standing(step=5, mean_return=1.0)


@pytest.mark.parametrize(
    ("lines", "step"), [(500, 500), (399, 399), (10, 0)], ids=["grew", "cut", "begun anew"]
)
def test_a_history_that_changes_while_it_is_read(tmp_path, monkeypatch, lines, step):
    """A run may write a line, or go back, between the measuring of its file and the reading."""
    storage = Storage(str(tmp_path))
    (tmp_path / "run").mkdir()
    history = tmp_path / "run" / "metrics.jsonl"
    measure = storage.fs.size

    def write(count):
        records = [{"step": at, "wall_s": at / 2, "more": "x" * 80} for at in range(1, count + 1)]
        history.write_text("".join(f"{json.dumps(record)}\n" for record in records))

    def measure_too_early(path):
        size = measure(path)
        write(lines)
        return size

    write(400)
    monkeypatch.setattr(storage.fs, "size", measure_too_early)
    standing = read_standing(storage, "run")
    assert (standing.step, standing.steps_per_s) == (step, 2.0 if step else None)


def test_a_damaged_line_is_passed_over(tmp_path):
    """The run itself refuses it, and says so; the suite goes on to watch the others."""
    storage = Storage(str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "episodes.jsonl").write_bytes(
        b'{"step": 5, "return": 1.0}\n{"st\xff\n[3]\n{"step": 9, "return": 3.0}\n'
    )
    assert read_standing(storage, "run") == Standing(step=9, mean_return=2.0)


def test_half_a_checkpoint_does_not_count(tmp_path):
    storage = Storage(str(tmp_path))
    new_run(tmp_path / "run")
    go_on(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "000000090").mkdir()
    assert read_standing(storage, "run").saved == 60


def test_another_configuration_in_the_directory_is_refused():
    task = planned()[0]
    refuse_others(task, None)
    refuse_others(task, to_dict(task.config))
    refuse_others(task, to_dict(dataclasses.replace(task.config, steps=40)))
    refuse_others(task, to_dict(settled(task.config)))
    longer = to_dict(dataclasses.replace(task.config, steps=70))
    with pytest.raises(UserError, match=r"steps: .* is set to 70 steps; give --steps 70"):
        refuse_others(task, longer)
    other = to_dict(task.config)
    other["agent"]["imagination"]["horizon"] = 5
    with pytest.raises(UserError, match=r"agent.imagination.horizon: .* began with 5, not 4"):
        refuse_others(task, other)


@pytest.mark.parametrize(
    ("share", "machines", "room"),
    [
        (Share(1), [Machine(2)], 2),
        (Share(2), [Machine(3), Machine(4)], 3),
        (Share(0.5), [Machine(1)], 2),
        (Share(1, 0.25), [Machine(16, 2)], 8),
        (Share(1, 0.3), [Machine(16, 2)], 6),  # three on each GPU: a run never spans two
        (Share(4, 0.25), [Machine(16, 2)], 4),
        (Share(1, 2), [Machine(16, 3), Machine(16, 2)], 2),
        (Share(1, 1), [Machine(16)], 0),
    ],
)
def test_how_many_runs_find_room(share, machines, room):
    assert at_once(share, machines) == room


@pytest.mark.parametrize("share", [Share(0), Share(-1), Share(1, -1), Share(1.5), Share(1, 1.5)])
def test_shares_that_cannot_be_had(share):
    with pytest.raises(UserError, match="per_run"):
        share.check()


def test_a_run_has_as_many_threads_as_cores():
    assert [Share(cpus).threads for cpus in (0.5, 1, 4)] == [1, 1, 4]


def run_of(tmp_path, **files):
    """A run's directory in a suite that holds these texts, by the names of files without suffix."""
    (tmp_path / "run").mkdir()
    for name, text in files.items():
        suffix = "json" if name == "config" else "jsonl"
        (tmp_path / "run" / f"{name}.{suffix}").write_text(text)
    return Storage(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "standing"),
    [
        (
            {"episodes": '{"step": 9}\n{"return": 4.0}\n{"return": "x"}\n'},
            Standing(mean_return=4.0),
        ),
        ({"metrics": '{"step": 9, "wall_s": 1}\n{"wall_s": 2}\n'}, Standing()),
        ({"metrics": '{"wall_s": 1}\n{"step": 9}\n'}, Standing(step=9)),
        ({"metrics": '{"step": "9", "wall_s": []}\n'}, Standing()),
        (
            {"metrics": '{"step": 2, "wall_s": 1}\n{"step": 6, "wall_s": 3}\n'},
            Standing(step=6, steps_per_s=2),
        ),
        ({"attempts": '{"event": "start"}\n{"event": "start", "host": 7}\n'}, Standing(attempts=2)),
        ({"attempts": '{"event": "start", "host": "a"}\n'}, Standing(host="a", attempts=1)),
        ({"scores": '{"protocol": "official"}\n{"checkpoint_step": 1}\n'}, Standing()),
    ],
)
def test_lines_that_lack_something_are_read_as_far_as_they_go(tmp_path, files, standing):
    assert read_standing(run_of(tmp_path, **files), "run") == standing


@pytest.mark.parametrize("text", ["{}", '{"config": null}', '{"config": [1]}', "[]", "{"])
def test_a_directory_whose_config_lacks_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"config\.json: "):
        read_config(run_of(tmp_path, config=text), "run")


@pytest.mark.parametrize(
    "config", [{}, {"steps": None}, {"steps": "many"}, {"agent": {"replay": 3}}]
)
def test_a_config_that_lacks_fields_ends_in_no_traceback(config):
    task, _ = planned()
    with suppress(UserError):
        refuse_others(task, config)


STAGES = {"env": 0.01, "act": 0.02, "world_model": 0.1, "iteration": 0.4}
FIGURES = Figures("here", "ALE/Boxing-v5", "tiny", "cpu", STAGES, 2**30)


@pytest.mark.parametrize(
    ("steps", "done", "world", "agent", "seconds"),
    [
        (2024, 0, 1, 1, 10.24 + 1000 * 0.4),
        (2024, 1524, 1, 1, 500 * 0.4),
        (2024, 1000, 1, 1, 0.24 + 1000 * 0.4),
        (2024, 0, 0.5, 0.25, 10.24 + 1000 * (0.03 + 0.1 / 2 + 0.27 / 4)),
        (1000, 0, 1, 1, 10.0),
    ],
)
def test_time_of_a_run(steps, done, world, agent, seconds):
    algorithm = dataclasses.replace(agent_config(), world_model_ratio=world, agent_ratio=agent)
    config = RunConfig(env="ALE/Boxing-v5", steps=steps, agent=algorithm)
    assert FIGURES.seconds(config, done) == pytest.approx(seconds)


def test_memory_of_a_run_grows_with_its_replay():
    for steps, kept in ((1000, 1000), (200_000, 100_000)):
        config = RunConfig(env="ALE/Boxing-v5", steps=steps)
        assert FIGURES.run_memory_bytes(config) == 2**30 + kept * 64 * 64 * 3


def test_figures_are_chosen_by_size_device_and_game(tmp_path, monkeypatch):
    def bench(name, env, device, median_s, size="small"):
        record = {"env": env, "size": size, "device": device, "peak_memory_bytes": 1}
        (tmp_path / name).write_text(
            json.dumps(record | {"stages": {"iteration": {"median_s": median_s}}})
        )

    monkeypatch.chdir(tmp_path)
    config = RunConfig(env="ALE/Pong-v5", size="small")
    shipped = figures_for(config, Share(1))
    assert shipped is not None
    assert "shipped" in shipped.source
    (tmp_path / "results" / "bench").mkdir(parents=True)
    bench("results/bench/here.json", "ALE/Boxing-v5", "cpu", 1.0)
    bench("results/bench/gpu.json", "ALE/Pong-v5", "cuda:0", 2.0)
    bench("given.json", "ALE/Boxing-v5", "cpu", 3.0)
    bench("pong.json", "ALE/Pong-v5", "cpu", 4.0)
    bench("base.json", "ALE/Pong-v5", "cpu", 5.0, size="base")

    def chosen(share, *files):
        found = figures_for(config, share, [tmp_path / name for name in files])
        return found and (found.stages["iteration"], found.source)

    assert chosen(Share(1)) == (1.0, "results/bench/here.json")
    assert chosen(Share(1, 1)) == (2.0, "results/bench/gpu.json")
    assert chosen(Share(1), "given.json", "pong.json") == (4.0, str(tmp_path / "pong.json"))
    assert chosen(Share(1), "base.json") == (1.0, "results/bench/here.json")
    assert figures_for(dataclasses.replace(config, size="huge"), Share(1)) is None


def test_published_figures_are_called_so():
    figures = figures_for(RunConfig(env="ALE/Pong-v5"), Share(1, 1))
    assert figures is not None
    assert figures.source.startswith("published, not measured")
    assert figures.seconds(RunConfig(env="ALE/Pong-v5")) / 3600 == pytest.approx(4.3, rel=0.02)


@pytest.mark.parametrize("record", [{}, {"stages": 3}, {"stages": {"iteration": {}}}])
def test_other_files_are_no_figures(record):
    with pytest.raises(UserError, match=r"bench: x.json is no result of stormrl bench --json"):
        parse_figures(record, "x.json")


def test_every_combination_of_one_bench_is_read_but_those_that_failed() -> None:
    tiny = {
        "size": "tiny",
        "env": "ALE/Pong-v5",
        "device": "cpu",
        "stages": {"iteration": {"median_s": 2}},
    }
    base = tiny | {"size": "base", "device": "cuda:1"}
    failed = {"size": "small", "error": "out of memory"}
    both = parse_all({"benches": [tiny, failed, base]}, "x.json")
    assert [(f.size, f.device, f.source) for f in both] == [
        ("tiny", "cpu", "x.json"),
        ("base", "cuda", "x.json"),
    ]
    assert parse_all(tiny, "x.json") == both[:1]
    with pytest.raises(UserError, match=r"x\.json is no result of stormrl bench"):
        parse_all({"benches": "none"}, "x.json")
