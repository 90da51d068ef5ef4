"""What a person sees: few lines, narrow ones, and nothing that was meant literally is swallowed."""

import io
import os
import re
import subprocess
import sys

import pytest

from rlweights.running.records.console import Console, number

TOTAL = 102_400
SCALARS = {
    "rollout/ep_rew_mean": 123.456,
    "rollout/ep_len_mean": 98.76,
    "train/entropy_loss": -0.654321,
    "train/approx_kl": 0.00012,
    "train/explained_variance": 0.5,
    "intervention/clipping/saturated": 0.0164,
    "intervention/other/saturated": 0.25,
    "intervention/adaptive_noise/stddev": 0.0206,
}
HEADER = ["agent        [red]mine[/red], seed 0", "run          runs/mine[1]"]


def shown(quiet: bool = False, rows: int = 400, **options) -> str:
    """Everything that a run of `rows` rows and five evaluations prints."""
    file = io.StringIO()
    console = Console(TOTAL, quiet=quiet, file=file, **options)
    console.start(HEADER)
    for row in range(1, rows + 1):
        step = TOTAL * row // rows
        console.update(step, SCALARS, 17_395.2)
        if row % (rows // 5) == 0:
            console.update(step, {"eval/mean_reward": 456.78}, None)
    console.message("stopping [now] for [red]a reason[/red]")
    console.summary({"reached": "500.0 +- 0.0 [best]", "run": "runs/mine[1]"})
    console.close()
    return file.getvalue()


TERMINAL = {"force_terminal": True, "width": 80, "color_system": None, "_environ": {}}


def test_plain_lines_have_no_control_characters():
    text = shown()
    assert not re.search(r"[^\x20-\x7e\n]", text)


def test_rows_show_the_columns_with_their_numbers():
    lines = shown().splitlines()
    (heading,) = [line for line in lines if line.split()[:1] == ["steps"]]
    assert heading.split() == [
        "steps",
        "return",
        "length",
        "entropy",
        "kl",
        "expl.var",
        "at",
        "bound",
        "noise",
        "steps/s",
    ]
    row = lines[lines.index(heading) + 1]
    assert row.split() == ["256", "123", "98.8", "0.654", "1.2e-04", "0.500", "0.250", "0.0206", "17,400"]


def test_columns_are_right_below_their_headings():
    lines = shown().splitlines()
    index = next(i for i, line in enumerate(lines) if line.split()[:1] == ["steps"])
    heading, row = lines[index], lines[index + 1]
    assert len(heading) == len(row)
    for name in ("return", "noise", "steps/s"):
        end = heading.index(name) + len(name)
        assert row[end - 1] != " "
        assert row[end : end + 1] in ("", " ")


@pytest.mark.parametrize("rows", [5, 50, 400])
def test_a_run_is_about_thirty_narrow_lines(rows):
    lines = shown(rows=rows).splitlines()
    assert len(lines) <= len(HEADER) + 30 + 5 + 6  # what is about to run; rows; evaluations; what columns are
    assert max(map(len, lines)) <= 80


def test_evaluations_are_shown():
    lines = [line for line in shown().splitlines() if "evaluation: " in line]
    assert len(lines) == 5
    assert lines[-1].split() == ["102,400", "evaluation:", "456.8"]


def table(*updates, total=10**10, infos=(), **options) -> list[str]:
    """The headings and rows that updates print."""
    file = io.StringIO()
    console = Console(total, file=file, infos=infos, **options)
    for step, scalars in updates:
        console.update(step, scalars, None)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()
    return [line for line in lines if re.fullmatch(r" *steps .*|[ \d,.e+-]+", line)]


def test_large_numbers_of_steps_keep_the_columns_straight():
    heading, row = table((10**10, SCALARS))
    assert len(heading) == len(row)


def test_there_is_one_heading_although_some_columns_have_no_values_yet():
    lines = [line.split() for line in table((1, {"train/approx_kl": 0.1}), (10**10, SCALARS | {"x": 1.0}))]
    assert lines[0][:4] == ["steps", "return", "length", "entropy"]
    assert lines[1] == ["1", "-", "-", "-", "0.100", "-", "-"]
    assert [line[0] for line in lines].count("steps") == 2, (
        "rules measure at the first row, not later as here"
    )
    with_rules = {"a/saturated": 0.1, "a/stddev": 0.1}
    assert len(table((1, with_rules), (10**10, SCALARS | with_rules))) == 3


def test_what_a_narrow_terminal_has_no_room_for_is_left_out():
    infos = ("rollout/info/distance", "rollout/info/energy_used")
    told = dict.fromkeys(infos, 1.0) | {"rollout/success_rate": 0.5}
    heading, row = table((10**10, SCALARS | told), infos=infos)
    assert len(heading) == len(row) <= 80
    assert heading.split()[:4] == ["steps", "return", "success", "at"]
    assert heading.split()[-3:] == ["steps/s", "distance", "energy_used"]
    wide = table((10**10, SCALARS | told), infos=infos, force_terminal=True, width=200, _environ={})
    assert wide[0].split()[:4] == ["steps", "return", "length", "success"]


def test_columns_are_explained_once():
    text = shown()
    for part in (
        "at bound: part of the clipped weights",
        "noise: deviation of",
        "[a, b]: 95 %",
        "kl: how far",
    ):
        assert text.count(part) == 1
    assert "success:" not in text


@pytest.mark.parametrize("quiet", [True, False])
def test_who_follows_is_told_of_every_update(quiet):
    told = []
    console = Console(100, quiet=quiet, file=io.StringIO(), follow=lambda *each: told.append(each))
    console.update(10, {"train/approx_kl": 0.1}, None)
    console.update(20, {"rollout/ep_rew_mean": 3.0}, 1234.0)
    assert told == [(10, None, None), (20, 3.0, 1230.0)]


def test_labeled_lines_break_between_words_below_their_text():
    file = io.StringIO()
    console = Console(TOTAL, file=file, **TERMINAL)
    console.start([f"rules        {'clipping (bound 3.0, unit fan_in) on ' * 3}".rstrip()])
    console.summary({"resume": f"python -m rlweights.train --resume {'runs/' * 20}"})
    assert f"--resume {'runs/' * 20}\n" in file.getvalue(), "a command can be copied"
    first, second = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).splitlines()[:2]
    assert first.startswith("rules        clipping")
    assert second.startswith(" " * 13 + "fan_in)")
    assert len(first) <= 80


