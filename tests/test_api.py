import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stormrl
from miniature import shrunk
from stormrl.runs import whole
from stormrl.scores.published import human_normalised, reference
from stormrl.scores.summary import mean_and_stderr, score_text


def test_every_public_name_is_there() -> None:
    assert dir(stormrl) == sorted(stormrl.__all__)
    for name in stormrl.__all__:
        assert getattr(stormrl, name) is not None
    assert stormrl.WorldModel.__module__ == "stormrl.worlds.latent"
    with pytest.raises(AttributeError, match="module 'stormrl' has no attribute 'Storm'"):
        _ = stormrl.Storm  # pyright: ignore[reportAttributeAccessIssue]


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(stormrl.__file__).parent / "py.typed").exists()


def test_importing_is_light() -> None:
    code = (
        "import sys, stormrl; heavy = {'torch', 'gymnasium', 'ray', 'tyro', 'rich'};"
        "first = heavy & set(sys.modules);"
        "[getattr(stormrl, name) for name in stormrl.__all__];"
        "print(sorted(first), 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[] False\n", "")


def small_run(**changes: object) -> stormrl.RunConfig:
    fields = {"env": "stormrl/Catch-v0", "steps": 70, "agent": shrunk()} | changes
    return stormrl.RunConfig(**fields, evaluation_episodes=0, dream_every=0, compile="off")  # pyright: ignore[reportArgumentType]


def test_a_program_trains_and_evaluates(tmp_path: Path) -> None:
    config = small_run()
    assert config.agent.replay.warmup < config.steps, "it must come to updates"
    outcome = stormrl.train(config, tmp_path / "catch")
    assert outcome.finished

    agent = stormrl.Agent.load(tmp_path / "catch")
    trained = stormrl.agent_scores(agent, episodes=3)
    protocol = stormrl.PROTOCOLS[config.protocol]
    random = stormrl.random_scores(config.env, protocol, episodes=3)
    assert [len(trained), len(random)] == [3, 3]
    assert all(-5 <= score.total <= 5 for score in (*trained, *random))
    assert trained == stormrl.agent_scores(agent, episodes=3), "an evaluation can be repeated"


def test_a_program_goes_on_with_a_run(tmp_path: Path) -> None:
    stormrl.train(small_run(steps=17), tmp_path / "catch")
    assert stormrl.resume(tmp_path / "catch", steps=20).step == 20
    assert stormrl.resume(tmp_path / "catch") == (20, True, ())
    assert whole.steps_done(tmp_path / "catch") == 20
    with pytest.raises(stormrl.UserError, match=r"steps: is 19, but .* is at step 20"):
        stormrl.resume(tmp_path / "catch", steps=19)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"env": "stormrl/Cach-v0"}, "env"),
        ({"protocol": "atari"}, "protocol"),
        ({"device": "cuda:63"}, "device"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(
    changes: dict[str, object], field: str, tmp_path: Path
) -> None:
    with pytest.raises(stormrl.UserError) as error:
        stormrl.train(small_run(**changes), tmp_path / "catch")
    assert error.value.field == field
    assert not (tmp_path / "catch").exists()


def test_the_number_of_episodes_is_the_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(whole, "evaluate", lambda *args: asked.append(args[2:4]) or [])
    agent = stormrl.Agent.__new__(stormrl.Agent)
    agent.config = small_run(protocol="official")
    agent.actor = agent.device = None  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(agent, "check_game", lambda protocol: None)
    stormrl.agent_scores(agent)
    stormrl.agent_scores(agent, protocol=stormrl.PROTOCOLS["machado"])
    official, machado = (stormrl.PROTOCOLS[name] for name in ("official", "machado"))
    assert asked == [(official, 20), (machado, 100)]


def test_scores_are_measured_between_chance_and_a_human() -> None:
    assert reference("ALE/Boxing-v5") == reference("Boxing") == (0.1, 12.1)
    assert human_normalised("ALE/Boxing-v5", 6.1) == pytest.approx(0.5)
    assert human_normalised("Pong", -20.7) == 0
    assert human_normalised("Pong", 14.6) == 1
    assert human_normalised("ALE/Tetris-v5", 3.0) is None
    assert human_normalised("my_games/Pong-v5", 3.0) is None


def test_a_fresh_path_is_not_there_yet(tmp_path: Path) -> None:
    made = []
    for _ in range(3):
        made.append(whole.fresh(tmp_path / "pong-v1.5"))
        made[-1].mkdir()
    assert [path.name for path in made] == ["pong-v1.5", "pong-v1.5-2", "pong-v1.5-3"]


def test_a_game_has_a_short_name() -> None:
    assert whole.game_name("ALE/MsPacman-v5") == "mspacman"
    assert whole.game_name("my_package:Maze-v0") == "maze"
    assert whole.game_name("my_package:ns/Maze") == "maze"


def test_mean_and_standard_error() -> None:
    returns = [1.0, 4.0, 10.0, -3.0]
    mean, stderr = mean_and_stderr(returns)
    assert mean == np.mean(returns)
    assert stderr == pytest.approx(np.std(returns, ddof=1) / 2)
    assert score_text(mean, stderr) == "3.00 ± 2.74"
    assert mean_and_stderr([2.0])[0] == 2
    assert math.isnan(mean_and_stderr([2.0])[1])
    assert score_text(2.0, math.nan) == "2.00 ± --"
