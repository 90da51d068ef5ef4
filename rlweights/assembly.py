"""From a configuration to the objects that run: environments, networks, rules, optimizer, learner."""

import inspect
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

from rlweights import interventions
from rlweights.distributions import Distribution, Gaussian, for_space
from rlweights.interventions import Intervention
from rlweights.learner import Learner
from rlweights.mistakes import ConfigError, choices, first_line, nearest, refusal
from rlweights.networks import NATURE, ActorCritic, actor_critic
from rlweights.optimizer import InterventionOptimizer
from rlweights.schema import Agent, Rule
from rlweights.selection import path, select
from rlweights.spaces import ObservationEncoder, observation_encoder
from rlweights.strengths import strength_of
from rlweights.userfiles import UserFiles
from rlweights.worlds import Worlds


class Assembly:
    """Everything that one agent consists of, built from its configuration.

    Args:
        agent: The configuration.
        source: Where it came from, for errors.
        folder: Where files that it names lie; None: the current folder.

    Raises:
        ConfigError: If something cannot be built; one line that names file, key and the way out.
    """

    def __init__(self, agent: Agent, source: str, folder: Path | None = None):
        self.agent = agent
        self.source = source
        self.files = UserFiles(source, folder or Path())
        self.worlds = Worlds(agent, self.files)
        observation_space, self.action_space = self.worlds.spaces()
        try:
            self.encoder: ObservationEncoder = observation_encoder(observation_space)
            self.distribution: Distribution = for_space(self.action_space)
        except ValueError as error:
            raise refusal(source, "environment.id", agent.environment.id, first_line(error)) from None
        self.networks = self._networks()
        self.rules = [self._rule(f"interventions.{i}", rule) for i, rule in enumerate(agent.interventions)]
        self.optimizer = self._optimizer()
        self._try_rules()
        self._check_scores()
        self.learner = Learner(
            agent.algorithm,
            self.networks,
            self.distribution,
            self.optimizer,
            num_envs=agent.environment.num_envs,
            total_iterations=agent.total_iterations,
            seed=agent.seed,
            normalize_rewards=agent.environment.normalize_rewards,
        )

    @property
    def environment(self) -> Any:
        """The TensorFlow environment, if the agent trains in one."""
        return self.worlds.tensorflow

    @property
    def loaded_files(self) -> list[Path]:
        """Files of the user's own whose code was loaded."""
        return self.files.loaded

    def make_envs(self, num_envs: int, *, evaluation: bool = False) -> gym.vector.VectorEnv:
        """Makes vector environments: for rollouts, or for evaluation in Gymnasium's own environment."""
        return self.worlds.vector(num_envs, evaluation=evaluation)

    def make_rendered(self, mode: str) -> gym.Env:
        """Makes one environment that renders: "human" in a window, "rgb_array" into frames."""
        return self.worlds.rendered(mode)

    # Networks and optimizer -----------------------------------------------------------------------

    def _networks(self) -> ActorCritic:
        agent, section = self.agent, self.agent.network
        if section.activation not in ACTIVATIONS:
            why, hint = "Keras has no such activation", nearest(section.activation, ACTIVATIONS)
            raise refusal(self.source, "network.activation", section.activation, why, hint=hint)
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
        except Exception as error:  # the user's own model may raise anything
            if model is not None:
                why = self.files.place(error)
                raise refusal(self.source, "network.model", section.model, why) from error
            if not isinstance(error, ValueError):
                raise
            raise ConfigError(f"{self.source}: network: {first_line(error)}") from None

    def _optimizer(self) -> InterventionOptimizer:
        try:
            optimizer = InterventionOptimizer(
                self._inner_optimizer(),
                self.rules,
                feedback={"progress": 0.0},
                metrics_every=self._steps_per_iteration(),
                name="interventions",
            )
            optimizer.build(self.networks.trainable_variables)
        except ConfigError:
            raise
        except Exception as error:  # a rule's own `build` may raise anything
            raise ConfigError(f"{self.source}: {self.files.place(error)}") from error
        return optimizer

    def _inner_optimizer(self) -> keras.optimizers.Optimizer:
        default = self.agent.algorithm.default_optimizer
        given = self.agent.optimizer.model_dump(exclude_none=True)
        name = given.pop("name", default["name"])
        if name not in OPTIMIZERS:
            hint = choices(name, OPTIMIZERS)
            raise refusal(self.source, "optimizer.name", name, "Keras has no such optimizer", hint=hint)
        if "learning_rate" in given:
            why = "is algorithm.learning_rate's business"
            raise refusal(self.source, "optimizer.learning_rate", given["learning_rate"], why)
        for key in given:
            self._check_argument(OPTIMIZERS[name], key, f"optimizer.{key}", given[key])
        arguments = default | given if name == default["name"] else {"name": name} | given
        try:
            _step(OPTIMIZERS[name](learning_rate=1e-3, **arguments))
            return OPTIMIZERS[name](learning_rate=1e-3, **arguments)
        except Exception as error:  # Keras checks few of its arguments before it uses them
            raise refusal(self.source, "optimizer", arguments, first_line(error)) from error

    def _steps_per_iteration(self) -> int:
        """Optimizer steps of one iteration: rules are measured at the last of them."""
        algorithm, rollout = self.agent.algorithm, self.agent.steps_per_iteration
        return algorithm.n_epochs * (rollout // (algorithm.batch_size or rollout))

    # Interventions --------------------------------------------------------------------------------

    def _rule(self, key: str, section: Rule) -> Intervention:
        rule = self._rule_class(f"{key}.rule", section.rule)
        arguments = section.model_dump(exclude={"rule"}, exclude_none=True)
        for name, value in arguments.items():
            self._check_argument(rule, name, f"{key}.{name}", value)
            arguments[name] = strength_of(value, self.source, f"{key}.{name}")
        if "seed" in _arguments(rule):
            arguments.setdefault("seed", self.agent.seed)
        undone = arguments.get("placement", rule.placement) in ("during_gradient", "during_iteration")
        if "on" not in arguments and rule.default_on is not None and undone:
            # Noise that is undone is for acting and its gradient: the critic is left alone.
            arguments["on"] = rule.default_on & path("(policy|trunk)/.*")
        on = arguments.get("on")
        try:
            if on is not None:
                arguments["on"] = select(on)
                arguments["on"](self.networks.trainable_variables)
        except Exception as error:  # a selector's arguments may be anything
            raise refusal(self.source, f"{key}.on", on, first_line(error)) from error
        try:
            return rule(**arguments)
        except Exception as error:  # the user's own rule may raise anything
            raise self._rule_error(key, section, error) from error

    def _rule_class(self, key: str, name: str) -> type[Intervention]:
        if ".py:" not in name:
            if name not in interventions.RULES:
                hint = choices(name, interventions.RULES)
                raise refusal(self.source, key, name, "there is no such rule", hint=hint)
            return interventions.RULES[name]
        found = self.files.load(key, name)
        if not issubclass(found, Intervention):
            raise refusal(self.source, key, name, "is no rlweights.Intervention")
        return found

    def _try_rules(self) -> None:
        """Asks each rule once what it would write: what fails in the graph fails here, in one line."""
        step = tf.zeros([], tf.int64)
        for index, rule in enumerate(self.rules):
            try:
                for variable in rule.variables:
                    value = (rule.delta if rule.adds else rule.update)(variable, step)
                    rule._checked(value, variable, "delta" if rule.adds else "update")
            except Exception as error:  # the user's own rule may raise anything
                section = self.agent.interventions[index]
                raise self._rule_error(f"interventions.{index}", section, error) from error

    def _check_scores(self) -> None:
        """Refuses rules that wait for scores of dormant units which nothing measures."""
        example = np.zeros((1, *self.encoder.shape), self.encoder.dtype)
        measured, prefix = self.networks.activations(example), "dormant_score/"
        for name in self.optimizer.feedback:
            layer = name.removeprefix(prefix)
            if name.startswith(prefix) and layer not in measured:
                why = f"nothing measures the dormant units of {layer!r}; measured are: {', '.join(measured)}"
                raise ConfigError(f"{self.source}: interventions: {why}")

    def _rule_error(self, key: str, section: Rule, error: Exception) -> ConfigError:
        """What went wrong with a rule: with which argument, if the message begins with one in backticks."""
        found = re.match(r"`(\w+)` (.+?)(?:\. Received: .*)?$", first_line(error))
        given = section.model_dump()
        if found and found[1] in given:
            return refusal(self.source, f"{key}.{found[1]}", given[found[1]], found[2])
        return ConfigError(f"{self.source}: {key} ({section.rule}): {self.files.place(error)}")

    def _check_argument(self, owner: type, name: str, key: str, value: Any) -> None:
        known = _arguments(owner)
        if name not in known:
            why = f"is no argument of {owner.__name__}"
            raise refusal(self.source, key, value, why, hint=choices(name, known))


ACTIVATIONS = [
    name
    for name in vars(keras.activations)
    if name.islower() and not name.startswith("_") and name not in ("deserialize", "get", "serialize")
]
"""Keras' activations."""

OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    name.lower(): each
    for name, each in vars(keras.optimizers).items()
    if inspect.isclass(each)
    and issubclass(each, keras.optimizers.Optimizer)
    and name not in ("LossScaleOptimizer", "MultiOptimizer", "Optimizer")  # these make no step of their own
}
"""Keras' optimizers by their names in lower case."""


def _step(optimizer: keras.optimizers.Optimizer) -> None:
    """Lets an optimizer make one step, of weights that nobody needs."""
    kernel = keras.Variable(np.ones((2, 2), np.float32), name="kernel")
    optimizer.apply([np.ones((2, 2), np.float32)], [kernel])
    if not np.isfinite(kernel.numpy()).all():
        raise ValueError("its first step is not finite")


def _arguments(owner: type) -> list[str]:
    """The named arguments that a class takes, those included that it passes on to its bases."""
    known: list[str] = []
    for cls in owner.__mro__:
        init = vars(cls).get("__init__")
        if init is None or cls is object:
            continue
        parameters = inspect.signature(init).parameters.values()
        known += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in dict.fromkeys(known) if name not in ("self", "learning_rate")]