@pytest.mark.parametrize("quiet", [True, False])
def test_skipped_updates_are_said_but_not_each_time(quiet):
    file = io.StringIO()
    console = Console(2_400_000, file=file, quiet=quiet)
    for step in range(50_000, 150_001, 1_000):
        console.update(step, {"update/skipped": 1.0}, None)
    console.summary({})
    lines = [line.split(maxsplit=1) for line in file.getvalue().splitlines() if "skipped" in line]
    assert lines == [
        ["50,000", "1 update was not finite and skipped"],
        ["150,000", "100 updates were not finite and skipped"],
    ]


def test_skipped_updates_come_with_their_first_reason():
    file = io.StringIO()
    console = Console(100_000, file=file, width=120)
    console.note_reason("the dog ate it")
    console.note_reason("the cat ate it")
    console.update(1_000, {"update/skipped": 2.0}, None)
    console.update(90_000, {"update/skipped": 1.0}, None)
    lines = [line.split(maxsplit=1)[1] for line in file.getvalue().splitlines() if "skipped" in line]
    assert lines == [
        "2 updates were not finite and skipped: the dog ate it",
        "1 update was not finite and skipped",
    ]


def test_what_was_skipped_last_is_said_at_the_end():
    file = io.StringIO()
    console = Console(100_000, file=file, quiet=True)
    console.update(50_000, {"update/skipped": 1.0}, None)
    console.update(51_000, {"update/skipped": 2.0}, None)
    console.summary({"run": "runs/mine"})
    assert "2 updates were not finite and skipped\nrun  " in file.getvalue()


