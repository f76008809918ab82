import io
import re
import sys

import pytest
from rich.console import Console

from stormrl.history.progress import RateWindow, SilentProgress, TrainingProgress, busy


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def log_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def terminal_console(width: int = 100) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, force_interactive=True, width=width, _environ={}
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rates_are_of_the_window_alone() -> None:
    window = RateWindow(window_s=10, period_s=1)
    assert window.per_second() is None
    for second in range(100):
        window.add(second, 7 * second, 2 * second)
    for second in range(100, 112):
        window.add(second, 700 + 50 * (second - 100), 200)
    assert window.per_second() == (50, 0)


def test_samples_are_dropped_by_age_not_by_number() -> None:
    """Where a step takes seconds, the rate is still that of the last moments."""
    window = RateWindow(window_s=10, period_s=1)
    for step in range(40):
        window.add(4 * step, step)
    for step in range(40, 44):
        window.add(160 + 8 * (step - 40), step)
    assert window.per_second() == pytest.approx((1 / 8,))


def test_random_steps_say_nothing_about_the_rest() -> None:
    """A thousand steps in a second, then two seconds each: an ETA is of the updates alone."""
    clock, console = Clock(), log_console()
    with TrainingProgress(11_000, console=console, clock=clock) as progress:
        for second in range(40):
            clock.now_s += 1
            progress.update(25 * (second + 1), 0, {}, None)
        for update in range(40):
            clock.now_s += 2
            progress.update(1001 + update, 1 + update, {}, None)
    lines = written(console).splitlines()
    assert "collecting random steps" in lines[0]
    assert "ETA" not in lines[0]
    (foretold,) = [line for line in lines if "at this pace" in line]
    assert "take 5.5 hours" in foretold
    assert "ETA 5:3" in lines[-1]


def test_rates_do_not_depend_on_how_often_they_are_fed() -> None:
    window = RateWindow(window_s=10, period_s=1)
    for tick in range(100_000):
        window.add(tick / 1000, tick)
    assert window.per_second() == pytest.approx((1000.0,))


def test_a_log_gets_a_plain_line_every_thirty_seconds_and_a_last_one() -> None:
    clock, console = Clock(), log_console()
    with TrainingProgress(100_000, start_step=20_000, console=console, clock=clock) as progress:
        for second in range(1, 71):
            clock.now_s += 1
            loss = {"world_model/image_loss": 1 / second}
            progress.update(20_000 + 400 * second, 100 * second, loss, float(second))
    lines = written(console).splitlines()
    assert "\r" not in written(console)
    assert "\x1b" not in written(console)
    # 68,000 steps are left at 400 a second; the last 20 returns at second 30 are 11 ... 30.
    assert lines[0] == (
        "32,000/100,000 steps · 32% · ETA 0:02:50 · return 20.5 · 400 steps/s · 100 updates/s"
        " · image_loss 0.0333"
    )
    assert [line.split(" ")[0] for line in lines] == [
        "32,000/100,000",
        "44,000/100,000",
        "48,000/100,000",
    ]


def test_before_anything_is_known_nothing_is_claimed() -> None:
    console = log_console()
    with TrainingProgress(10, console=console, clock=Clock()):
        pass
    assert written(console) == (
        "0/10 steps · 0% · ETA -- · return -- · -- steps/s · -- updates/s\n"
    )


def test_a_finished_run_says_how_long_it_took() -> None:
    clock, console = Clock(), log_console()
    with TrainingProgress(10, console=console, clock=clock) as progress:
        progress.update(5, 0, {}, None)
        clock.now_s += 3725
        progress.update(10, 0, {}, None)
    assert "10/10 steps · 100% · took 1:02:05" in written(console)


def test_a_message_is_printed_as_it_is() -> None:
    text = "saved [red]runs/pong[/red] at step 12, a line longer than the console is wide"
    console = log_console()
    with TrainingProgress(10, console=console, clock=Clock()) as progress:
        progress.message(text)
    assert written(console).splitlines()[0] == text


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_terminal_shows_two_lines_redrawn_in_place(width: int) -> None:
    clock, console = Clock(), terminal_console(width)
    with TrainingProgress(1000, console=console, clock=clock) as progress:
        for step in range(1, 1001):
            clock.now_s += 0.1
            progress.update(step, step, {"image_loss": 0.5, "dynamics_loss": 0.25}, 3.0)
    screen = draw(written(console))
    assert len(screen) == 2
    assert "100% 1,000/1,000 steps took 0:01:40" in screen[0]
    assert screen[1].startswith("return 3 · 10 steps/s · 10 updates/s")
    assert max(map(len, screen)) <= width


def test_a_message_stays_above_the_bar() -> None:
    clock, console = Clock(), terminal_console()
    with TrainingProgress(1000, console=console, clock=clock) as progress:
        for step in range(1, 11):
            clock.now_s += 1
            progress.update(step, step, {}, None)
            if step in (3, 7):
                progress.message(f"saved step {step}")
    screen = draw(written(console))
    assert screen[:2] == ["saved step 3", "saved step 7"]
    assert len(screen) == 4


def test_standard_output_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(10) as progress:
        sys.stdout.write('{"step": 10}\n')
        progress.message("saved")
    captured = capsys.readouterr()
    assert captured.out == '{"step": 10}\n'
    assert "saved" in captured.err


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with SilentProgress() as progress:
        progress.update(1, 1, {"loss": 1.0}, 2.0)
        progress.message("saved")
    assert capsys.readouterr() == ("", "")


def draw(output: str) -> list[str]:
    """The lines on a terminal's screen after `output`; it knows what a redrawn bar needs."""
    screen, row, column = [""], 0, 0
    tokens = re.findall(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)", output)
    for argument, control, line_end, text in tokens:
        if control == "A":
            row -= int(argument or 1)
        elif control == "K":
            screen[row] = ""
        elif line_end:
            row, column = row + (line_end == "\n"), 0
            screen += [""] * (row + 1 - len(screen))
        elif text:
            screen[row] = screen[row][:column].ljust(column) + text
            column += len(text)
    return [line.rstrip() for line in screen if line.strip()]


def test_a_training_that_time_ends_shows_how_much_of_it_is_gone() -> None:
    clock, console = Clock(), log_console()
    with TrainingProgress(1_000_000, console=console, clock=clock, limit_s=120) as progress:
        for second in range(1, 122):
            clock.now_s += 1
            progress.update(50 * second, 0, {}, None)
    assert [line.split(" · ")[:3] for line in written(console).splitlines()] == [
        ["1,500 steps", "25%", "ETA 0:01:30"],
        ["3,000 steps", "50%", "ETA 0:01:00"],
        ["4,500 steps", "75%", "ETA 0:00:30"],
        ["6,000 steps", "100%", "took 0:02:00"],
        ["6,050 steps", "100%", "took 0:02:01"],
    ]


def test_what_keeps_busy_is_said_while_it_lasts() -> None:
    log, terminal = log_console(), terminal_console()
    with busy(log, "filming [a] dream"):
        assert written(log) == "filming [a] dream\n"
    with busy(terminal, "filming [a] dream"):
        assert draw(written(terminal))[-1].endswith("filming [a] dream 0:00:00")
    assert draw(written(terminal)) == ["filming [a] dream: took 0:00:00"]
