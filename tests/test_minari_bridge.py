"""Minari: real datasets on disk, there and back."""

import sys
import warnings
from pathlib import Path
from typing import Any

import ale_py  # noqa: F401 - its games
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from stormrl.acting.minari import export_minari, import_minari
from stormrl.envs import PROTOCOLS
from stormrl.errors import UserError
from stormrl.experience.episodes import Recording
from stormrl.runs.recording import record

minari: Any = pytest.importorskip("minari")
pytest.importorskip("h5py")

BREAKOUT = "ALE/Breakout-v5"
CATCH = "stormrl/Catch-v0"


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def assert_equal(first: Recording, second: Recording) -> None:
    for field in ("env", "protocol", "policy", "actions"):
        assert getattr(first, field) == getattr(second, field)
    for one, other in zip(first.episodes, second.episodes, strict=True):
        assert (one.seed, one.end) == (other.seed, other.end)
        for name in ("obs", "action", "reward", "continues"):
            assert getattr(one, name).dtype == getattr(other, name).dtype
            assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("env_id", "protocol"), [(BREAKOUT, "official"), (BREAKOUT, "machado"), (CATCH, "atari100k")]
)
def test_the_way_there_and_back_is_exact(env_id: str, protocol: str) -> None:
    recording = record(env_id, PROTOCOLS[protocol], "random", episodes=2, seed=3)
    export_minari(recording, "games/random-v0")
    assert_equal(import_minari("games/random-v0"), recording)


def test_an_exported_dataset_is_minaris_own_format() -> None:
    recording = record(BREAKOUT, PROTOCOLS["official"], "random", episodes=2, seed=3)
    export_minari(recording, "breakout/random-v0")
    dataset = minari.load_dataset("breakout/random-v0")
    assert dataset.env_spec.id == BREAKOUT
    assert dataset.total_episodes == 2
    assert dataset.total_steps == recording.steps
    assert dataset.action_space == spaces.Discrete(4)
    for data, episode in zip(dataset.iterate_episodes(), recording.episodes, strict=True):
        assert np.array_equal(data.observations, episode.obs)
        assert np.array_equal(data.actions, episode.action)
        assert np.array_equal(data.rewards, episode.reward)
        assert data.terminations.tolist() == [False] * (episode.length - 1) + [True]
        assert not data.truncations.any()
        assert data.infos["life_lost"].sum() == 4  # The fifth loss is the end.


def foreign_dataset(dataset_id: str, env_id: str = BREAKOUT, **info: np.ndarray) -> np.ndarray:
    """Three steps of raw frames, as others record them; the first frame."""
    env = gymnasium.make(env_id)
    frames = [env.reset(seed=1)[0], *(env.step(1)[0] for _ in range(3))]
    env.close()
    buffer = minari.data_collector.EpisodeBuffer(
        observations=np.stack(frames),
        actions=np.array([1, 0, 2]),
        rewards=np.array([0.0, 1.5, 0.0]),
        terminations=np.zeros(3, bool),
        truncations=np.array([False, False, True]),
        infos=info or None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            dataset_id,
            [buffer],
            env=env_id,
            observation_space=spaces.Box(0, 255, frames[0].shape, np.uint8),
            action_space=env.action_space,
            jpeg_encoding=False,
        )
    return frames[0]


@pytest.mark.parametrize(
    ("protocol", "continues"), [(None, [1, 0, 1]), ("official", [1, 0, 1]), ("machado", [1, 1, 1])]
)
def test_a_foreign_dataset_is_brought_to_our_images_and_ends(
    protocol: str | None, continues: list[int]
) -> None:
    first = foreign_dataset("breakout/foreign-v1", lives=np.array([5, 5, 4, 4]))
    recording = import_minari("breakout/foreign-v1", protocol=protocol)
    (episode,) = recording.episodes
    assert recording.env == BREAKOUT
    assert recording.protocol == (protocol or "atari100k")
    assert recording.actions == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert episode.obs.shape == (4, 64, 64, 3)
    # Resizing by area keeps the mean brightness.
    assert episode.obs[0].mean() == pytest.approx(first.mean(), rel=0.01)
    assert episode.action.tolist() == [1, 0, 2]
    assert episode.reward.tolist() == [0, 1.5, 0]
    assert episode.continues.tolist() == continues
    assert (episode.end, episode.seed) == ("truncated", None)


def test_a_dataset_of_another_game_is_refused() -> None:
    foreign_dataset("breakout/foreign-v1")
    with pytest.raises(UserError, match=r"Discrete\(4\), ALE/Pong-v5 6"):
        import_minari("breakout/foreign-v1", "ALE/Pong-v5")


def test_a_dataset_without_images_is_refused() -> None:
    buffer = minari.data_collector.EpisodeBuffer(
        observations=np.zeros((2, 4), np.float32),
        actions=np.array([1]),
        rewards=np.zeros(1),
        terminations=np.array([True]),
        truncations=np.array([False]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers("cart/pole-v0", [buffer], env="CartPole-v1")
    with pytest.raises(UserError, match="RGB images are needed"):
        import_minari("cart/pole-v0", CATCH)


def test_missing_taken_and_impossible_names_are_mistakes() -> None:
    recording = record(CATCH, PROTOCOLS["atari100k"], "random", 1)
    with pytest.raises(UserError, match=r"dataset: 'no/thing-v0' cannot be read"):
        import_minari("no/thing-v0")
    export_minari(recording, "catch/random-v0")
    with pytest.raises(UserError, match=r"dataset: 'catch/random-v0' cannot be written"):
        export_minari(recording, "catch/random-v0")
    with pytest.raises(UserError, match=r"dataset: 'a b' cannot be written"):
        export_minari(recording, "a b")


@pytest.mark.parametrize("package", ["minari", "h5py"])
def test_a_missing_package_tells_how_to_get_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'stormrl\[demonstrations\]'"):
        import_minari("a/b-v0")
