"""Episodes in the rendered environment, and films of them."""

import importlib.util
import io
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from rlweights.errors import ConfigError
from rlweights.running.config.messages import first_line, missing
from rlweights.weights.arrays import Array

KINDS = (".gif", ".mp4")
"""Suffixes of the files that `write` can write."""

LARGEST = 320
"""Largest width and height of a film's frames: what TensorBoard shows, and an event file should hold."""


@dataclass(frozen=True)
class Film:
    """Frames [H, W, 3] uint8 of one episode, frames per second, and its return."""

    frames: list[Array]
    fps: float
    total_return: float


def play(env: gym.Env, act: Callable[[Any], Any], seed: int, look: Callable[[], Any]) -> float:
    """Plays one episode and returns its return; calls `look` at every state, the last one included."""
    observation, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        look()
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total += float(reward)
        ended = terminated or truncated
    look()
    return total


def film(env: gym.Env, act: Callable[[Any], Any], seed: int, frames: int) -> Film:
    """Films one episode of an environment that renders into frames.

    Args:
        env: Made with `render_mode="rgb_array"`; it is not closed.
        act: From an observation to an action.
        seed: Seed of the episode.
        frames: Largest number of frames, 2 or more. A longer episode keeps its speed with fewer frames per
            second: every second one, every fourth one, ..., and its last one.
    """
    kept: list[Array] = []
    state, every = 0, 1

    def look() -> None:
        nonlocal state, every
        if state % every == 0:
            if len(kept) >= frames - 1:
                del kept[1::2]
                every *= 2
            if state % every == 0:
                kept.append(_frame(env))
        state += 1

    total = play(env, act, seed, look)
    if (state - 1) % every:
        kept.append(_frame(env))  # how it ended
    return Film(kept, float(env.metadata.get("render_fps", 30)) / every, total)


def _frame(env: gym.Env) -> Array:
    """The present picture of the environment, thinned out to at most LARGEST in width and height."""
    frame = np.asarray(env.render())
    if frame.ndim != 3 or frame.shape[-1] != 3:
        raise ValueError(f"render() returned shape {frame.shape} and no picture")
    every = math.ceil(max(frame.shape[:2]) / LARGEST)
    return np.ascontiguousarray(frame[::every, ::every], np.uint8)


def check_writable(path: Path) -> None:
    """Makes sure that `write` can write such a file, before an episode is played for it.

    Raises:
        ConfigError: If it cannot, or needs the extra `video`.
    """
    if path.suffix not in KINDS:
        raise ConfigError(f"--record {path}: takes a file that ends in .gif or .mp4")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ConfigError(f"--record {path}: {missing('imageio-ffmpeg', 'video')}, or record a .gif")


def write(path: Path, frames: Sequence[Array], fps: float) -> None:
    """Writes frames [H, W, 3] uint8 as a film; the suffix of the file decides its kind.

    Raises:
        ConfigError: See `check_writable`; or if the file cannot be written.
    """
    check_writable(path)
    try:
        with path.open("wb"):  # ffmpeg would explain the same in many lines
            pass
        if path.suffix == ".gif":
            path.write_bytes(gif(frames, fps))
        else:
            _mp4(path, frames, fps)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ConfigError(f"--record {path}: cannot be written: {reason}") from None


def _mp4(path: Path, frames: Sequence[Array], fps: float) -> None:
    """H.264 in the colors that every player knows, which take even sizes: an odd last line is left out."""
    import imageio_ffmpeg  # pyright: ignore[reportMissingImports]

    height, width = (size // 2 * 2 for size in frames[0].shape[:2])
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    wanted = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *given, *wanted],
        input=b"".join(np.ascontiguousarray(f[:height, :width], np.uint8).tobytes() for f in frames),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise OSError(done.stderr.decode(errors="replace"))


def gif(frames: Sequence[Array], fps: float = 30.0) -> bytes:
    """Returns frames [H, W, 3] uint8 as one animated GIF that repeats forever.

    All frames share the colors of four of them: a palette for each costs fifteen times as long. A frame is
    shown for half a second at most, and the film takes ten minutes at most, whatever `fps` says.
    """
    some = np.concatenate(frames[:: max(1, len(frames) // 4)])
    palette = Image.fromarray(some).quantize(256, dither=Image.Dither.NONE)
    first, *rest = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    buffer = io.BytesIO()
    # Milliseconds. Browsers slow down what is faster than 50 frames a second; and frames that are alike
    # become one, whose time must fit into 16 bits of hundredths of a second.
    duration = max(20, round(min(1_000 / fps, 500, 600_000 / len(frames))))
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    return buffer.getvalue()
