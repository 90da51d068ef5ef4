"""Callbacks: the user's own Python beside a run, in the words of Keras."""

import copy
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlweights.errors import CallbackError, ConfigError
from rlweights.learning.environments.replay import described
from rlweights.learning.loops.base import Loop
from rlweights.learning.networks import ActorCritic
from rlweights.running.building.assembly import Assembly
from rlweights.running.config.schema import Agent
from rlweights.weights.optimizer import InterventionOptimizer

GROUPS = ("eval", "gradients", "intervention", "plasticity", "rollout", "time", "train", "update", "weights")
"""First parts of the tags that a run records itself."""

_ACTS = ("on_iteration_end", "on_evaluation_end")


class Callback:
    """Looks at a run while it trains, and acts on it; pass instances to `Recipe.train`.

    A subclass defines the methods that it needs. In them `self.training` is the run: see `Training`. A run
    that is killed and resumed with the same callbacks (`Recipe.resume`) ends like one that was not, if what
    they do follows from what they are told, from their arguments and from their `state`. A callback that
    keeps something between two calls gives it to the checkpoint by `state` and takes it back by `restore`;
    one that keeps nothing needs neither.

    An error in a callback ends the run with exit code 3; the line names class, method and place.

    Examples:
        >>> class Printer(Callback):
        ...     def on_evaluation_end(self, logs):
        ...         print(self.training.env_steps, logs["eval/mean_reward"])
    """

    training: "Training"

    def on_train_begin(self) -> None:
        """Called first, in every process of a run: sets up files, and parameters that a run begins with.

        A resumed run then puts the state of the checkpoint over it, environment parameters and feedback too.
        """

    def on_iteration_end(self, iteration: int, logs: dict[str, float]) -> None:
        """Called after every iteration, in order.

        Environments that Gymnasium steps wait for it. The compiled whole-loop program (backend "tensorflow")
        runs many iterations in one call, up to the next multiple of `logging.every` (of 64 iterations at
        most): the method is then called for each of them, one after the other, and what it does (a stop, a
        feedback, a parameter) takes effect at the end of that call.

        Args:
            iteration: Iterations so far, this one included.
            logs: Its scalars by tag, as TensorBoard shows them, with the means over the newest episodes.
        """

    def on_evaluation_end(self, logs: dict[str, float]) -> None:
        """Called after every evaluation, while the networks hold the weights that were evaluated.

        Args:
            logs: "eval/mean_ep_length" and, if all returns are finite, "eval/mean_reward" with its interval
                ("eval/mean_reward_lower" and "_upper").
        """

    def on_checkpoint(self, path: Path) -> None:
        """Called when a checkpoint has been written, by a signal too.

        It comes after the checkpoint, so a resumed run knows nothing of it: here it is copied or announced,
        and the run is left alone.

        Args:
            path: The checkpoint's file.
        """

    def on_train_end(self) -> None:
        """Called last, in every process that ends in good order: at the end, by a stop, by a signal."""

    def state(self) -> Any:
        """Returns what a resumed run needs, as JSON holds it (no tuples, no NaN); None: nothing."""
        return None

    def restore(self, state: Any) -> None:
        """Takes over what `state` has returned; called after `on_train_begin`, and when a run goes back.

        Args:
            state: What `state` returned when the checkpoint was written.
        """


class StopAtReturn(Callback):
    """Stops a run at a mean return.

    Args:
        mean_reward: The mean return that is enough.
        of: "evaluation": of an evaluation (`evaluation.every`); "training": of the newest 100 episodes.

    Raises:
        ConfigError: If `of` is something else.
    """

    def __init__(self, mean_reward: float, of: str = "evaluation"):
        if of not in ("evaluation", "training"):
            raise ConfigError(f"StopAtReturn: of = {of!r}: takes 'evaluation' or 'training'")
        self.mean_reward, self.of = float(mean_reward), of

    def on_iteration_end(self, iteration: int, logs: dict[str, float]) -> None:
        """Looks at the newest episodes of training, if these are meant."""
        if self.of == "training":
            self._judge(logs.get("rollout/ep_rew_mean"))

    def on_evaluation_end(self, logs: dict[str, float]) -> None:
        """Looks at the evaluation, if this is meant."""
        if self.of == "evaluation":
            self._judge(logs.get("eval/mean_reward"))

    def _judge(self, mean: float | None) -> None:
        if mean is not None and mean >= self.mean_reward:
            self.training.stop(f"mean return {mean:.4g} in {self.of}, {self.mean_reward:.4g} is enough")


