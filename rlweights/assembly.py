"""From a configuration to the objects that run: environments, networks, rules, optimizer, learner."""

import difflib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import keras
from gymnasium.vector import AutoresetMode

from rlweights import config as configuration
from rlweights import interventions
from rlweights.adapter import VectorAdapter
from rlweights.config import ConfigError
from rlweights.distributions import Distribution, Gaussian, for_space
from rlweights.interventions import Feedback, Intervention
from rlweights.learner import Learner
from rlweights.networks import NATURE, ActorCritic, actor_critic
from rlweights.optimizer import InterventionOptimizer
from rlweights.selection import path, select
from rlweights.spaces import ObservationEncoder, observation_encoder


class Assembly:
    """Everything that one agent consists of, built from its configuration.

    Args:
        agent: The configuration.
        source: Where it came from, for errors.
        folder: Where files that it names lie; None: the current folder.

    Raises:
        ConfigError: If something cannot be built; one line that names file, key and the way out.
    """

    def __init__(self, agent: configuration.Agent, source: str, folder: Path | None = None):
        self.agent = agent
        self.source = source
        self.folder = folder or Path()
        self.loaded_files: list[Path] = []
        self.environment = self._environment()
        observation_space, self.action_space = self._spaces()
        try:
            self.encoder: ObservationEncoder = observation_encoder(observation_space)
            self.distribution: Distribution = for_space(self.action_space)
        except ValueError as error:
            raise ConfigError(f"{source}: environment.id = {agent.environment.id!r}: {error}") from None
        self.networks = self._networks()
        self.rules = [self._rule(i, rule) for i, rule in enumerate(agent.interventions)]
        self.optimizer = self._optimizer()
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

    # Environments ---------------------------------------------------------------------------------

    def _environment(self) -> Any:
        """The TensorFlow environment, if the agent trains in one."""
        section = self.agent.environment
        if section.backend != "tensorflow":
            return None
        from rlweights import environments

        if ".py:" in section.id:
            factory = self._load("environment.id", section.id)
            return factory(**section.kwargs)
        try:
            return environments.get(section.id, **section.kwargs)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.source}: environment.id = {section.id!r} with backend 'tensorflow': {error}"
            ) from None

    def _spaces(self) -> tuple[gym.Space, gym.Space]:
        if self.environment is not None:
            return self.environment.observation_space, self.environment.action_space
        envs = self.make_envs(1)
        try:
            return envs.single_observation_space, envs.single_action_space
        finally:
            envs.close()

    def make_envs(self, num_envs: int, *, evaluation: bool = False) -> gym.vector.VectorEnv:
        """Makes vector environments: for rollouts, or for evaluation in Gymnasium's own environment."""
        section = self.agent.environment
        if section.backend == "envpool" and not evaluation:
            return self._envpool(num_envs)
        if self.environment is not None and not self._has_twin():
            return VectorAdapter(self.environment, num_envs)
        mode = "sync" if evaluation or section.backend != "gymnasium" else section.vectorization_mode
        options: dict[str, Any] = {}
        if mode != "vector_entry_point":
            options["vector_kwargs"] = {"autoreset_mode": AutoresetMode.SAME_STEP}
            options["wrappers"] = [self._wrapper(name) for name in section.wrappers]
        elif section.wrappers:
            raise ConfigError(
                f"{self.source}: environment.wrappers cannot be used with vectorization_mode "
                f"'vector_entry_point'; use 'sync'"
            )
        try:
            return gym.make_vec(section.id, num_envs, vectorization_mode=mode, **options, **section.kwargs)
        except gym.error.DependencyNotInstalled as error:
            raise ConfigError(f"{self.source}: environment.id = {section.id!r}: {_line(error)}") from None
        except (gym.error.Error, ModuleNotFoundError, TypeError) as error:
            near = difflib.get_close_matches(section.id, list(gym.registry), n=1)
            hint = f" Did you mean {near[0]!r}?" if near and near[0] != section.id else ""
            raise ConfigError(
                f"{self.source}: environment.id = {section.id!r}: {_line(error)}.{hint}"
            ) from None

    def make_rendered(self, mode: str) -> gym.Env:
        """Makes one environment that renders: "human" in a window, "rgb_array" into frames."""
        section = self.agent.environment
        if mode == "rgb_array":
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames need no screen
        try:
            env = gym.make(section.id, render_mode=mode, **section.kwargs)
        except (gym.error.Error, ModuleNotFoundError, TypeError) as error:
            raise ConfigError(f"{self.source}: {section.id} does not render: {_line(error)}") from None
        for name in section.wrappers:
            env = self._wrapper(name)(env)
        return env

    def _has_twin(self) -> bool:
        """Whether Gymnasium has the same environment, the same physics included."""
        section = self.agent.environment
        if section.id not in gym.registry:
            return False
        try:
            gym.make(section.id, **section.kwargs).close()
        except TypeError:
            return False  # arguments that only the TensorFlow environment has
        return True

    def _envpool(self, num_envs: int) -> Any:
        section = self.agent.environment
        try:
            import envpool  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError(
                f"{self.source}: environment.backend = 'envpool' needs the extra: pip install "
                f"'rlweights[envpool]'"
            ) from None
        known = envpool.list_all_envs()
        if section.id not in known:
            near = difflib.get_close_matches(section.id, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{self.source}: environment.id = {section.id!r} is not in envpool.{hint}")
        return envpool.make(
            section.id, env_type="gymnasium", num_envs=num_envs, seed=self.agent.seed, **section.kwargs
        )

    def _wrapper(self, name: str) -> Any:
        if ".py:" in name:
            return self._load("environment.wrappers", name)
        wrapper = getattr(gym.wrappers, name, None)
        if wrapper is None:
            near = difflib.get_close_matches(name, dir(gym.wrappers), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{self.source}: environment.wrappers: no wrapper {name!r} in Gymnasium.{hint}")
        return wrapper

    # Networks and optimizer -----------------------------------------------------------------------

    def _networks(self) -> ActorCritic:
        agent, section = self.agent, self.agent.network
        continuous = isinstance(self.distribution, Gaussian)
        outputs = self.distribution.parameter_size // (2 if continuous else 1)
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
                seed=agent.seed,
            )
        except ValueError as error:
            if "activation" in str(error):
                names = [n for n in dir(keras.activations) if n.islower() and not n.startswith("_")]
                near = difflib.get_close_matches(section.activation, names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(
                    f"{self.source}: network.activation = {section.activation!r}: no such activation in "
                    f"Keras.{hint}"
                ) from None
            raise ConfigError(f"{self.source}: network: {_line(error)}") from None

    def _optimizer(self) -> InterventionOptimizer:
        agent = self.agent
        given = agent.optimizer.model_dump(exclude_none=True)
        arguments = dict(agent.algorithm.default_optimizer) | given
        if given.get("name", arguments["name"]) != agent.algorithm.default_optimizer["name"]:
            arguments = given
        name = arguments.pop("name")
        classes = {
            n.lower(): c
            for n, c in vars(keras.optimizers).items()
            if inspect.isclass(c) and issubclass(c, keras.optimizers.Optimizer)
        }
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{self.source}: optimizer.name = {name!r} is no Keras optimizer.{hint} Valid: "
                f"{', '.join(sorted(classes))}"
            )
        for key in arguments:
            if key == "learning_rate":
                raise ConfigError(
                    f"{self.source}: optimizer.learning_rate belongs to algorithm.learning_rate"
                )
            self._check_argument(classes[name], key, f"optimizer.{key}")
        try:
            inner = classes[name](learning_rate=1e-3, name=name, **arguments)
            optimizer = InterventionOptimizer(
                inner,
                self.rules,
                feedback={"progress": 0.0},
                metrics_every=self._steps_per_iteration(),
                name="interventions",
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.source}: optimizer: {_line(error)}") from None
        try:
            optimizer.build(self.networks.trainable_variables)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.source}: interventions: {_line(error)}") from None
        return optimizer

    def _steps_per_iteration(self) -> int:
        """Optimizer steps of one iteration: rules are measured at the last of them."""
        algorithm, rollout = self.agent.algorithm, self.agent.steps_per_iteration
        return algorithm.n_epochs * (rollout // (algorithm.batch_size or rollout))

    # Interventions --------------------------------------------------------------------------------

    def _rule(self, index: int, section: configuration.Rule) -> Intervention:
        where = f"interventions.{index}"
        try:
            rule = (
                self._load(where + ".rule", section.rule)
                if ".py:" in section.rule
                else interventions.get(section.rule)
            )
        except ValueError as error:
            raise ConfigError(f"{self.source}: {where}.rule: {error}") from None
        arguments = section.model_dump(exclude={"rule"})
        for key in arguments:
            self._check_argument(rule, key, f"{where}.{key}")
        arguments = {key: self._strength(value, f"{where}.{key}") for key, value in arguments.items()}
        undone = str(arguments.get("placement", rule.placement)).startswith("during_")
        if "on" not in arguments and rule.default_on is not None and undone:
            # Noise that is undone is for acting and its gradient: the critic is left alone.
            arguments["on"] = rule.default_on & path("(policy|trunk)/.*")
        elif "on" in arguments:
            arguments["on"] = select(arguments["on"])
        arguments.setdefault("seed", self.agent.seed)
        try:
            return rule(**arguments)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.source}: {where} ({section.rule}): {_line(error)}") from None

    def _check_argument(self, owner: Any, key: str, where: str) -> None:
        """Refuses an argument that neither a class nor its bases take."""
        known: list[str] = []
        for cls in owner.__mro__:
            init = vars(cls).get("__init__")
            if init is None or cls is object:
                continue
            parameters = inspect.signature(init).parameters.values()
            known += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
        known = [name for name in dict.fromkeys(known) if name not in ("self", "learning_rate")]
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{self.source}: {where} is no argument of {owner.__name__}.{hint} Valid: {', '.join(known)}"
            )

    def _strength(self, value: Any, where: str) -> Any:
        """Turns the tables that stand for schedules and feedback into those."""
        if not isinstance(value, Mapping):
            return value
        keys = set(value)
        if keys == {"from", "to"}:
            first, last = float(value["from"]), float(value["to"])
            return OverBudget(first, last)
        if "feedback" in keys and keys <= {"feedback", "initial"}:
            return Feedback(value["feedback"], value.get("initial", 0.0))
        if "schedule" in keys:
            schedule = getattr(keras.optimizers.schedules, str(value["schedule"]), None)
            if schedule is None:
                raise ConfigError(
                    f"{self.source}: {where}.schedule = {value['schedule']!r} is none of Keras'"
                )
            try:
                return schedule(**{k: v for k, v in value.items() if k != "schedule"})
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{self.source}: {where}: {_line(error)}") from None
        return dict(value)

    # Files of the user's own ----------------------------------------------------------------------

    def _load(self, where: str, reference: str) -> Any:
        """Loads `file.py:Name`, relative to the agent file. The only door through which code comes in."""
        file, _, name = reference.rpartition(":")
        location = (self.folder / file).resolve()
        if not location.is_file():
            raise ConfigError(f"{self.source}: {where} = {reference!r}: no file {location}")
        module_name = f"rlweights_user_{location.stem}"
        spec = importlib.util.spec_from_file_location(module_name, location)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever the user's file raises becomes one line about that file
            raise ConfigError(f"{self.source}: {where}: {location} fails: {_line(error)}") from error
        self.loaded_files.append(location)
        found = getattr(module, name, None)
        if found is None:
            names = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module_name]
            raise ConfigError(
                f"{self.source}: {where} = {reference!r}: {file} has no {name!r}; it has {', '.join(names)}"
            )
        return found


@keras.saving.register_keras_serializable(package="rlweights")
class OverBudget(Feedback):
    """A strength that changes linearly over the whole budget: the trainer writes the progress."""

    def __init__(self, first: float, last: float):
        super().__init__("progress")
        self.first, self.last = first, last

    def __call__(self, step):
        """Returns the value at the present progress."""
        return self.first + (self.last - self.first) * super().__call__(step)

    def get_config(self):
        """Returns both ends."""
        return {"first": self.first, "last": self.last}

    def __repr__(self):
        return f"{self.first:g} to {self.last:g}"


def _line(error: BaseException) -> str:
    """The first line of an error's message, without a full stop."""
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split("\n")[0].split()).rstrip(".")
