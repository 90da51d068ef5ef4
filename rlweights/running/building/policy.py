"""An agent that acts: its spaces, networks and environments, without anything that trains it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlweights.errors import ConfigError
from rlweights.learning.acting import acting, actor
from rlweights.learning.distributions import Distribution, Gaussian, for_space
from rlweights.learning.networks import NATURE, ActorCritic, actor_critic
from rlweights.learning.spaces import ObservationEncoder, observation_encoder
from rlweights.running.building.environments import EnvironmentFactory
from rlweights.running.building.keras_objects import check_activation
from rlweights.running.building.user_code import UserCode
from rlweights.running.config.messages import first_line, refusal
from rlweights.running.config.schema import Agent
from rlweights.weights.arrays import Array


class Policy:
    """The acting part of an agent, built from its configuration: enough to evaluate, play and export a run.

    Args:
        agent: The configuration.
        source: The file or option that it came from, for errors.
        folder: Folder of the files that the agent names; None: the current folder.

    Attributes:
        files: Loads the user's code, and knows what was loaded: an environment, wrappers, a network.
        environments: Makes the environments.
        action_space: Of one environment.
        encoder: Of observations.
        distribution: Of actions, over the policy's output.
        networks: Policy and value network.

    Raises:
        ConfigError: If something cannot be built; one line that names the file, the key and a way out.
    """

    def __init__(self, agent: Agent, source: str, folder: Path | None = None):
        self.agent = agent
        self.source = source
        self.files = UserCode(source, folder or Path(), agent.environment.folder)
        self.environments = EnvironmentFactory(agent, self.files)
        observation_space, self.action_space = self.environments.spaces()
        try:
            self.encoder: ObservationEncoder = observation_encoder(observation_space)
            self.distribution: Distribution = for_space(self.action_space)
        except ValueError as error:
            raise refusal(source, "environment.id", agent.environment.id, first_line(error)) from None
        self.networks = self._networks()

    def acting(self) -> Callable[[Array], Array]:
        """Returns the policy at the weights that the networks hold now.

        It goes from encoded observations [N, ...] to distribution parameters [N, P].
        """
        return acting(self.networks.policy)

    def actor(
        self, policy: Callable[[Array], Array], rng: np.random.Generator | None = None
    ) -> Callable[[Any], Any]:
        """Returns a function that acts in one environment, see `rlweights.learning.acting.actor`."""
        return actor(policy, self.encoder, self.distribution, self.action_space, rng)

    def performer(self, policy: Callable[[Array], Array], seed: int) -> Callable[[Any], Any]:
        """Returns an `actor` that acts as in the agent's evaluations: greedily, or by draws of a seed."""
        greedy = self.agent.evaluation.deterministic
        return self.actor(policy, None if greedy else np.random.default_rng(seed))

    def _networks(self) -> ActorCritic:
        agent, section = self.agent, self.agent.network
        check_activation(self.source, section.activation)
        continuous = isinstance(self.distribution, Gaussian)
        outputs = self.distribution.parameter_size // (2 if continuous else 1)
        model = section.model and self.files.load("network.model", section.model, functions=True)
        try:
            return actor_critic(
                self.encoder.shape,
                outputs,
                hidden_sizes=section.hidden_sizes,
                value_hidden_sizes=section.value_hidden_sizes,
                activation=section.activation,
                layer_norm=section.layer_norm,
                shared=section.shared,
                convolutions=NATURE if self.encoder.is_image else (),
                log_std=section.log_std_init if continuous else None,
                normalize_observations=agent.environment.normalize_observations,
                policy_gain=section.policy_gain,
                model=model,
                seed=agent.seed,
            )
        except Exception as error:  # the user's model may raise anything
            if model is not None:
                why = self.files.place(error)
                raise refusal(self.source, "network.model", section.model, why) from error
            if not isinstance(error, ValueError):
                raise
            raise ConfigError(f"{self.source}: network: {first_line(error)}") from None
