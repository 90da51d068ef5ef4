"""Fuzz of agent files and command lines: each ends in a valid configuration or in an error of one line.

    python benchmarks/fuzz.py [--cases 20000] [--seed 0] [--builds 200]

Shipped agents are changed at random: keys, types, values, whole tables, lines and bytes of the file; `--set`
strings and whole command lines are made up. A case fails if anything but a `ConfigError` comes out, if its
message is longer than a line, or if a valid configuration is another one after it was written and read. Some
of the valid ones are built as well, if they are small: environments, networks, rules and optimizer.

Prints what was counted, and for each failure the number that repeats it: --only NUMBER.
"""

import argparse
import contextlib
import datetime
import random
import string
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from rlweights.backend import configure

configure()

import tomlkit
from typer.testing import CliRunner

from rlweights import train
from rlweights.errors import (
    ConfigError,
    guarded,
)
from rlweights.experiments import seeds
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.config.schema import Agent
from rlweights.running.recipe import Recipe
from rlweights.running.trainer import Outcome

SHIPPED = {name: path.read_text(encoding="utf-8") for name, path in agent_file.shipped().items()}

KEYS = sorted(
    {key for name in SHIPPED for key in agent_file.load(agent_file.find(name)).model_dump(by_alias=True)}
    | {"id", "backend", "num_envs", "kwargs", "wrappers", "vectorization_mode", "normalize_rewards"}
    | {"name", "gamma", "learning_rate", "n_steps", "batch_size", "n_epochs", "max_grad_norm", "clip_range"}
    | {"ent_coef", "hidden_sizes", "value_hidden_sizes", "activation", "shared", "epsilon", "beta_1"}
    | {"rule", "on", "placement", "bound", "stddev", "target", "unit", "rate", "decay", "units", "every"}
    | {"total_timesteps", "mean_reward", "patience", "keep", "from", "to", "feedback", "schedule", "0", "x"}
)
"""Keys that mean something somewhere, and two that do not."""

WORDS = [
    *("", "none", "x", "0.9", "ppo", "a2c", "reinforce", "adam", "sgd", "relu", "tanh", "tensorflow", "sync"),
    *("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "Chain", "cartpole", "ALE/Pong-v5", "a:B-v0", "a.py:B"),
    *(
        "clipping",
        "noise",
        "adaptive_noise",
        "recycling",
        "averaging",
        "shrinkage",
        "projection",
        "increment",
    ),
    *(
        "kind('kernel')",
        "path('(')",
        "depth(7)",
        "layers(3)",
        ".*",
        "policy/.*",
        "fan_in",
        "init",
        "max_norm",
    ),
    *(
        "after_step",
        "during_iteration",
        "after_iteration",
        "ExponentialDecay",
        "TimeLimit",
        "a\nb",
        "\x1b[2J",
    ),
    *("\u2028", "\0", "\ud800", "ß", "🎲", "../..", "a" * 300),
]

NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    8,
    64,
    256,
    2**31 - 1,
    2**31,
    2**63 - 1,
    2**63,
    10**30,
    0.0,
    -0.0,
    0.5,
    1.0,
    1e-3,
    3.0,
]
NUMBERS += [1e300, -1e300, float("inf"), float("-inf"), float("nan"), True, False]

OFTEN_ONE = [1, 1, 1, 2, 3]
"""How many things are wrong at once."""


@dataclass
class Case:
    """One thing to try: the bytes of an agent file with `--set` strings, or a command line."""

    file: bytes = b""
    overrides: Sequence[str] = ()
    command: Sequence[str] | None = None


