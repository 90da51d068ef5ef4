"""The commands: what they print, what they write, and what they say to the shell."""

import functools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.util import tensor_util

from rlweights import cli, compare, evaluate, export, play, train
from rlweights.running.config import agent_file
from rlweights.running.records.event_file import read_scalars
from rlweights.running.records.records import Records
from rlweights.running.trained import TrainedAgent
from support.commandline import invoke
from support.smallruns import EPISODES, small_run


@pytest.fixture(scope="module")
def run():
    return small_run()


@pytest.fixture
def rlweights(monkeypatch):
    """Runs the `rlweights` script; returns exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "200")
    return functools.partial(invoke, cli.app)


def refused(outcome) -> str:
    """The one line that a command says before it gives up; nothing else."""
    code, output, error = outcome
    assert code == 2
    assert output == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_evaluate_says_what_the_run_said(rlweights, run):
    code, output, error = rlweights(
        "evaluate", run, "--episodes", EPISODES, "--seed", 10_000, "--weights", "latest"
    )
    assert (code, error) == (0, "")
    facts = {line[:13].strip(): line[14:] for line in output.splitlines()}
    assert list(facts) == ["mean return", "95 % interval", "mean length", "weights"]
    recorded = read_scalars(run)["eval/mean_reward"][-1][1]
    assert facts["mean return"].startswith(f"{recorded:.2f} +- ")
    assert facts["weights"] == str(run / "latest" / "weights.safetensors")


def test_an_evaluation_ends_where_episodes_need_not(rlweights, tmp_path):
    """CliffWalking has no time limit, and few greedy policies get out of it."""
    keys = {"budget.total_timesteps": 2_048, "evaluation.max_episode_steps": 30, "evaluation.film_frames": 9}
    sets = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    code, output, error = rlweights("train", "--env", "CliffWalking-v1", "--runs", tmp_path, *sets)
    assert (code, error) == (0, "")
    assert "evaluation: 100 of 100 episodes cut off after 30 steps" in output
    (run,) = tmp_path.glob("*/*")
    assert read_scalars(run)["eval/mean_ep_length"][-1][1] == 30.0
    _, output, _ = rlweights("evaluate", run, "--episodes", 3)
    assert "incomplete    3 of 3 episodes cut off after 30 steps: evaluation.max_episode_steps" in output


def test_evaluate_as_json_is_json_and_consistent(rlweights, run):
    code, output, error = rlweights("evaluate", run, "--episodes", 6, "--json")
    assert (code, error) == (0, "")
    facts = json.loads(output)
    returns = np.array(facts["returns"])
    assert len(returns) == facts["episodes"] == 6
    assert facts["mean_reward"] == returns.mean() == facts["mean_ep_length"]  # 1 a step
    assert facts["std_reward"] == returns.std()
    low, high = facts["interval_95"]
    assert returns.min() <= low <= facts["mean_reward"] <= high <= returns.max()
    assert json.loads(rlweights("evaluate", run, "--episodes", 6, "--json")[1]) == facts


def test_evaluate_can_sample_actions_and_take_another_seed(rlweights, run):
    def returns(*options):
        return json.loads(rlweights("evaluate", run, "--episodes", 6, "--json", *options)[1])["returns"]

    assert returns() != returns("--stochastic")
    assert returns() != returns("--seed", 1)


def test_play_records_every_state(rlweights, run, tmp_path):
    target = tmp_path / "cartpole.gif"
    code, output, error = rlweights("play", run, "--record", target, "--episodes", 1, "--seed", 3)
    assert (code, error) == (0, "")
    frames, returns, fps = TrainedAgent(run).frames(1, seed=3)
    assert output.splitlines() == [
        f"wrote {target}: {len(frames)} frames",
        f"episode 0: return {returns[0]:.2f}",
    ]
    with Image.open(target) as image:
        assert image.size == (600, 400)
        assert image.info["loop"] == 0
        durations = []
        for frame in range(image.n_frames):
            image.seek(frame)
            durations.append(image.info["duration"])
        last = np.asarray(image.convert("RGB"), int)
    assert sum(durations) == len(frames) * 1000 / fps  # frames without a change are one that lasts longer
    assert len(frames) == returns[0] + 1
    near, far = (np.abs(last - frames[i]).mean() for i in (-1, 0))
    assert near < 5.0  # a GIF has 256 colours
    assert near < far


def test_play_records_a_video(rlweights, run, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs rlweights[video]")
    target = tmp_path / "cartpole.mp4"
    code, output, error = rlweights("play", run, "--record", target, "--seed", 3)
    assert (code, error) == (0, "")
    frames, _, fps = TrainedAgent(run).frames(1, seed=3)
    assert output.startswith(f"wrote {target}: {len(frames)} frames\n")
    command = [ffmpeg.get_ffmpeg_exe(), "-i", target, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = subprocess.run(command, capture_output=True, check=True)
    assert f", {fps:g} fps," in read.stderr.decode()
    shown = np.frombuffer(read.stdout, np.uint8).reshape(-1, 400, 600, 3)
    assert len(shown) == len(frames)
    last = shown[-1].astype(int)
    near, far = (np.abs(last - frames[i]).mean() for i in (-1, 0))
    assert near < 5.0
    assert near < far


@pytest.mark.parametrize("name", ["film.avi", "film"])
def test_play_refuses_other_files_before_it_plays(rlweights, run, tmp_path, name):
    error = refused(rlweights("play", run, "--record", tmp_path / name))
    assert "takes a file that ends in .gif or .mp4" in error


def test_play_names_the_extra_that_a_video_needs(rlweights, run, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    error = refused(rlweights("play", run, "--record", tmp_path / "film.mp4"))
    assert "pip install 'rlweights[video]', or record a .gif" in error


def test_play_says_why_a_file_cannot_be_written(rlweights, run, tmp_path):
    error = refused(rlweights("play", run, "--record", tmp_path / "nowhere" / "film.gif"))
    assert error.endswith("cannot be written: No such file or directory\n")


def test_export_writes_and_says_so(rlweights, run, tmp_path):
    target = tmp_path / "policy.tflite"
    code, output, error = rlweights("export", run, target)
    assert (code, error) == (0, "")
    assert output == f"wrote {target}: acts as {run / 'best' / 'weights.safetensors'} does\n"
    assert target.read_bytes()[4:8] == b"TFL3"
    assert "exists already" in refused(rlweights("export", run, target))


@pytest.fixture
def groups(run, tmp_path):
    """Two seeds of one agent and one of another: copies of one run."""
    names = ("first/0", "first/1", "second/0")
    return [shutil.copytree(run, tmp_path / name) for name in names]


def test_compare_is_a_table_of_interquartile_means(rlweights, groups):
    code, output, error = rlweights("compare", *groups, "--points", 4)
    assert (code, error) == (0, "")
    title, heading, *rows = output.splitlines()
    assert title.startswith("rollout/ep_rew_mean: interquartile mean over seeds")
    assert heading.split() == ["steps", "first", "(2", "seeds)", "second", "(1", "seed)"]
    assert len(rows) == 4
    series = read_scalars(groups[0])["rollout/ep_rew_mean"]
    for row, (step, value) in zip(rows, series, strict=True):
        cell = f"{value:.1f} [{value:.1f}, {value:.1f}]"
        assert row.split("  ")[-1].strip() == cell
        assert row.count(cell) == 2
        assert row.split()[0] == f"{step:,}"


def test_compare_takes_any_tag_and_names_those_there_are(rlweights, groups):
    code, output, _ = rlweights("compare", *groups, "--tag", "train/approx_kl", "--points", 2)
    assert code == 0
    assert output.startswith("train/approx_kl")
    error = refused(rlweights("compare", *groups, "--tag", "train/kl"))
    assert "holds no 'train/kl'" in error
    assert "train/approx_kl" in error


def test_compare_draws_the_curves(rlweights, groups, tmp_path):
    pytest.importorskip("matplotlib", reason="needs rlweights[plot]")
    picture = tmp_path / "curves.svg"
    code, output, error = rlweights("compare", *groups, "--plot", picture)
    assert (code, error) == (0, "")
    assert output.endswith(f"wrote {picture}\n")
    drawn = picture.read_text()
    for text in ("first (2 seeds)", "second (1 seed)", "rollout/ep_rew_mean", "environment steps"):
        assert f"<!-- {text}" in drawn
    assert drawn.count('id="FillBetween') == 2


def test_compare_refuses_pictures_before_it_reads(rlweights, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="needs rlweights[plot]")
    error = refused(rlweights("compare", tmp_path, "--plot", tmp_path / "curves.txt"))
    assert "takes a file that ends in one of" in error
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = refused(rlweights("compare", tmp_path, "--plot", tmp_path / "curves.png"))
    assert error.endswith("matplotlib is not installed; pip install 'rlweights[plot]'\n")


def test_compare_refuses_runs_without_common_steps(rlweights, tmp_path):
    for name, steps in [("early", (1, 2)), ("late", (3, 4))]:
        (folder := tmp_path / name / "0").mkdir(parents=True)
        with Records(folder) as records:
            for step in steps:
                records.write(step, {"rollout/ep_rew_mean": 1.0})
    error = refused(rlweights("compare", *tmp_path.glob("*/0")))
    assert "one run begins at step 3, another ends at step 2" in error


def test_compare_writes_margin_charts_for_tensorboard(rlweights, groups, tmp_path):
    code, output, error = rlweights("compare", *groups, "--board", tmp_path / "board")
    assert (code, error) == (0, "")
    assert f"wrote {tmp_path / 'board'}" in output
    recorded = read_scalars(groups[0])["rollout/ep_rew_mean"]
    for name in ("first", "second"):
        series = read_scalars(tmp_path / "board" / name)
        assert set(series) == {"seeds/ep_rew_mean", "seeds/ep_rew_mean_lower", "seeds/ep_rew_mean_upper"}
        for points in series.values():
            assert len(points) == 200
            assert points[0] == pytest.approx(recorded[0])
            assert points[-1] == pytest.approx(recorded[-1])
        events = EventAccumulator(str(tmp_path / "board" / name)).Reload()
        (event,) = events.Tensors(custom_scalar_metadata.CONFIG_SUMMARY_TAG)
        layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())
        ((chart,),) = [category.chart for category in layout.category]
        (shown,) = chart.margin.series
        assert {shown.value, shown.lower, shown.upper} == set(series)
    code, _, error = rlweights("compare", *groups, "--board", tmp_path / "board")
    assert code == 2
    assert error.startswith("error: --board")
    assert "holds records already" in error


def test_agents_lists_every_shipped_agent(rlweights):
    code, output, error = rlweights("agents")
    assert (code, error) == (0, "")
    heading, *rows = output.splitlines()
    assert heading.split() == ["agent", "environment", "algorithm", "rules", "expected"]
    assert [row.split()[0] for row in rows] == list(agent_file.shipped())
    (row,) = [row for row in rows if row.startswith("cartpole ")]
    assert row.split() == ["cartpole", "CartPole-v1", "ppo", "clipping,", "adaptive_noise", "475"]
    assert "(xla)" in next(row for row in rows if row.startswith("cartpole_xla"))


@pytest.mark.parametrize("command", ["evaluate", "play", "export", "compare"])
def test_no_run_is_one_line_and_code_2(rlweights, tmp_path, command):
    more = [tmp_path / "policy.keras"] if command == "export" else []
    assert "no run folder" in refused(rlweights(command, tmp_path / "nowhere", *more))


@pytest.mark.parametrize("command", ["evaluate", "play"])
def test_damaged_weights_are_one_line_and_code_3(rlweights, run, tmp_path, command):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "best" / "weights.safetensors").write_bytes(b"\0" * 100)
    code, output, error = rlweights(command, copied, *(["--record", "x.gif"] if command == "play" else []))
    assert (code, output, error.count("\n")) == (3, "", 1)


def test_the_script_trains(rlweights, tmp_path):
    code, output, error = rlweights(
        "train", "cartpole_plain", "-n", 256, "--runs", tmp_path, "--quiet", "--seed", 7,
        "--set", "evaluation.final_episodes=2", "--set", "network.hidden_sizes=[4]",
    )  # fmt: skip
    assert (code, error) == (0, "")
    (folder,) = tmp_path.glob("cartpole_plain/7-*")
    facts = dict(line.split(None, 1) for line in output.splitlines())
    assert list(facts) == ["reached", "expected", "time", "run", "watch"]
    assert facts["run"] == str(folder)
    assert facts["watch"] == f"tensorboard --logdir {tmp_path}"


def test_the_script_trains_nothing_that_does_not_exist(rlweights, tmp_path):
    error = refused(rlweights("train", "cartpol", "--runs", tmp_path / "runs"))
    assert "Did you mean 'cartpole'?" in error
    assert not (tmp_path / "runs").exists()


def test_wrong_options_are_code_2(rlweights, run):
    for arguments in (["evaluate"], ["evaluate", run, "--episodes", "0"], ["train", "--seeds", "0"], ["fly"]):
        assert rlweights(*arguments)[0] == 2


def test_the_script_knows_every_command(rlweights):
    code, output, _ = rlweights("--help")
    assert code == 0
    for command in ("train", "evaluate", "play", "export", "compare", "agents"):
        assert f" {command} " in output


@pytest.mark.parametrize("module", [train, evaluate, play, export, compare])
def test_each_module_has_its_own_main(module):
    assert callable(module.main)


def test_help_is_readable_on_a_narrow_terminal_and_needs_no_tensorflow():
    script = "import sys; sys.argv[1:] = ['--help']; from rlweights import train\n"
    script += "try: train.main()\nexcept SystemExit as end: assert not end.code\n"
    script += "assert 'tensorflow' not in sys.modules"
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    words = done.stdout.split()
    for option in ("env", "algo", "seed", "seeds", "set", "resume", "runs", "quiet", "watch"):
        assert f"--{option}" in words
    assert "PPO with weight clipping and adaptive parameter noise on CartPole-v1" in " ".join(words)