def test_many_evaluations_are_not_all_shown_but_the_last_one_is():
    file = io.StringIO()
    console = Console(1_000_000, file=file)
    for step in (*range(10_000, 995_001, 5_000), 1_000_000):
        interval = {"eval/mean_reward_lower": step - 5.0, "eval/mean_reward_upper": step + 5.0}
        console.update(step, {"eval/mean_reward": step} | interval, None)
    lines = file.getvalue().splitlines()
    assert 10 <= len(lines) <= 14
    assert lines[-1] == " 1,000,000  evaluation: 1000000.0 [999995.0, 1000005.0]"


@pytest.mark.parametrize("options", [{}, TERMINAL])
def test_brackets_are_not_eaten_as_markup(options):
    text = shown(**options)
    for literal in ("[red]mine[/red]", "runs/mine[1]", "[now] for [red]a reason[/red]", "0.0 [best]"):
        assert literal in text


def test_quiet_is_messages_and_summary_only():
    assert shown(quiet=True).splitlines() == [
        "stopping [now] for [red]a reason[/red]",
        "reached      500.0 +- 0.0 [best]",
        "run          runs/mine[1]",
    ]
    assert shown(quiet=True, **TERMINAL) == shown(quiet=True)


def test_a_long_message_stays_one_line():
    file = io.StringIO()
    console = Console(10, file=file, width=40)
    console.message("word " * 30)
    assert len(file.getvalue().splitlines()) == 1


def test_a_terminal_shows_a_bar_that_goes_away():
    file = io.StringIO()
    console = Console(TOTAL, file=file, **TERMINAL)
    console.start(HEADER)
    assert console._progress is not None
    console.doing("evaluating 10 episodes")
    console._progress.refresh()
    assert "evaluating 10 episodes" in file.getvalue().rsplit("\r", 1)[-1]
    console.update(TOTAL // 2, SCALARS, 17_395.2)
    console._progress.refresh()
    frame = file.getvalue().rsplit("\r", 1)[-1]
    for part in ("50%", "51,200/102,400", "return 123", "17,400 steps/s", "0:00:03 left"):
        assert part in frame
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).splitlines()) <= 80
    console.summary({"run": "runs/mine"})
    assert console._progress is None
    ending = file.getvalue()[-200:]
    assert "\x1b[2K" in ending  # the bar's line is erased
    assert "\u2501" not in ending.rpartition("\x1b[2K")[2]  # and not drawn again
    assert "\x1b[?25h" in ending  # and the cursor is back
    assert ending.endswith("run          runs/mine\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.0, "0"),
        (0.00012, "1.2e-04"),
        (-0.00012, "-1.2e-04"),
        (0.001, "0.00100"),
        (0.5, "0.500"),
        (99.96, "100"),
        (0.123456, "0.123"),
        (12.3456, "12.3"),
        (999.4, "999"),
        (999.9, "1,000"),
        (1000.0, "1,000"),
        (-1234567.8, "-1,234,568"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_for_people(value, text):
    assert number(value) == text


def test_a_console_that_goes_away_ends_nothing():
    """As `| head -1` does; rich would end the process by itself, with code 1."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        console = Console(100, file=stream)
        console.start(["agent        x"])
        os.close(reading)
        for step in (10, 50, 100):
            console.update(step, {"rollout/ep_rew_mean": 1.0}, None)
        console.message("said to nobody")
        console.summary({"run": "r"})
        stream.write("what else writes there is lost as well")
        stream.flush()


def test_a_run_without_standard_streams_is_trained(tmp_path):
    words = "--env CartPole-v1 -n 64 --set algorithm.n_steps=8 --set environment.num_envs=8 --set "
    words += "evaluation.final_episodes=0 --set algorithm.batch_size=64 --set algorithm.n_epochs=1"
    command = f"exec {sys.executable} -m rlweights.train {words} >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=tmp_path).returncode == 0
    assert list(tmp_path.glob("runs/*/*/latest/weights.safetensors"))
