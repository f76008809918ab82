"""Released weights: what each released tensor means, and the way here and back."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from miniature import (
    ACTIONS,
    CPU,
    SPACES,
    WIDTH,
    C,
    K,
    StormLearner,
    learner,
    posterior_noise,
    random_batch,
    random_latents,
    softmax,
)
from stormrl.cli import main
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.disk import checkpoint
from stormrl.disk.run_directory import RunDirectory
from stormrl.errors import UserError
from stormrl.learning.state import module_tensors
from stormrl.runs.agent import Agent
from stormrl.runs.official_weights import (
    export_actor_critic,
    export_official,
    export_world_model,
    import_actor_critic,
    import_official,
    import_world_model,
    read_tensors,
)

CATCH = "stormrl/Catch-v0"
HEADS = 2


@pytest.fixture
def model() -> StormLearner:
    return learner(agent_config("official"))


def randomized(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other numbers of the same shapes; variances stay positive."""
    return {
        name: torch.rand_like(t) + 0.5 if t.is_floating_point() else t + 7
        for name, t in tensors.items()
    }


def numbers(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: t.double().numpy() for name, t in tensors.items()}


def norm(released: dict[str, np.ndarray], name: str, x: np.ndarray, epsilon: float) -> np.ndarray:
    deviation = x - x.mean(-1, keepdims=True)
    scale = released[f"{name}.weight"] / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return deviation * scale + released[f"{name}.bias"]


def tokens_of(released: dict[str, np.ndarray], z: np.ndarray, action: np.ndarray) -> np.ndarray:
    stem = "storm_transformer.stem"
    x = np.concatenate([z, np.eye(ACTIONS)[action]], -1) @ released[f"{stem}.0.weight"].T
    x = np.maximum(norm(released, f"{stem}.1", x, 1e-5), 0) @ released[f"{stem}.3.weight"].T
    x = norm(released, f"{stem}.4", x, 1e-5)
    positions = released["storm_transformer.position_encoding.pos_emb.weight"][: len(x)]
    return norm(released, "storm_transformer.layer_norm", x + positions, 1e-6)