def cases(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[tuple[int, Case]]:
    """Yields cases; each depends on the seed and its number alone."""
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        text = SHIPPED[rng.choice(sorted(SHIPPED))]
        match number % 4:
            case 0:
                yield number, Case(_restructured(rng, text).encode("utf-8", "surrogatepass"))
            case 1:
                yield number, Case(_damaged(rng, text.encode()))
            case 2:
                yield number, Case(text.encode(), [_override(rng) for _ in range(rng.choice(OFTEN_ONE))])
            case _:
                (folder / "fuzzed.toml").write_bytes(_damaged(rng, text.encode()))
                yield number, Case(command=_command(rng, str(folder / "fuzzed.toml")))


# Making things up ---------------------------------------------------------------------------------


def _restructured(rng: random.Random, text: str) -> str:
    """A file of which some keys, values or tables are others; still TOML."""
    data: Any = tomllib.loads(text)
    for _ in range(rng.choice(OFTEN_ONE)):
        tables = list(_tables(data))
        table = rng.choice(tables)
        key = rng.choice(list(table) or KEYS)
        match rng.randrange(6):
            case 0 | 1:
                table[key] = _value(rng)
            case 2:
                table.pop(key, None)
            case 3 if key in table:
                table[_misspelt(rng, key)] = table.pop(key)
            case 4:
                table[rng.choice(KEYS)] = _value(rng)
            case _:
                table[rng.choice(KEYS)] = rng.choice(tables).copy()
    with contextlib.suppress(RecursionError):  # a table may have been put into itself
        return tomlkit.dumps(data)
    return text


def _tables(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list) and depth < 4:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tables(each, depth + 1)


def _damaged(rng: random.Random, text: bytes) -> bytes:
    """A file that was cut, or in which bytes or lines are others."""
    for _ in range(rng.choice(OFTEN_ONE)):
        place = rng.randrange(len(text) + 1)
        match rng.randrange(7):
            case 0:
                text = text[:place]
            case 1:
                text = text[:place] + bytes([rng.randrange(256)]) + text[place + 1 :]
            case 2:
                text = text[:place] + rng.randbytes(rng.randint(1, 4)) + text[place:]
            case 3:
                text = text[:place] + text[place + rng.randint(1, 20) :]
            case 4:
                lines = text.splitlines(keepends=True)
                rng.shuffle(lines)
                text = b"".join(lines)
            case 5:
                lines = text.splitlines(keepends=True)
                text = b"".join([*lines, *rng.sample(lines, min(3, len(lines)))])
            case _:
                number = rng.choice(
                    [b"1e999", b"9" * 5000, b"0x", b"nan", b"-1", b"[" * 3000, b"'", b"{}", b'"\\u0000"']
                )
                text = text[:place] + number + text[place:]
    return text


def _value(rng: random.Random, depth: int = 0) -> Any:
    match rng.randrange(8 if depth < 3 else 5):
        case 0 | 1:
            return rng.choice(NUMBERS)
        case 2:
            return rng.choice(WORDS)
        case 3:
            return rng.choice(
                [datetime.date(1979, 5, 27), datetime.time(7, 32), rng.random(), rng.randrange(300)]
            )
        case 4:
            return "".join(rng.choices(string.printable, k=rng.randrange(12)))
        case 5:
            return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case 6:
            return {rng.choice(KEYS): _value(rng, depth + 1) for _ in range(rng.randrange(3))}
        case _:
            ends = {"from": rng.choice(NUMBERS), "to": rng.choice(NUMBERS)}
            feedback = {"feedback": rng.choice(WORDS), "initial": _value(rng, 3)}
            schedule = {"schedule": "CosineDecay", "initial_learning_rate": _value(rng, 3), "decay_steps": 9}
            return rng.choice([ends, feedback, schedule])


def _misspelt(rng: random.Random, word: str) -> str:
    place = rng.randrange(len(word) + 1)
    return rng.choice(
        [word[:place] + word[place + 1 :], word[:place] + rng.choice(string.printable) + word[place:]]
    )


def _override(rng: random.Random) -> str:
    """A `--set` string."""
    key = ".".join(rng.choices(KEYS, k=rng.choice([1, 2, 2, 2, 3, 3, 4])))
    if rng.random() < 0.5:
        section, rest = rng.choice(_DOTTED)
        key = f"{section}.{rest}"
    if rng.random() < 0.15:
        key = _misspelt(rng, key)
    value = rng.choice(WORDS) if rng.random() < 0.2 else _literal(_value(rng))
    return key + rng.choice(["=", "=", "=", "=", "=", "=", " = ", "", "=="]) + value


_DOTTED = [
    (section, key)
    for section, table in agent_file.load(agent_file.find("cartpole")).model_dump(by_alias=True).items()
    if isinstance(table, dict)
    for key in table
] + [("interventions", f"{rule}.{key}") for rule in ("clipping", "1", "adaptive_noise") for key in KEYS]


def _literal(value: Any) -> str:
    """A value as TOML, or what Python would write where that fails."""
    with contextlib.suppress(Exception):
        return tomlkit.item(value).as_string()
    return repr(value)


def _command(rng: random.Random, file: str) -> list[str]:
    """The arguments of `python -m rlweights.train`."""
    plain = [word for word in WORDS if "\ud800" not in word]
    words = [rng.choice([file, file, *SHIPPED, *plain])] if rng.random() < 0.8 else []
    for _ in range(rng.randrange(4)):
        number = str(rng.choice(NUMBERS))
        words += rng.choice(
            [
                ["--set", _override(rng)],
                ["--set", _override(rng)],
                ["--env", rng.choice([*plain, "CartPole-v1"])],
                ["--algo", rng.choice(["ppo", "a2c", "reinforce", *plain])],
                ["--seed", number],
                ["-n", number],
                ["--seeds", rng.choice(["1", "2", number])],
                ["--resume", rng.choice(plain)],
                ["--quiet"],
                [rng.choice(["--set", "--env", "-n", "--", "-", "--sed", "--help"])],
            ]
        )
    return words


# Trying -------------------------------------------------------------------------------------------


class Fuzz:
    """Tries cases and counts how they end.

    Args:
        folder: Where files may be written.
        builds: How many of the valid configurations to build.
    """

    def __init__(self, folder: Path, builds: int = 0):
        self.folder = folder
        self.builds = builds
        self.counts: Counter[str] = Counter()
        self.failures: list[tuple[int, str]] = []

    def run(self, seed: int, numbers: Sequence[int]) -> None:
        """Tries the cases of these numbers."""
        for number, case in cases(seed, numbers, self.folder):
            try:
                self.counts[self._end(case)] += 1
            except Exception:
                self.failures.append((number, traceback.format_exc()))

    def _end(self, case: Case) -> str:
        if case.command is not None:
            return self._command(case.command)
        path = self.folder / "fuzzed.toml"
        path.write_bytes(case.file)
        try:
            agent = agent_file.load(path, case.overrides)
        except ConfigError as error:
            _check_line(str(error))
            return "refused"
        again = agent_file.parse(tomllib.loads(agent.to_toml()), "what was written")
        assert again == agent, agent.to_toml()
        return self._built(agent) or "valid"

    def _built(self, agent: Agent) -> str:
        sizes = [
            agent.environment.num_envs,
            *agent.network.hidden_sizes,
            *(agent.network.value_hidden_sizes or []),
        ]
        if self.counts["built"] + self.counts["not built"] >= self.builds or max(sizes) > 256:
            return ""
        try:
            Assembly(agent, "fuzzed.toml", self.folder)
        except ConfigError as error:
            _check_line(str(error))
            return "not built"
        return "built"

    def _command(self, words: Sequence[str]) -> str:
        """Runs a command line up to the point where its configuration is known."""

        def until_configured(agent: str | None, env: str | None, overrides: Sequence[str], *_: Any) -> int:
            return guarded(lambda: 0 if Recipe(agent, overrides, env=env) else 1)

        configured = Outcome(Path(), None, 0, 0.0)

        with (
            mock.patch.object(Recipe, "begin", return_value=configured),
            mock.patch.object(seeds, "train_seeds", until_configured),
            mock.patch.object(train, "configure"),
        ):
            result = CliRunner().invoke(train.app, list(words))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code in (0, 2), (words, result.exit_code, result.output)
        if result.exit_code == 0:
            assert not result.stderr, result.stderr
            return "command valid"
        if result.stderr.startswith(("Usage", "╭─ Error")):  # typer's own words about its own options
            return "command misused"
        assert result.stderr.startswith("error: "), result.stderr
        _check_line(result.stderr[:-1])
        return "command refused"


def _check_line(text: str) -> None:
    assert len(f"{text}.".splitlines()) == 1, repr(text)


def main() -> int:
    """Runs the fuzz and returns 1 if a case failed."""
    parser = argparse.ArgumentParser(description="Fuzz agent files and command lines.")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--only", type=int, help="the number of one case")
    options = parser.parse_args()
    numbers = range(options.cases) if options.only is None else [options.only]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), options.builds)
        fuzz.run(options.seed, numbers)
    for number, text in fuzz.failures[:20]:
        print(f"--only {number}\n{text}")
    counts = ", ".join(f"{count} {what}" for what, count in sorted(fuzz.counts.items()))
    print(
        f"{len(numbers)} cases in {time.monotonic() - started:.0f} s: {counts}, {len(fuzz.failures)} failures"
    )
    return 1 if fuzz.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