class Training:
    """A run as its callbacks see it.

    Attributes:
        agent: The configuration.
        folder: The run folder.
        optimizer: Its `feedback[name] = value` is what rules read from the next iteration on.
        networks: Policy and value network; `networks.variables` are the weights.
        iteration: Iterations so far.
    """

    def __init__(self, assembly: Assembly, loop: Loop, acts: "_Acts"):
        self.agent: Agent = assembly.agent
        self.folder = Path()
        self.optimizer: InterventionOptimizer = assembly.optimizer
        self.networks: ActorCritic = assembly.networks
        self.iteration = 0
        self._loop = loop
        self._acts = acts

    @property
    def parameters(self) -> dict[str, Any]:
        """The attributes of the environments that have been set, by name."""
        return dict(self._acts.parameters)

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return self.iteration * self.agent.steps_per_iteration

    def stop(self, why: str = "") -> None:
        """Ends the run in good order: it is evaluated and saved, and `Outcome.stopped` says by what.

        A run that was stopped stays so when it is resumed, unless its budget is another one.

        Args:
            why: The reason, in a few words.

        Raises:
            RuntimeError: If it is called elsewhere than in `on_iteration_end` and `on_evaluation_end`.
        """
        self._demand("stop", _ACTS)
        if not self._acts.stopped and self.iteration < self.agent.total_iterations:
            self._acts.stopped = self._acts.callback + (f": {why}" if why else "")

    def record(self, scalars: Mapping[str, float]) -> None:
        """Records scalars at this step in TensorBoard and `progress.csv`; the newest value of a tag counts.

        Args:
            scalars: Numbers by tag, such as "curriculum/length". NaN is left out.

        Raises:
            ValueError: If a tag is in a group that the run records itself, such as "train/...".
            TypeError: If a value is no number.
            RuntimeError: If it is called elsewhere than in `on_iteration_end` and `on_evaluation_end`.
        """
        self._demand("record", _ACTS)
        if not isinstance(scalars, Mapping):
            raise TypeError(f"scalars: takes numbers by tag, such as {{'curriculum/length': 3}}: {scalars!r}")
        for tag, value in scalars.items():
            group, slash, name = str(tag).partition("/")
            if not (slash and group and name) or group in GROUPS:
                raise ValueError(
                    f"tag {tag!r}: takes a group of your own and a name, such as 'curriculum/length'; "
                    f"the run's own groups are {', '.join(GROUPS)}"
                )
            self._acts.scalars[tag] = float(value)

    def set_environment(self, **parameters: Any) -> None:
        """Sets attributes of the environments that the agent trains in, for a curriculum.

        Single environments (vectorization modes "sync" and "async") take a value when their next episode
        begins: an episode keeps the parameters that it began with. An environment's own vector version, and
        an environment that is a TensorFlow function, take it at once, for all environments, in the middle of
        episodes. A TensorFlow environment takes those of its attributes that are floats; the first time that
        one is set the program is compiled again. Evaluations stay as the agent file has them.

        Args:
            **parameters: Numbers, strings, or lists of them, by name of the attribute.

        Raises:
            ValueError: If the environments have no such attribute, or a checkpoint could not hold the value.
            RuntimeError: If it is called in `on_checkpoint` or `on_train_end`.
        """
        self._demand("set_environment", ("on_train_begin", *_ACTS))
        wanted = self.parameters | {name: _plain(name, value) for name, value in parameters.items()}
        self._loop.set_parameters(wanted)
        self._acts.parameters = wanted

    def _demand(self, method: str, hooks: Sequence[str]) -> None:
        if self._acts.hook not in hooks:
            raise RuntimeError(
                f"training.{method} is for {', '.join(hooks)}: "
                f"from elsewhere a resumed run could not repeat it"
            )


@dataclass
class _Acts:
    """What callbacks have done to a run; `callback` and `hook` are what runs at the moment."""

    callback: str = ""
    hook: str = ""
    stopped: str = ""
    scalars: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


