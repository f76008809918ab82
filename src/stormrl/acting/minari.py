"""Episodes from and to Minari, the collection of datasets in Gymnasium's own format."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from gymnasium import spaces

from stormrl.config.imports import ForeignId
from stormrl.envs import DEFAULT_PROTOCOL, Protocol, action_meanings, find_protocol, make_env
from stormrl.envs.make import IMAGE_SIZE, find_spec
from stormrl.errors import UserError
from stormrl.experience.episodes import RecordedEpisode, Recording

PROTOCOL_KEY = "stormrl_protocol"
"""Metadata of an exported dataset: the protocol that it was recorded under."""

LIFE_LOST = "life_lost"
"""Info of an exported dataset: where the learner saw an end and the game went on."""


def export_minari(recording: Recording, dataset_id: str) -> None:
    """Write a recording as a local Minari dataset, such as `freeway/up-v0`; images stay exact.

    Raises `UserError` if the name cannot be, is taken, or Minari is not installed.
    """
    minari = _minari()
    actions = spaces.Discrete(len(recording.actions))
    images = _shown(recording)
    from minari.data_collector import EpisodeBuffer

    buffers = [EpisodeBuffer(**_columns(episode)) for episode in recording.episodes]
    try:
        with warnings.catch_warnings():
            # It asks for author, address and the like, of which nothing is known here.
            warnings.simplefilter("ignore", UserWarning)
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=find_spec(ForeignId(recording.env, Path.cwd())),
                algorithm_name=recording.policy,
                description=f"{recording.env} under protocol {recording.protocol} of stormrl",
                observation_space=images,
                action_space=actions,
                jpeg_encoding=False,
            )
    except (ValueError, TypeError, OSError) as error:
        raise UserError("dataset", f"{dataset_id!r} cannot be written: {error}") from None
    dataset.storage.update_metadata({PROTOCOL_KEY: recording.protocol})


def import_minari(
    dataset_id: str, env_id: str | None = None, protocol: str | None = None
) -> Recording:
    """The episodes of a local Minari dataset with RGB images and discrete actions.

    env_id: the game, if not the one that the dataset names. protocol: whose rule for lost lives is
    applied, if the dataset does not say; `atari100k` by default. Images are brought to 64 x 64.
    Raises `UserError` if the dataset is missing, of another kind, or the game has other actions.
    """
    dataset = _load(dataset_id)
    metadata = dataset.storage.metadata
    env_id = env_id or _env_of(dataset, dataset_id)
    protocol = protocol or str(metadata.get(PROTOCOL_KEY, DEFAULT_PROTOCOL))
    rules = find_protocol(protocol)
    meanings = _actions(env_id, rules)
    _check_spaces(dataset, dataset_id, env_id, len(meanings))
    loss_ends = rules.life_loss == "termination"
    seeds = [m.get("seed") for m in dataset.storage.get_episode_metadata(dataset.episode_indices)]
    episodes = tuple(
        _episode(episode, seed, loss_ends)
        for episode, seed in zip(dataset.iterate_episodes(), seeds, strict=True)
    )
    if not episodes:
        raise UserError("dataset", f"{dataset_id} holds no episodes; give another")
    policy = str(metadata.get("algorithm_name", f"minari:{dataset_id}"))
    return Recording(env_id, protocol, policy, tuple(meanings), episodes)


def _minari() -> ModuleType:
    try:
        import h5py  # noqa: F401 - Minari looks for it only when it reads or writes
        import minari
    except ImportError:
        remedy = "pip install 'stormrl[demonstrations]'"
        raise UserError("minari", f"is not installed; {remedy}") from None
    return minari


def _load(dataset_id: str) -> Any:
    try:
        return _minari().load_dataset(dataset_id)
    except UserError:
        raise
    except Exception as error:  # Whatever a foreign dataset makes of its reader.
        raise UserError("dataset", f"{dataset_id!r} cannot be read: {error}") from None


def _columns(episode: RecordedEpisode) -> dict[str, Any]:
    """As Minari keeps an episode: `T` of everything, but `T + 1` observations and infos."""
    terminations, truncations = np.zeros((2, episode.length), bool)
    terminations[-1] = episode.end == "terminated"
    truncations[-1] = episode.end == "truncated"
    life_lost = np.concatenate([[False], (episode.continues == 0) & ~terminations])
    return {
        "seed": episode.seed,
        "observations": episode.obs,
        "actions": episode.action,
        "rewards": episode.reward,
        "terminations": terminations,
        "truncations": truncations,
        "infos": {LIFE_LOST: life_lost},
    }


def _episode(data: Any, seed: int | None, loss_ends: bool) -> RecordedEpisode:
    ends = np.asarray(data.terminations, bool)
    if loss_ends:
        ends = ends | _lives_lost(data.infos or {}, len(ends))
    return RecordedEpisode(
        seed=seed,
        obs=np.stack([_resized(image) for image in data.observations]),
        action=np.asarray(data.actions, np.int64),
        reward=np.asarray(data.rewards, np.float32),
        continues=(~ends).astype(np.float32),
        end="terminated" if data.terminations[-1] else "truncated",
    )


def _lives_lost(infos: dict[str, Any], steps: int) -> np.ndarray:
    """Bool [steps], from this package's own info or the emulator's count of lives."""
    if LIFE_LOST in infos:
        return np.asarray(infos[LIFE_LOST], bool)[1:]
    if "lives" in infos:
        return np.diff(np.asarray(infos["lives"], np.int64)) < 0
    return np.zeros(steps, bool)


def _resized(image: np.ndarray) -> np.ndarray:
    if image.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
        return image
    return cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)


def _env_of(dataset: Any, dataset_id: str) -> str:
    if dataset.env_spec is None:
        raise UserError("env", f"{dataset_id} does not name its game; give the game's id")
    return ForeignId(dataset.env_spec.id, Path.cwd())


def _actions(env_id: str, protocol: Protocol) -> list[str]:
    env = make_env(env_id, protocol)
    meanings = action_meanings(env)
    env.close()
    return meanings


def _check_spaces(dataset: Any, dataset_id: str, env_id: str, actions: int) -> None:
    seen, done = dataset.observation_space, dataset.action_space
    images = isinstance(seen, spaces.Box) and seen.dtype == np.uint8 and len(seen.shape) == 3
    if not images or seen.shape[-1] != 3:
        raise UserError("dataset", f"{dataset_id} holds {seen}; RGB images are needed")
    if not isinstance(done, spaces.Discrete) or done.start != 0 or done.n != actions:
        remedy = "record it with the game's minimal set of actions"
        raise UserError("dataset", f"{dataset_id} has actions {done}, {env_id} {actions}; {remedy}")


def _shown(recording: Recording) -> spaces.Box:
    shape = recording.episodes[0].obs.shape[1:]
    if recording.episodes[0].obs.dtype == np.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)
