"""An agent that acts: its spaces, networks and environments, without anything that trains it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlweights.errors import ConfigError
from rlweights.learning.acting import acting, actor
from rlweights.learning.distributions import Distribution, Gaussian, for_space
from rlweights.learning.environments.action_masks import action_counts
from rlweights.learning.evaluation import Result, evaluate
from rlweights.learning.masking import Masking
from rlweights.learning.networks import ActorCritic, actor_critic, takes_space
from rlweights.learning.parts import convolutions_for, first_inputs
from rlweights.learning.spaces import (
    VERSION_1,
    Encoding,
    ObservationEncoder,
    Translation,
    action_decoder,
    half_ranges,
    observation_encoder,
)
from rlweights.learning.tables import WIDTH
from rlweights.running.building.environments import EnvironmentFactory
from rlweights.running.building.keras_objects import check_activation
from rlweights.running.building.user_code import UserCode
from rlweights.running.config.messages import first_line, refusal
from rlweights.running.config.schema import Agent
from rlweights.weights.arrays import Array

MOST_FLAT, MOST_CONVOLVED = 4_096, 32_768
"""Inputs of a first dense layer above which a line says so: of flat numbers, and behind convolutions."""


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
        unmasked: Encoder of what networks see of observations.
        masking: Where encoded observations hold an action mask; None: the environment has none.
        encoder: Of observations, with their masks if there are any.
        translation: Between the spaces and arrays: the encoder, and the decoder of actions.
        action_units: Middle and half range of the actions in which the policy works; None: their own units.
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
        self._model: Any = None
        observation_space, self.action_space = self.environments.spaces()
        how = self._encoding()
        try:
            self.unmasked: ObservationEncoder = observation_encoder(observation_space, how)
            self.distribution: Distribution = for_space(self.action_space)
        except ValueError as error:
            raise refusal(source, "environment.id", agent.environment.id, first_line(error)) from None
        self.masking: Masking | None = None
        self.encoder = self.unmasked
        if self.environments.action_mask != "none":
            self.masking = Masking(self.unmasked.shape, action_counts(self.action_space))
            self.encoder = self.masking.encoder(self.unmasked)
        rescales = agent.environment.rescale_actions
        self.translation = Translation(self.encoder, action_decoder(self.action_space, rescales))
        self.action_units = half_ranges(self.action_space) if rescales else None
        self._before_networks()
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
        return actor(policy, self.encoder, self.distribution, self.translation.decode, rng)

    def performer(self, policy: Callable[[Array], Array], seed: int) -> Callable[[Any], Any]:
        """Returns an `actor` that acts as in the agent's evaluations: greedily, or by draws of a seed."""
        greedy = self.agent.evaluation.deterministic
        return self.actor(policy, None if greedy else np.random.default_rng(seed))

    def evaluate(
        self,
        act: Callable[[Array], Array],
        envs: gym.vector.VectorEnv,
        episodes: int,
        seed: int,
        deterministic: bool | None = None,
    ) -> Result:
        """Runs whole episodes as this agent sees and acts: its encoding, its actions' units, its step limit.

        Args:
            act: From encoded observations [N, ...] to distribution parameters [N, P].
            envs: N environments.
            episodes: Number of episodes.
            seed: Seed of environments and of sampled actions.
            deterministic: Whether to take the most likely action rather than to sample; None: the agent
                file's `evaluation.deterministic`.

        Raises:
            BrokenEnvironment: If the environment fails.
        """
        return evaluate(
            act,
            envs,
            self.distribution,
            self.translation,
            episodes,
            seed,
            self.agent.evaluation.deterministic if deterministic is None else deterministic,
            self.environments.evaluation_steps,
        )

    def _before_networks(self) -> None:
        """What must happen before TensorFlow computes anything, and needs the spaces; here: nothing."""

    def _encoding(self) -> Encoding:
        """How observations are encoded: as the agent file says, and as the user's own layers take them."""
        section = self.agent.network
        if section.model:
            self._model = self.files.load("network.model", section.model, functions=True)
        # TensorFlow environments are learned from as `observe` returns it, and so they are evaluated.
        plain = self.agent.environment.encoding == 1 or self.environments.tensorflow is not None
        how = VERSION_1 if plain else Encoding()
        if section.flatten_images:
            return dataclasses.replace(how, images="none")
        if self._model is not None and not takes_space(self._model):
            return dataclasses.replace(how, images="large")  # written for the shapes of version 0.1
        return how

    def remarks(self) -> list[str]:
        """Returns what is worth a line before training: a first layer of very many inputs."""
        if self._model is not None:
            return []
        parts = self.encoder.parts
        for part in parts:
            if part.kind == "numbers" and part.size > MOST_FLAT:
                where = f"observation {part.name!r}" if part.name else "the observation"
                return [
                    f"warning: {where} of shape {part.shape} is flattened to {part.size:,} inputs of the "
                    f"first layer. Smaller: environment.wrappers, ResizeObservation for images or "
                    f"FilterObservation; other layers: network.model"
                ]
        inputs = first_inputs(parts, WIDTH)
        if inputs > MOST_CONVOLVED:
            return [
                f"warning: the convolutions make {inputs:,} inputs of the first dense layer. Smaller: "
                f"environment.wrappers, ResizeObservation to 84 x 84 pixels; other layers: network.model"
            ]
        return []

    def _networks(self) -> ActorCritic:
        agent, section = self.agent, self.agent.network
        check_activation(self.source, section.activation)
        continuous = isinstance(self.distribution, Gaussian)
        outputs = self.distribution.parameter_size // (2 if continuous else 1)
        encoder, model = self.unmasked, self._model
        try:
            return actor_critic(
                encoder.shape,
                outputs,
                hidden_sizes=section.hidden_sizes,
                value_hidden_sizes=section.value_hidden_sizes,
                activation=section.activation,
                layer_norm=section.layer_norm,
                shared=section.shared,
                convolutions=convolutions_for(encoder.shape) if encoder.is_image else (),
                dtype=encoder.dtype,
                space=encoder.space,
                parts=encoder.parts,
                pixels=encoder.pixels,
                masking=self.masking,
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