class Callbacks:
    """The callbacks of one run, and what they have done to it.

    Args:
        callbacks: Instances of `Callback`, called in their order.
        assembly: The agent.
        loop: What runs its iterations.

    Raises:
        ConfigError: If one is no callback, or saves a state that it does not restore.
    """

    def __init__(self, callbacks: Sequence[Callback], assembly: Assembly, loop: Loop):
        names_of(callbacks)
        self._callbacks = list(callbacks)
        self._acts = _Acts()
        self._training = Training(assembly, loop, self._acts)
        for each in self._callbacks:
            each.training = self._training
        self.every_iteration = any(
            type(each).on_iteration_end is not Callback.on_iteration_end for each in callbacks
        )
        """Whether one of them wants to see every iteration."""

    @property
    def stopped(self) -> str:
        """By which callback the run was stopped, and why; nothing while it goes on."""
        return self._acts.stopped

    @property
    def parameters(self) -> dict[str, Any]:
        """The attributes of the environments that have been set, by name."""
        return self._acts.parameters

    def begin(self, folder: Path) -> None:
        """Tells that a process begins to train into a folder."""
        self._training.folder = folder
        self._call("on_train_begin")

    def iterated(self, iteration: int, logs: Mapping[str, float]) -> None:
        """Tells that an iteration has ended."""
        self._training.iteration = iteration
        self._call("on_iteration_end", iteration, logs)

    def evaluated(self, iteration: int, logs: Mapping[str, float]) -> None:
        """Tells that an evaluation has ended."""
        self._training.iteration = iteration
        self._call("on_evaluation_end", logs)

    def saved(self, iteration: int, path: Path) -> None:
        """Tells that a checkpoint has been written."""
        self._training.iteration = iteration
        self._call("on_checkpoint", path)

    def end(self, iteration: int) -> None:
        """Tells that training has ended in good order."""
        self._training.iteration = iteration
        self._call("on_train_end")

    def recorded(self) -> dict[str, float]:
        """Returns the scalars to record at this step, once."""
        scalars, self._acts.scalars = self._acts.scalars, {}
        return scalars

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold of the callbacks, as JSON; nothing at all if there are none."""
        if not self._callbacks:
            return {}
        states = []
        for each in self._callbacks:
            state = self._guarded(each, "state")
            if not _is_json(state):
                raise CallbackError(f"{type(each).__name__}.state returned what JSON cannot hold: {state!r}")
            states.append(copy.deepcopy(state))  # it may be changed in place later on
        return {
            "names": names_of(self._callbacks),
            "states": states,
            "parameters": self._acts.parameters,
            "stopped": self._acts.stopped,
            "total_iterations": self._training.agent.total_iterations,
        }

    def restore(self, iteration: int, saved: Mapping[str, Any]) -> None:
        """Goes back to what `state` has returned; callbacks that it does not know stay as they are.

        Raises:
            ConfigError: If callbacks are missing that the run was trained with.
        """
        demand(self._callbacks, saved.get("names", ()), str(self._training.folder))
        same = saved.get("total_iterations") == self._training.agent.total_iterations
        self._training.iteration = iteration
        self._acts.scalars = {}
        self._acts.stopped = saved.get("stopped", "") if same else ""
        self._acts.parameters = dict(saved.get("parameters", {}))
        for each, state in zip(self._callbacks, saved.get("states", ()), strict=False):
            if state is not None:
                self._guarded(each, "restore", copy.deepcopy(state))

    def _call(self, hook: str, *arguments: Any) -> None:
        for each in self._callbacks:
            self._guarded(each, hook, *[dict(x) if isinstance(x, Mapping) else x for x in arguments])

    def _guarded(self, callback: Callback, method: str, *arguments: Any) -> Any:
        """Calls a method; whatever it raises becomes one line that names it."""
        name = type(callback).__name__
        self._acts.callback, self._acts.hook = name, method
        try:
            return getattr(callback, method)(*arguments)
        except Exception as error:  # the user's own code may raise anything
            details = "".join(traceback.format_exception(error))
            raise CallbackError(f"{name}.{method} raised {described(error)}", details) from error
        finally:
            self._acts.callback, self._acts.hook = "", ""


def names_of(callbacks: Sequence[Callback]) -> list[str]:
    """Returns the names of callbacks' classes.

    Raises:
        ConfigError: If one is no callback, or saves a state that it does not restore.
    """
    for index, each in enumerate(callbacks):
        if not isinstance(each, Callback):
            kind = f"the class {each.__name__}, and no instance" if isinstance(each, type) else repr(each)
            raise ConfigError(f"callbacks[{index}] is {kind}: takes instances of rlweights.Callback")
        kind = type(each)
        if (kind.state is Callback.state) != (kind.restore is Callback.restore):
            raise ConfigError(f"{kind.__name__} defines one of `state` and `restore`: they belong together")
    return [type(each).__name__ for each in callbacks]


def demand(callbacks: Sequence[Callback], names: Sequence[str], where: str) -> None:
    """Makes sure that a run goes on with the callbacks that it was trained with; further ones may follow.

    Raises:
        ConfigError: If it does not; names those that are missing.
    """
    given = names_of(callbacks)
    if given[: len(names)] != list(names):
        raise ConfigError(
            f"{where}: trained with the callbacks {', '.join(names)}, resumed with "
            f"{', '.join(given) or 'none'}; resume it from Python with those: "
            f"rlweights.Recipe.resume(run, callbacks=[...])"
        )


def _is_json(value: Any) -> bool:
    """Whether a value would be read again from JSON as it is."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _plain(name: str, value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    if not _is_json(plain) or isinstance(plain, dict) or plain is None:
        raise ValueError(f"{name} = {value!r}: takes a number, a string, or a list of them")
    return plain
