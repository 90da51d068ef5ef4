"""Two ways to run iterations, one interface: Python steps Gymnasium, or one program does everything."""

import contextlib
import time
from typing import Any, Protocol

import numpy as np

from rlweights.assembly import Assembly
from rlweights.compiled import ROWS, GraphPrograms, HostPrograms
from rlweights.inspection import PROBE_SIZE
from rlweights.interrupts import shielded
from rlweights.rollout import Episodes, Rollout

Row = tuple[dict[str, float], Episodes]

SECONDS_PER_CALL = 0.5
"""About how long the whole-loop program runs before Python gets to show something."""


class Loop(Protocol):
    """Runs iterations of rollout and update."""

    variables: list[Any]
    """State beyond the learner's that a checkpoint must hold."""

    exact: bool
    """Whether what follows depends on the variables alone, without a boundary: any iteration may be saved."""

    def boundary(self, iteration: int, attempt: int) -> None:
        """Makes what follows depend on nothing but the variables, (iteration, attempt) and the seed."""
        ...

    def advance(self, iteration: int, limit: int) -> list[Row]:
        """Runs at least one and at most `limit` iterations; returns scalars and episodes of each."""
        ...

    def probe(self) -> np.ndarray:
        """Returns a batch of encoded observations [B, ...] to measure hidden units on."""
        ...

    @property
    def probe_spec(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of the probe."""
        ...

    def close(self) -> None:
        """Releases what the loop holds."""
        ...


class HostLoop:
    """Iterations in Gymnasium vector environments."""

    exact = False

    def __init__(self, assembly: Assembly):
        agent = assembly.agent
        self.variables: list[Any] = []
        with shielded() if agent.environment.vectorization_mode == "async" else contextlib.nullcontext():
            self.envs = assembly.make_envs(agent.environment.num_envs)
        self.rollout = Rollout(self.envs, assembly.distribution, agent.algorithm.n_steps, agent.seed)
        self.programs = HostPrograms(
            assembly.learner,
            assembly.encoder.shape,
            assembly.encoder.dtype,
            agent.environment.num_envs,
            xla=not assembly.encoder.is_image,  # networks of convolutions take XLA many times as long
        )
        self._encoder = assembly.encoder
        self._reward_scaling = assembly.learner.reward_scaling
        self._rollout_size = agent.steps_per_iteration
        self._observations: np.ndarray | None = None

    def boundary(self, iteration: int, attempt: int) -> None:
        """Resets the environments, whose state nobody can save, with seeds of (seed, iteration, attempt)."""
        self.rollout.reset(iteration, attempt)
        if self._reward_scaling is not None:
            returns = self._reward_scaling.returns
            returns.assign(np.zeros(returns.shape))  # those of the episodes that have just been cut

    def advance(self, iteration: int, limit: int) -> list[Row]:
        """Runs one iteration."""
        self.programs.begin()
        batch, episodes = self.rollout.collect(self.programs.policy, self.programs.value, iteration)
        self._observations = batch.observations
        return [(self.programs.learn(batch), episodes)]

    def probe(self) -> np.ndarray:
        """Returns the observations of the newest rollout, with zeros for what is not finite."""
        assert self._observations is not None
        probe = self._observations.reshape(-1, *self._observations.shape[2:])[:PROBE_SIZE]
        return np.nan_to_num(probe, nan=0.0, posinf=0.0, neginf=0.0)

    @property
    def probe_spec(self) -> tuple[tuple[int, ...], str]:
        """One rollout's observations, at most PROBE_SIZE."""
        return (min(PROBE_SIZE, self._rollout_size), *self._encoder.shape), self._encoder.dtype

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()


class GraphLoop:
    """Iterations in environments that are TensorFlow functions, many in one call."""

    exact = True

    def __init__(self, assembly: Assembly):
        agent = assembly.agent
        self.programs = GraphPrograms(
            assembly.learner, assembly.environment, agent.environment.num_envs, agent.seed
        )
        self.variables = self.programs.variables
        self._encoder = assembly.encoder
        self._seed = agent.seed
        self._count = 1

    def boundary(self, iteration: int, attempt: int) -> None:
        """Only another attempt needs another seed: the environments' state is among the variables."""
        self.programs.seed.assign(self._seed + 7_919 * attempt)

    def advance(self, iteration: int, limit: int) -> list[Row]:
        """Runs as many iterations as take about SECONDS_PER_CALL."""
        count = min(limit, self._count)
        started = time.monotonic()
        rows = self.programs.iterate(count)
        elapsed = max(time.monotonic() - started, 1e-6)
        self._count = int(min(ROWS, max(1, self._count * 2), max(1, count * SECONDS_PER_CALL / elapsed)))
        return [(scalars, Episodes(*(_taken(scalars, name) for name in _EPISODES))) for scalars in rows]

    def probe(self) -> np.ndarray:
        """Returns observations after some random actions in as many environments of their own."""
        return self.programs.probe(PROBE_SIZE)

    @property
    def probe_spec(self) -> tuple[tuple[int, ...], str]:
        """PROBE_SIZE observations."""
        return (PROBE_SIZE, *self._encoder.shape), self._encoder.dtype

    def close(self) -> None:
        """Holds nothing that needs closing."""


_EPISODES = ("count", "total_return", "total_length")


def _taken(scalars: dict[str, float], name: str) -> Any:
    value = scalars.pop(f"episodes/{name}")
    return value if name == "total_return" else int(value)


def loop_of(assembly: Assembly) -> Loop:
    """Returns the loop of an agent's backend."""
    return GraphLoop(assembly) if assembly.environment is not None else HostLoop(assembly)
