"""Which PyTorch `make` installs, asked of a Python that notes what it is told and a real index."""

import functools
import http.server
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTING_PYTHON = """\
#!/bin/sh
[ "$1" = -c ] && exec {python} "$@"
echo "$@" >> asked
case "$*" in *{failing}*) exit 1; esac
"""
ONLY_TORCH = "-m pip --quiet install --no-deps --index-url {} torch==2.13.0"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Its files, and a virtual environment that nothing is installed into."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "constraints.txt").write_text("numpy==2.4.6\ntorch==2.13.0\ntorchvision==0.1\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "pip").touch()
    return tmp_path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """Address of a package index that lists PyTorch."""
    (tmp_path / "index" / "torch").mkdir(parents=True)
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "index")
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that takes a call and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def asked(clone: Path, *variables: str, failing: str = "nothing") -> tuple[list[str], str]:
    """What pip was asked for, and what was said."""
    python = clone / ".venv" / "bin" / "python"
    python.write_text(NOTING_PYTHON.format(python=sys.executable, failing=failing))
    python.chmod(0o755)
    made = subprocess.run(
        ["make", ".venv/.runtime", *variables],
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    return (clone / "asked").read_text().splitlines(), made.stdout


def test_without_a_driver_pytorch_alone_comes_from_the_index_for_cpus(
    clone: Path, index: str
) -> None:
    asked_for, said = asked(clone, "NVIDIA_DRIVER=", f"CPU_INDEX={index}")
    assert asked_for[0] == ONLY_TORCH.format(index)
    assert len(asked_for) == 3
    assert not any("index" in line for line in asked_for[1:])
    assert f"190 MB, from {index}" in said


def test_with_a_driver_it_comes_with_cuda(clone: Path, index: str) -> None:
    asked_for, said = asked(clone, "NVIDIA_DRIVER=/usr/bin/nvidia-smi", f"CPU_INDEX={index}")
    assert not any("index" in line for line in asked_for)
    assert "3 GB with CUDA" in said


def test_an_index_of_the_users_wins(clone: Path, index: str) -> None:
    own = "https://example.org/whl"
    asked_for, said = asked(clone, "NVIDIA_DRIVER=", f"CPU_INDEX={index}", f"TORCH_INDEX={own}")
    assert all(f"--extra-index-url {own}" in line for line in asked_for)
    assert f"from {own}" in said


def test_an_index_that_does_not_answer_is_not_waited_for(clone: Path, silent: str) -> None:
    asked_for, said = asked(clone, "NVIDIA_DRIVER=", f"CPU_INDEX={silent}")
    assert not any("index" in line for line in asked_for)
    assert "from PyPI" in said


def test_an_index_without_such_a_wheel_is_done_without(clone: Path, index: str) -> None:
    asked_for, said = asked(clone, "NVIDIA_DRIVER=", f"CPU_INDEX={index}", failing="--no-deps")
    assert asked_for[0] == ONLY_TORCH.format(index)
    assert asked_for[-1].endswith("--editable .")
    assert "comes from PyPI" in said
