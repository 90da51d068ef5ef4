"""An agent that trains: a policy with its rules, its optimizer, its learner, and the loop that runs them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gymnasium import spaces

from rlweights.backend import use_threads
from rlweights.errors import ConfigError
from rlweights.learning.distributions import Gaussian
from rlweights.learning.environments.rescaled import Rescaled
from rlweights.learning.learner import Learner
from rlweights.learning.loops.base import Loop
from rlweights.learning.loops.device import GraphLoop
from rlweights.learning.loops.host import HostLoop
from rlweights.learning.samples import ActionBounds
from rlweights.running.building.keras_objects import inner_optimizer
from rlweights.running.building.policy import Policy
from rlweights.running.building.rules import check_scores, rules_of, try_rules
from rlweights.running.building.threads import threads_for
from rlweights.running.config.schema import Agent
from rlweights.weights.arrays import Array
from rlweights.weights.optimizer import InterventionOptimizer


class Assembly(Policy):
    """All parts of one agent, built from its configuration.

    Args:
        agent: See `Policy`.
        source: See `Policy`.
        folder: See `Policy`.
        start: Weights and normalization to begin with, by path; None: fresh ones. Whatever measures from the
            initial weights (shrinkage towards them, their norm, their reach, averages, the distance in
            TensorBoard) begins at these.
        origin: Where they came from, for errors.
        threads: How many threads an operation is to use; None: as many as its work is worth.

    Attributes:
        threads: How many it uses, see `rlweights.backend.use_threads`.
        rules: The interventions, in their order.
        optimizer: Built on the networks' weights.
        learner: Updates the networks by rollouts.

    Raises:
        ConfigError: See `Policy`; or the weights to begin with do not fit.
    """

    def __init__(
        self,
        agent: Agent,
        source: str,
        folder: Path | None = None,
        start: Mapping[str, Array] | None = None,
        origin: str = "",
        threads: int | None = None,
    ):
        self._wanted_threads = threads
        super().__init__(agent, source, folder)
        if start is not None:  # before the rules look at the weights
            self._begin_with(start, origin)
        self.rules = rules_of(agent, self.files, self.networks)
        self.optimizer = self._optimizer()
        try_rules(agent, self.files, self.rules)
        check_scores(source, self.optimizer, self.networks, self.encoder)
        self.learner = Learner(
            agent.algorithm,
            self.networks,
            self.distribution,
            self.optimizer,
            num_envs=agent.environment.num_envs,
            total_iterations=agent.total_iterations,
            seed=agent.seed,
            normalize_rewards=agent.environment.normalize_rewards,
            action_bounds=self._action_bounds(),
            features=isinstance(self.unmasked.space, spaces.Box) and len(self.unmasked.shape) == 1,
        )

    def _before_networks(self) -> None:
        own_layers = self._model is not None
        wanted = self._wanted_threads or threads_for(self.agent, self.encoder.parts, own_layers)
        self.threads = use_threads(wanted)

    def _action_bounds(self) -> ActionBounds | None:
        """Bounds of continuous actions in the units in which the policy works; None: they have none."""
        if not isinstance(self.distribution, Gaussian):
            return None
        space = self.action_space
        assert isinstance(space, spaces.Box)
        low, high = (each.astype(np.float64).reshape(-1) for each in (space.low, space.high))
        if self.action_units is not None:
            middle, half = (each.astype(np.float64).reshape(-1) for each in self.action_units)
            low, high = (low - middle) / half, (high - middle) / half
        return ActionBounds(low.astype(np.float32), high.astype(np.float32))

    def _begin_with(self, start: Mapping[str, Array], origin: str) -> None:
        variables = {v.path: v for v in self.networks.variables}
        misfits = [f"{name} is only there" for name in start if name not in variables]
        for name, variable in variables.items():
            here = list(variable.shape)
            if name not in start:
                misfits.append(f"{name} is only here")
            elif list(start[name].shape) != here:
                misfits.append(f"{name} is {list(start[name].shape)} there and {here} here")
        if misfits:
            more = f", and {len(misfits) - 4} more" if len(misfits) > 4 else ""
            raise ConfigError(
                f"{self.source}: the weights of {origin} do not fit: {'; '.join(misfits[:4])}{more}"
            )
        for name, variable in variables.items():
            variable.assign(start[name])

    def make_loop(self) -> Loop:
        """Makes the loop that runs the iterations, with new environments that the loop closes."""
        num_envs, seed = self.agent.environment.num_envs, self.agent.seed
        if self.environments.tensorflow is not None:
            environment = self.environments.tensorflow
            if self.action_units is not None:
                environment = Rescaled(environment, *self.action_units)
            return GraphLoop(self.learner, environment, self.encoder, num_envs, seed)
        episodes = self.environments.continued(num_envs, self.distribution, self.translation, self.masking)
        return HostLoop(self.learner, episodes, self.encoder, seed)

    def _optimizer(self) -> InterventionOptimizer:
        try:
            optimizer = InterventionOptimizer(
                inner_optimizer(self.agent, self.source),
                self.rules,
                feedback={"progress": 0.0},
                metrics_every=self._steps_per_iteration(),
                name="interventions",
            )
            optimizer.build(self.networks.trainable_variables)
        except ConfigError:
            raise
        except Exception as error:  # the `build` of a user's rule may raise anything
            raise ConfigError(f"{self.source}: {self.files.place(error)}") from error
        return optimizer

    def _steps_per_iteration(self) -> int:
        """Optimizer steps of one iteration: rules are measured at the last of them."""
        algorithm, rollout = self.agent.algorithm, self.agent.steps_per_iteration
        return algorithm.n_epochs * (rollout // (algorithm.batch_size or rollout))
