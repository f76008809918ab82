"""A few hundred random inputs: each is taken, or refused in one line that names its field."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzing import (
    COMMAND_LINES,
    CONFIGS,
    SampleRecording,
    SampleRun,
    command_line_is_taken_or_refused,
    config_is_taken_or_refused,
    folder_of_mistakes,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_mistakes(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SampleRun:
    return SampleRun(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> SampleRecording:
    return SampleRecording(tmp_path_factory.mktemp("episodes") / "a.safetensors")


@settings(max_examples=60)
@given(argv=COMMAND_LINES)
def test_command_lines(folder: Path, argv: list[str]) -> None:
    command_line_is_taken_or_refused(argv, folder)


@settings(max_examples=200)
@given(record=CONFIGS)
def test_configs(record: object) -> None:
    config_is_taken_or_refused(record)


@settings(max_examples=100)
@given(data=st.data())
def test_files_of_a_run(run: SampleRun, data: st.DataObject) -> None:
    run.is_taken_or_refused(*data.draw(run.damages(run)))


@settings(max_examples=100)
@given(data=st.data())
def test_files_of_episodes(recording: SampleRecording, data: st.DataObject) -> None:
    recording.is_taken_or_refused(data.draw(recording.damages(recording)))
