"""`rlweights play`: recordings of every state, and what is said where there can be none."""

import subprocess

import numpy as np
import pytest
from PIL import Image

from rlweights.running.trained import TrainedAgent
from support.commandline import refused


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