def block_of(released: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    q, k, v = (x @ released[f"{name}.slf_attn.w_{part}s.weight"].T for part in "qkv")
    size, mixed = WIDTH // HEADS, np.zeros_like(x)
    for start in range(0, WIDTH, size):
        head = slice(start, start + size)
        scores = q[:, head] @ k[:, head].T / np.sqrt(size)
        future = np.triu(np.ones_like(scores), 1) > 0
        mixed[:, head] = softmax(np.where(future, -np.inf, scores)) @ v[:, head]
    x = x + mixed @ released[f"{name}.slf_attn.fc.weight"].T
    x = norm(released, f"{name}.slf_attn.layer_norm", x, 1e-6)
    part = f"{name}.pos_ffn"
    inner = np.maximum(x @ released[f"{part}.w_1.weight"].T + released[f"{part}.w_1.bias"], 0)
    x = x + inner @ released[f"{part}.w_2.weight"].T + released[f"{part}.w_2.bias"]
    return norm(released, f"{part}.layer_norm", x, 1e-6)


def head_of(released: dict[str, np.ndarray], hidden: str, last: str, x: np.ndarray) -> np.ndarray:
    for i in (0, 3):
        x = np.maximum(
            norm(released, f"{hidden}.{i + 1}", x @ released[f"{hidden}.{i}.weight"].T, 1e-5), 0
        )
    return x @ released[f"{last}.weight"].T + released[f"{last}.bias"]


def test_imported_networks_compute_what_the_released_tensors_say(model: StormLearner) -> None:
    """The released names and equations in NumPy, for one sequence across a reset."""
    tensors = {
        name: torch.randn_like(t) / 4 if t.is_floating_point() and t.ndim else t
        for name, t in export_world_model(model.world_model).items()
    }
    import_world_model(model.world_model, tensors, "a file")
    released, world = numbers(tensors), model.world_model
    z = random_latents(1, 5, world.config.latent)
    action = torch.randint(ACTIONS, (1, 5))
    is_first = torch.tensor([[True, False, False, True, False]])
    x = tokens_of(released, z[0].double().numpy(), action[0].numpy())
    for i in range(2):
        x = block_of(released, f"storm_transformer.layer_stack.{i}", x)
    h = world.observe(z, action, is_first)
    np.testing.assert_allclose(h[0].detach().numpy(), x, atol=1e-4)
    prior = x @ released["dist_head.prior_head.weight"].T + released["dist_head.prior_head.bias"]
    expected = 0.99 * softmax(prior.reshape(5, K, C)) + 0.01 / C
    np.testing.assert_allclose(world.latent.prior(h)[0].detach().numpy(), expected, atol=1e-4)
    prediction = world.predict(z, h)
    end = head_of(released, "termination_decoder.backbone", "termination_decoder.head.0", x)
    np.testing.assert_allclose(
        prediction.continues[0].detach().numpy(), 1 / (1 + np.exp(end[:, 0])), atol=1e-4
    )
    reward = head_of(released, "reward_decoder.backbone", "reward_decoder.head", x)
    symlog = (softmax(reward) * np.linspace(-20, 20, 255)).sum(-1)
    expected = np.sign(symlog) * np.expm1(np.abs(symlog))
    np.testing.assert_allclose(
        prediction.reward[0].detach().numpy(), expected, rtol=1e-3, atol=1e-4
    )


def test_convolutions_keep_their_places(model: StormLearner) -> None:
    tensors = randomized(export_world_model(model.world_model))
    import_world_model(model.world_model, tensors, "a file")
    encoder: Any = model.world_model.encoder
    decoder: Any = model.world_model.decoder
    for ours, theirs in (
        (encoder.first.weight, "encoder.backbone.0.weight"),
        (encoder.stages[0].running_mean, "encoder.backbone.1.running_mean"),
        (encoder.stages[8].weight, "encoder.backbone.9.weight"),
        (encoder.stages[9].num_batches_tracked, "encoder.backbone.10.num_batches_tracked"),
        (decoder.stem.weight, "image_decoder.backbone.0.weight"),
        (decoder.stages[0].running_var, "image_decoder.backbone.2.running_var"),
        (decoder.stages[2].weight, "image_decoder.backbone.4.weight"),
        (decoder.stages[11].bias, "image_decoder.backbone.13.bias"),
        (model.world_model.latent.posterior_head.bias, "dist_head.post_head.bias"),
    ):
        assert torch.equal(ours, tensors[theirs])


def test_the_way_there_and_back_is_exact(model: StormLearner) -> None:
    world = randomized(export_world_model(model.world_model))
    agent = randomized(export_actor_critic(model.actor_critic))
    import_world_model(model.world_model, world, "a file")
    import_actor_critic(model.actor_critic, agent, "a file")
    for given, back in (
        (world, export_world_model(model.world_model)),
        (agent, export_actor_critic(model.actor_critic)),
    ):
        assert given.keys() == back.keys()
        assert all(torch.equal(given[name], back[name]) for name in given)


def test_exported_tensors_are_copies(model: StormLearner) -> None:
    exported = export_world_model(model.world_model)
    before = exported["encoder.backbone.0.weight"].clone()
    batch = random_batch()
    model.learn_world(batch, posterior_noise(batch))
    assert torch.equal(exported["encoder.backbone.0.weight"], before)


def with_changed(tensors: dict[str, Tensor], name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    kept = {key: t for key, t in tensors.items() if key != name}
    return kept if tensor is None else kept | {name: tensor}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("dist_head.prior_head.bias", None, "lacks 'dist_head.prior_head.bias'"),
        ("something.weight", torch.zeros(1), "holds 'something.weight', which the released"),
        (
            "storm_transformer.layer_stack.1.slf_attn.w_ks.weight",
            torch.zeros(3, WIDTH),
            "slf_attn.w_ks.weight' of shape [3, 16], not [16, 16]",
        ),
        (
            "dist_head.prior_head.bias",
            torch.zeros(K * C, dtype=torch.float16),
            "'dist_head.prior_head.bias' as torch.float16, not torch.float32",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    model: StormLearner, name: str, tensor: Tensor | None, message: str
) -> None:
    before = export_world_model(model.world_model)
    with pytest.raises(UserError) as caught:
        import_world_model(model.world_model, with_changed(before, name, tensor), "world.pth")
    assert caught.value.field == "world.pth"
    assert message in caught.value.message
    after = export_world_model(model.world_model)
    assert all(torch.equal(before[name], after[name]) for name in before)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


@pytest.mark.parametrize("content", ["code", "text", "tensor", "list", "empty", "pickled"])
def test_files_of_another_kind_are_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "world.pth"
    objects = {"code": {"a": Evil()}, "tensor": torch.zeros(2), "list": {"a": [torch.zeros(2)]}}
    if content in objects:
        torch.save(objects[content], path)
    elif content == "pickled":
        path.write_bytes(pickle.dumps({"a": Evil()}))
    else:
        path.write_text("" if content == "empty" else "no weights")
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    assert caught.value.field == str(path)
    assert not Path("touched").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        read_tensors(tmp_path / "world.pth")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two files at the released sizes, for a game of three actions."""
    folder = tmp_path_factory.mktemp("released")
    torch.manual_seed(0)
    model = StormLearner(agent_config("official"), SPACES, CPU)
    paths = folder / "world_model.pth", folder / "agent.pth"
    torch.save(randomized(export_world_model(model.world_model)), paths[0])
    torch.save(randomized(export_actor_critic(model.actor_critic)), paths[1])
    return paths


@pytest.fixture(scope="module")
def imported(released: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return import_official(*released, CATCH, tmp_path_factory.mktemp("runs") / "run")


def test_an_imported_run_can_be_loaded_and_exported_again(
    released: tuple[Path, Path], imported: RunDirectory, tmp_path: Path
) -> None:
    assert imported.config.preset == imported.config.protocol == "official"
    assert imported.config.agent == agent_config("official", "base")
    assert checkpoint.steps(imported.path) == [imported.config.steps]
    agent = Agent.load(imported.path, device="cpu")
    action, _ = agent.act(np.zeros((64, 64, 3), np.uint8))
    assert action in range(3)
    paths = tmp_path / "new" / "world_model.pth", tmp_path / "new" / "agent.pth"
    export_official(imported.path, *paths)
    for given, back in zip(released, paths, strict=True):
        first, second = read_tensors(given), read_tensors(back)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_game_with_other_actions_is_refused(released: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ALE/Pong-v5 has 6 actions, .* has 3"):
        import_official(*released, "ALE/Pong-v5", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_swapped_files_are_refused(released: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks 'dist_head.post_head.bias'"):
        import_official(released[1], released[0], CATCH, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_the_released_code_cannot_hold_is_not_exported(tmp_path: Path) -> None:
    """A run of another size."""
    model = learner(agent_config("official"))
    config = RunConfig(CATCH, protocol="official", preset="official", agent=model.config)
    run = RunDirectory.create(tmp_path / "run", config)
    tensors = {
        "world_model": module_tensors(model.world_model),
        "actor_critic": module_tensors(model.actor_critic),
    }
    checkpoint.save(run.path, 1, tensors, {})
    with pytest.raises(UserError, match=r"of shape .* only networks of the released sizes"):
        export_official(run.path, tmp_path / "w.pth", tmp_path / "a.pth")
    assert not (tmp_path / "w.pth").exists()


def test_an_export_that_cannot_be_written_is_reported(
    imported: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        export_official(imported.path, Path("/proc/missing/w.pth"), tmp_path / "a.pth")


def test_the_commands_import_and_export(
    released: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "weights"
    files = [str(path) for path in released]
    assert main(["import-official", *files, "--env", CATCH, "--out", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run_dir": str(run),
        "env": CATCH,
        "step": 100_000,
    }
    assert main(["export-official", str(run), "--out", str(out), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["files"]
    assert written == [str(out / "world_model.pth"), str(out / "agent.pth")]
    for given, back in zip(released, written, strict=True):
        first, second = read_tensors(given), read_tensors(back)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_command_refuses_foreign_weights_in_one_line(
    released: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swapped = [str(path) for path in reversed(released)]
    assert main(["import-official", *swapped, "--env", CATCH, "--out", str(tmp_path / "a")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "lacks 'dist_head.post_head.bias'" in printed.err
    assert not (tmp_path / "a").exists()


def test_an_imported_run_is_evaluated_and_filmed_but_not_trained(
    imported: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(shutil.copytree(imported.path, tmp_path / "run"))
    film = ["--episodes", "1", "--horizon", "2", "--out", str(tmp_path / "a.gif")]
    assert main(["dream", run, "--device", "cpu", *film]) == 0
    assert main(["eval", run, "--device", "cpu", "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == 100_000
    assert main(["train", "--resume", run, "--steps", "100001", "--json"]) == 2
    assert "holds no usable" in capsys.readouterr().err
