"""The training loop: it owns time and cadence, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, NamedTuple

import gymnasium
import torch
from torch import Tensor
from torch.nn.functional import pad

from stormrl.acting.collector import Collector, Episode
from stormrl.acting.evaluate import Score, cut_short, evaluate
from stormrl.acting.run_state import RunState
from stormrl.config.common import TwoHotConfig
from stormrl.config.parts import AgentConfig
from stormrl.disk import checkpoint
from stormrl.disk.run_directory import RunDirectory
from stormrl.disk.tensor_files import check_tensors
from stormrl.dreams.scenes import dream_rows
from stormrl.envs import dark, find_protocol, make_env, spaces_of
from stormrl.errors import UserError
from stormrl.experience.demonstration import load_demonstration
from stormrl.experience.replay import Replay
from stormrl.experience.store import Manifest, ReplayStore
from stormrl.history.progress import Progress
from stormrl.history.recorder import Recorder, Sink, TensorBoard, Wandb, one_line, rewind
from stormrl.learning.graphs import updates
from stormrl.learning.learner import Learner, Updated
from stormrl.learning.metrics import MetricSum
from stormrl.learning.schedule import UpdateRatio
from stormrl.learning.skipped import Diagnosis, SkippedUpdates
from stormrl.learning.state import (
    copy_tensors,
    largest_state,
    learner_tensors,
    restore_learner,
)
from stormrl.machine.device import choose_backend, compute_deterministically
from stormrl.machine.provenance import circumstances
from stormrl.machine.random_state import (
    kept_random_state,
    random_state,
    restore_random_state,
    seed_all,
)
from stormrl.machine.stop import Stopped, Stopping, StopRequest
from stormrl.pictures.media import stack_rows
from stormrl.scores.file import read_scores
from stormrl.seeds import EVALUATION_SEED
from stormrl.spaces import ImageSpace

DREAM_FPS = 8
DREAM_WINDOWS = 3
GROUPS = {"collector", "random", "metrics", "skipped"}
"""What a checkpoint keeps in tensors beside the learner."""
LARGEST_EXPONENT = 700.0
"""Larger ones fit no float."""
SHOWN = (
    "world_model/reconstruction",
    "world_model/reward",
    "world_model/kl",
    "agent/entropy",
    "agent/imagined_return",
)


class Outcome(NamedTuple):
    """How a call of `Trainer.train` ended."""

    step: int
    finished: bool
    """False after a request to stop."""
    scores: Sequence[Score]
    """Evaluation of the final agent; empty if none was asked for or the run did not finish."""


class Trainer:
    """Collects experience, updates the learner, records, evaluates and saves, each in its time."""

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress,
        env: gymnasium.Env | None = None,
        wandb: str | None = None,
    ) -> None:
        """A trainer at the beginning of its run.

        env: the run's game, where it is made already. wandb: the project in which it is shown.

        Raises `UserError` if the game is no longer what it was when the run began, or the run
        cannot be shown in Weights & Biases.
        """
        self.run, self.config, self.progress = run, run.config, progress
        config, agent = run.config, run.config.agent
        self.protocol = find_protocol(config.protocol)
        self.env = env or make_env(config.env, self.protocol, kwargs=config.env_kwargs)
        self.spaces = run.spaces or spaces_of(self.env)
        self.spaces.check_same(spaces_of(self.env), config.env)
        self.backend = choose_backend(config)
        if config.deterministic:
            compute_deterministically()
        torch.set_flush_denormal(True)
        seed_all(config.seed)
        self.learner = Learner(agent, self.spaces, self.backend)
        keeps_final = self.learner.world_model.keeps_final
        rows = config.steps * (1 + keeps_final)  # At most: an episode may be one step long.
        capacity = min(agent.replay.capacity, rows)
        self.replay = Replay.of(capacity, self.spaces.observation, self.backend.device)
        self.demonstration = load_demonstration(run, self.spaces, self.backend.device, keeps_final)
        self.updates = updates(self.learner, self.replay, self.demonstration)
        self.store = ReplayStore(run.path / "replay")
        self.actor = self.learner.actor()
        self.collector = Collector(self.env, self.protocol, self.actor, self.replay, config.seed)
        self.ratios = [UpdateRatio(scheduled.ratio) for scheduled in self.updates]
        self.metrics = MetricSum(self.backend.device)
        self.skipped = SkippedUpdates(agent, self.backend.device)
        self.pretraining = [
            phase.update for phase in self.learner.phases() for _ in range(phase.updates)
        ]
        self.pretrained = 0
        """Of these updates, how many are done."""
        self.step = 0
        self.elapsed_s = 0.0
        self.saved: Callable[[], None] = _nothing
        """Called after every checkpoint; the run waits meanwhile."""
        self.alive: Callable[[], None] = _nothing
        """Called between the steps of training and evaluation."""
        self._cut_short: Episode | None = None
        self._saved_step: int | None = None
        """Step of the newest checkpoint."""
        self._saved_pretrained = 0
        self._largest_reward = _largest_reward(agent)
        """Beyond it the bins of the reward predictor end."""
        self._half_done = False
        """Whether a step was begun and not brought to its end."""
        # Last of all: it may refuse the login, and shows a run wherever it does not.
        self.sinks: list[Sink] = [] if wandb is None else [Wandb(run.path, wandb)]

    @property
    def updated(self) -> int:
        """World-model updates so far."""
        return self.ratios[0].updates

    def train(self) -> Outcome:
        """Train to the configured number of steps, or until asked to stop; saves either way.

        Raises `Fault`, after saving, if the environment fails or too many updates in a row had to
        be skipped. Whatever else is raised leaves the run saved too: as of the last step if that
        was done as a whole, else as of its last checkpoint.
        """
        self.recorder = Recorder(
            self.run.path, self._sinks(), self.elapsed_s, warn=self.progress.message
        )
        try:
            with StopRequest(self._heard) as stop, self.progress, self._saved_first():
                self._record_cut_short()
                scores = self._train(lambda: self._stops(stop))
        finally:
            self.env.close()
            self.recorder.close()
        finished = self.step >= self.config.steps and is_scored(self.run, self.step)
        return Outcome(self.step, finished, scores)

    def save(self) -> None:
        """Write the whole state of the run as a checkpoint."""
        tensors = learner_tensors(self.learner) | {
            "collector": self.collector.tensors(),
            "random": random_state(),
            "metrics": self.metrics.sums,
            "skipped": self.skipped.tensors(),
            **self._counts(),
        }
        state = self._state(replay=self.store.append_new(self.replay))
        checkpoint.save(self.run.path, self.step, tensors, asdict(state))
        self._saved_step, self._saved_pretrained = self.step, self.pretrained
        checkpoint.prune(self.run.path, self.config.keep_checkpoints)
        self.store.prune(kept["replay"] for kept in checkpoint.states(self.run.path))
        self.saved()

    def restore(self) -> None:
        """Continue from the newest good checkpoint of the run, or from its beginning."""
        if not checkpoint.steps(self.run.path):
            rewind(self.run.path, {}, 0)
            return
        limit = largest_state(self.learner)
        saved = checkpoint.load(self.run.path, verify=self._verify, limit=limit)
        for group in GROUPS - saved.tensors.keys():
            raise UserError(str(saved.path), f"lacks the tensors of {group!r}; start a new run")
        for warning in saved.warnings:
            self.progress.message(warning)
        state = RunState.from_record(saved.state)
        state.check(saved.step)
        counts = self._counts()
        kept = {group: self._widened(saved.tensors.get(group, {})) for group in counts}
        for group, members in counts.items():
            check_tensors(members, kept[group], group)
        self._tell_other_bits(state.circumstances)
        restore_learner(self.learner, saved.tensors)
        for group, members in counts.items():
            copy_tensors(members, kept[group])
        self.store.restore(self.replay, state.replay)
        self.replay.check_actions(self.spaces.action.n)
        self.step, self.elapsed_s = state.step, state.elapsed_s
        self.collector.finals = self.replay.added - state.step
        self._saved_step, self._saved_pretrained = state.step, state.pretrained
        self.pretrained = state.pretrained
        for ratio in self.ratios:
            ratio.steps = state.trained_steps
        self.learner.world_model.version = self._version
        self.metrics.restore(saved.tensors["metrics"], state.metric_counts)
        self.skipped.restore(saved.tensors["skipped"])
        rewind(self.run.path, state.histories, self.step)
        self._cut_short = self.collector.restore(saved.tensors["collector"], state)
        restore_random_state(saved.tensors["random"])

    def _counts(self) -> dict[str, dict[str, Tensor]]:
        """What training rewrites of replay: it is saved whole, the rest as it grows."""
        if self.config.agent.replay.balance == 0:
            return {}
        return {"replay": {"visits": self.replay.visits}}

    def _widened(self, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Counts of a run that was given more steps, and with them more room in replay."""
        room = self.replay.capacity
        return {
            name: pad(count, (0, max(0, room - len(count)))) if count.ndim == 1 else count
            for name, count in counts.items()
        }

    def _tell_other_bits(self, before: Mapping[str, str]) -> None:
        """A person should know from where on a run is no longer the one it would have been."""
        now = circumstances(self.backend.device)
        changes = [
            f"{name} was {before[name]} and is {now[name]}"
            for name in now
            if before.get(name, now[name]) != now[name]
        ]
        if changes:
            differ = "from here on the bits differ from those of a run that was never stopped"
            self.progress.message(f"{differ}: {'; '.join(changes)}")

    def _sinks(self) -> list[Sink]:
        try:
            board = TensorBoard(self.run.path / "tensorboard", purge_step=self.step + 1)
        except Exception as error:
            self.progress.message(f"nothing is written for TensorBoard: {one_line(error)}")
            return [*self.sinks]
        return [*self.sinks, board]

    def _stops(self, stop: StopRequest) -> bool:
        """Asked between any two steps, of an evaluation too."""
        self.alive()
        return stop.asked()

    def _train(self, stopping: Stopping) -> Sequence[Score]:
        # An evaluation that the end of an earlier process left undone is made up for.
        scores = self._evaluate(stopping) if self._evaluation_due() else ()
        while self.step < self.config.steps and not stopping():
            if self._pretraining_due():
                self._pretrain()
                continue
            self._advance()
            # First of all: whatever comes after it, and however long it takes, nothing is lost.
            if self._due(self.config.checkpoint_every) or self.step == self.config.steps:
                self.save()
            if self._due(self.config.dream_every):
                self._dream()
            scores = self._evaluate(stopping) if self._evaluation_due() else scores
        if not self._is_saved():
            self.save()
        return scores

    def _pretraining_due(self) -> bool:
        warm = len(self.replay) >= self.config.agent.replay.warmup
        return warm and self.pretrained < len(self.pretraining)

    def _pretrain(self) -> None:
        """One update before the agent acts for the first time."""
        self._count(self.pretraining[self.pretrained](self.replay))
        self.pretrained += 1
        self.learner.world_model.version = self._version
        if self.pretrained == len(self.pretraining):
            self.progress.message(f"step {self.step}: {self.pretrained} updates of pretraining")

    @property
    def _version(self) -> int:
        return self.updated + self.pretrained

    def _is_saved(self) -> bool:
        return (self._saved_step, self._saved_pretrained) == (self.step, self.pretrained)

    @contextmanager
    def _saved_first(self) -> Iterator[None]:
        """What is raised inside goes on to be raised, and says what has been saved by then."""
        try:
            yield
        except BaseException as error:
            self._save_if_whole()
            if type(error) is UserError:
                raise  # It has its own remedy, such as to free space on the disk.
            saved, remedy = self._saved_text(error), f"stormrl train --resume {self.run.path}"
            told = f"{saved}; put that right, then go on with {remedy}"
            if isinstance(error, UserError):
                raise type(error)(error.field, f"{error.message}; {told}") from error
            error.add_note(told)
            raise

    def _save_if_whole(self) -> None:
        """Never half a step; and what keeps it from being saved must not hide what went wrong."""
        if not self._is_saved() and self._is_whole():
            with suppress(Exception):
                self.save()

    def _is_whole(self) -> bool:
        """Whether environment, replay and agent are at the end of one and the same step."""
        taken, collector = len(self.env.get_wrapper_attr("actions")), self.collector
        same = taken == collector.game.length == collector.stored
        added = self.replay.added - collector.finals
        return not self._half_done and same and added == self.step

    def _heard(self, times: int) -> None:
        """Said at once, while the update in hand goes on; called from another thread."""
        if times == 1:
            self.progress.message("stopping after this update; once more leaves without saving")
        elif self._saved_step is None:
            self.progress.message("left, and nothing of this run is saved")
        else:
            lost = self.step - self._saved_step
            saved = f"the run is saved at step {self._saved_step:,}"
            self.progress.message(f"left without saving the last {lost:,} steps; {saved}")

    def _saved_text(self, error: BaseException) -> str:
        at = f"the run is saved at step {self._saved_step}"
        saved = "nothing is saved yet" if self._saved_step is None else at
        try:
            return f"{saved}, more is in {self.recorder.failure(error)}"
        except UserError:
            return saved

    def _state(self, replay: Manifest) -> RunState:
        return RunState(
            step=self.step,
            trained_steps=self.ratios[0].steps,
            pretrained=self.pretrained,
            elapsed_s=self.recorder.wall_s,
            is_first=self.collector.game.is_first,
            episode_total=self.collector.game.total,
            episode_length=self.collector.game.length,
            episode_seed=self.collector.game.seed,
            metric_counts=self.metrics.counts,
            replay=replay,
            histories=self.recorder.positions(),
            circumstances=circumstances(self.backend.device),
        )

    def _verify(self, record: dict[str, Any]) -> None:
        self.store.verify(RunState.from_record(record).replay, self.replay)

    def _record_cut_short(self) -> None:
        if self._cut_short is None:
            return
        lost = self._cut_short
        self.recorder.episode(self.step, lost.total, lost.length, lost.seed, cut_short=True)
        self.progress.message(
            f"step {self.step}: {self.config.env} did not come back to its saved state; the "
            f"episode in flight ({lost.length} steps) is closed as truncated"
        )

    def _advance(self) -> None:
        """One environment step and the updates that are due after it."""
        warm = len(self.replay) > self.config.agent.replay.warmup
        episode = self.collector.step(random=not warm)
        self._tell_cut_reward()
        self._half_done = True
        self.step += 1
        if len(self.replay) > self.config.agent.replay.warmup:
            if not warm:
                self._tell_dark_pictures()
            self._update()
        if episode is not None:
            self.recorder.episode(self.step, episode.total, episode.length, episode.seed)
        logging = self._due(self.config.log_every)
        shown, diagnoses = self._log() if logging else ({}, ())
        self._half_done = False
        for diagnosis in diagnoses:
            diagnosis.check(self.config.max_skipped)
        total = None if episode is None else episode.total
        self.progress.update(self.step, self.updated, shown, total)

    def _tell_cut_reward(self) -> None:
        reward = self.collector.game.reward
        if abs(reward) <= self._largest_reward:
            return
        limit = f"rewards beyond {self._largest_reward:.2g} are learned as if they were that"
        self._largest_reward = math.inf  # It is said once.
        told = f"step {self.step + 1}: a reward of {reward:g}; {limit}, so scale them down"
        self.progress.message(told)

    def _tell_dark_pictures(self) -> None:
        if not isinstance(self.spaces.observation, ImageSpace):
            return
        brightest = int(self.replay.obs[: len(self.replay)].max())
        if brightest <= 1:
            seen = f"{len(self.replay)} pictures have a value above {brightest} (of 255)"
            self.progress.message(f"step {self.step}: none of the first {seen}; {dark(brightest)}")

    def _update(self) -> None:
        for ratio, scheduled in zip(self.ratios, self.updates, strict=True):
            for _ in range(ratio.due()):
                self._count(scheduled.update())
        self.learner.world_model.version = self._version

    def _count(self, parts: Mapping[str, Updated]) -> None:
        for part, (metrics, rows) in parts.items():
            self.metrics.add(metrics, part)
            self.skipped.note(part, self.step, metrics, rows[:, 0])

    def _log(self) -> tuple[dict[str, float], Sequence[Diagnosis]]:
        """Write the metrics; those worth a look on the progress bar, and what was skipped."""
        metrics = self.metrics.read()
        if metrics:
            self.recorder.metrics(self.step, self.updated, metrics)
        diagnoses = list(self.skipped.read(self.replay))
        for diagnosis in diagnoses:
            self.recorder.diagnosis(self.step, diagnosis.as_dict())
        return {name: metrics[name] for name in SHOWN if name in metrics}, diagnoses

    def _evaluation_due(self) -> bool:
        asked = self.step == self.config.steps or self._due(self.config.evaluate_every)
        return self.step > 0 and asked and not is_scored(self.run, self.step)

    def _evaluate(self, stopping: Stopping) -> Sequence[Score]:
        """The agent's scores, or none if a stop is asked for meanwhile."""
        episodes = self.config.evaluation_episodes
        self.progress.message(f"step {self.step}: evaluating {episodes} episodes")
        try:
            with kept_random_state():
                scores = self._played(stopping)
        except Stopped:
            self.progress.message(f"step {self.step}: the evaluation is left for the next time")
            return ()
        self._record_scores(scores)
        mean = sum(score.total for score in scores) / len(scores)
        self.recorder.mean_score(self.step, self.protocol.name, mean)
        self.progress.message(f"step {self.step}: mean return {mean:.2f}")
        if count := sum(score.cut_short for score in scores):
            self.progress.message(f"step {self.step}: {cut_short(count, episodes, self.protocol)}")
        return scores

    def _played(self, stopping: Stopping) -> Sequence[Score]:
        return evaluate(
            self.actor,
            self.config.env,
            self.protocol,
            self.config.evaluation_episodes,
            EVALUATION_SEED,
            self.backend.device,
            stopping,
            self.config.env_kwargs,
        )

    def _record_scores(self, scores: Sequence[Score]) -> None:
        """Those that a process which died among them has not written yet."""
        name = self.protocol.name
        for index, score in enumerate(scores):
            if read_scores(self.run.path, self.step, name, [score.seed]) is None:
                total, length = score.total, score.length
                self.recorder.score(
                    self.step, name, index, total, length, score.seed, score.cut_short
                )

    def _dream(self) -> None:
        """A video of real, reconstructed and dreamt frames from recent experience."""
        try:
            self._film_dream()
        except Exception as error:
            self.progress.message(f"step {self.step}: no dream is filmed: {one_line(error)}")

    def _film_dream(self) -> None:
        if len(self.replay) <= self.config.agent.replay.warmup:
            return
        length = self.config.agent.world_model.batch_length
        windows = self.replay.latest(min(DREAM_WINDOWS, len(self.replay) // length), length)
        with self.backend.fork_rng():
            rows = dream_rows(
                self.learner.world_model, windows, self.config.agent.imagination.context
            )
        self.recorder.video("dream", stack_rows(rows), self.step, DREAM_FPS)

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0


def is_scored(run: RunDirectory, step: int) -> bool:
    """Whether the run's own evaluation at that step is written down, or none is asked for."""
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + run.config.evaluation_episodes)
    return read_scores(run.path, step, run.config.protocol, seeds) is not None


def _largest_reward(agent: AgentConfig) -> float:
    bins = getattr(agent.world_model, "two_hot", None)
    if not isinstance(bins, TwoHotConfig):  # A world of one's own knows its own limits.
        return math.inf
    return math.expm1(min(-bins.low, bins.high, LARGEST_EXPONENT))


def _nothing() -> None:
    pass
