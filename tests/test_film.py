from pathlib import Path

import pytest
import torch

from miniature import shrunk
from stormrl.config.parts import RunConfig
from stormrl.envs import PROTOCOLS, make_env
from stormrl.errors import UserError
from stormrl.runs import film, whole
from stormrl.runs.agent import Agent
from stormrl.runs.film import dream_film, dreams, sheet, write_film
from stormrl.types import Batch
from videos import read_video

EPISODE = 39
"""Steps of every episode of Catch."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    path = tmp_path_factory.mktemp("runs") / "catch"
    config = RunConfig(
        env="stormrl/Catch-v0",
        protocol="official",
        steps=17,
        evaluation_episodes=0,
        compile="off",
        agent=shrunk(),
    )
    whole.train(config, path)
    return Agent.load(path, device="cpu")


def play_windows(agent: Agent, episodes: int, length: int, seed: int) -> Batch:
    """A window out of each of `episodes` fresh ones, all as long as the shortest allows."""
    played = [film._play(agent, seed + index) for index in range(episodes)]
    return film._anywhere(played, min([length, *map(len, played)]))


def test_windows_are_what_the_game_shows_under_their_actions(agent: Agent) -> None:
    batch = play_windows(agent, 3, EPISODE, seed=11)
    assert batch.obs.shape == (3, EPISODE, 3, 64, 64)
    for episode in range(3):
        env = make_env("stormrl/Catch-v0", PROTOCOLS["official"])
        obs, _ = env.reset(seed=11 + episode)
        for t in range(EPISODE):
            assert torch.equal(batch.obs[episode, t], torch.from_numpy(obs).permute(2, 0, 1))
            obs, reward, *_ = env.step(int(batch.action[episode, t]))
            assert batch.reward[episode, t] == reward
        assert not batch.continues[episode, -1]
    assert not torch.equal(batch.obs[0], batch.obs[1]), "no two episodes begin alike"


def test_a_window_lies_within_one_episode(agent: Agent) -> None:
    starts = set()
    for seed in range(12):
        batch = play_windows(agent, 1, 6, seed)
        assert batch.action.shape == (1, 6)
        assert not batch.is_first[0, 1:].any()
        starts.add(batch.obs[0, 0].numpy().tobytes())
    assert len(starts) > 6, "it lies anywhere in it"


def test_windows_end_with_the_shortest_episode(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert play_windows(agent, 2, 64, seed=0).action.shape == (2, EPISODE)
    monkeypatch.setattr(film, "LONGEST_PLAY", 9)
    assert play_windows(agent, 2, 64, seed=0).action.shape == (2, 9)


def test_a_film_can_be_repeated_and_leaves_no_trace(agent: Agent) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (dream_film(agent, 2, 3, 5, seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert (first == second).all()
    assert len(first) == 8
    wide = dream_film(agent, 3, 3, 5, seed=1)
    assert wide.shape[2] > first.shape[2], "each episode is a column"


@pytest.mark.parametrize(
    ("context", "horizon", "field"), [(0, 3, "context"), (3, 0, "horizon"), (30, 1000, "horizon")]
)
def test_lengths_that_cannot_be_are_refused(
    agent: Agent, context: int, horizon: int, field: str
) -> None:
    with pytest.raises(UserError) as error:
        dream_film(agent, 1, context, horizon, seed=0)
    assert error.value.field == field


def test_the_suffix_chooses_the_format(agent: Agent, tmp_path: Path) -> None:
    frames = dream_film(agent, 1, 3, 5, seed=1)
    paths = [tmp_path / "new" / "a.mp4", tmp_path / "a.GIF"]
    write_film(paths, frames)
    assert paths[1].read_bytes()[:3] == b"GIF"
    assert len(read_video(paths[0])) == len(frames)


def test_a_dream_may_be_longer_than_the_windows_of_training(agent: Agent) -> None:
    assert agent.config.agent.world_model.batch_length == 8
    assert len(dream_film(agent, 1, 4, 30, seed=0)) == 34


def test_the_sheet_has_every_scene_and_its_curves(agent: Agent) -> None:
    seen = dreams(agent, 2, 3, 5, seed=1, error_episodes=3)
    assert len(seen.filmed) == 2
    picture = sheet(seen.filmed)
    one = sheet(seen.filmed[:1])
    assert picture.dtype == "uint8"
    assert picture.shape == (2 * one.shape[0], *one.shape[1:])
    # Eight frames of three times 64 pixels stand side by side, four rows of them below each other.
    assert picture.shape[1] > 8 * 192
    assert one.shape[0] > 4 * 192 + 4 * 44


def test_the_error_is_measured_over_the_episodes_asked_for(agent: Agent) -> None:
    error = dreams(agent, 1, 3, 5, seed=1, error_episodes=4).error
    assert error.dream.shape == error.copy.shape == error.reconstruction.shape == (4, 5)
    again = dreams(agent, 1, 3, 5, seed=1, error_episodes=4).error
    assert (error.dream == again.dream).all()
