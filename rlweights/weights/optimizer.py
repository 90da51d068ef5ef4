"""The optimizer wrapper that carries interventions: clean and live weights around an inner optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from rlweights.weights import backend, cadence, composition, keras_internals, nonfinite, replicas
from rlweights.weights.arrays import Tensor, Variable
from rlweights.weights.backend import ops, rewrites_weights
from rlweights.weights.branches import only_if
from rlweights.weights.delegation import DelegatingOptimizer, refuse_inner
from rlweights.weights.exchange import Exchange, Exchanging
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.interventions.feedback import Feedback, FeedbackBoard
from rlweights.weights.layers import Anatomy
from rlweights.weights.masks import Masks
from rlweights.weights.offsets import Offsets
from rlweights.weights.slots import Slots

_OWN_VALUE = "own_value_"
_BETWEEN_BEGIN_AND_END = ("during_iteration", "after_iteration")


@keras.saving.register_keras_serializable(package="rlweights")
class InterventionOptimizer(Exchanging, DelegatingOptimizer):
    """Wraps an optimizer and rewrites weights around its step: optax for weights, speaking Keras.

    *Live* weights, the model's own variables, are what losses and rollouts see; *clean* weights are what
    the inner optimizer, kept interventions, evaluations and checkpoints see: live = clean + offsets. One
    step restores the clean weights by copy (subtraction drifts), lets the inner optimizer step, applies
    the "after_step" rules in list order, and puts the offsets back. Where the inner optimizer accumulates
    gradients, "after_step" rules act on, and count, its updates; "during_gradient" rules draw for each micro
    batch.

    In a `tf.distribute.MirroredStrategy` every replica computes the same rules on the same weights with the
    same draws, and so they stay equal to the last bit. Make the optimizer in the scope of the strategy.

    Without rules it equals the inner optimizer bit for bit. It follows the contract of Keras'
    `LossScaleOptimizer`, works in `model.compile` with `jit_compile` on and off, and saves with the model.
    Rules that are undone, or that act between iterations, need to know when an iteration begins and ends:
    `WeightMonitor` says so in `model.fit` (an iteration is an epoch), a loop of the user's own calls
    `begin_iteration` and `end_iteration`.

    Args:
        inner: The Keras optimizer that makes the step.
        interventions: The rules, in the order in which they act.
        feedback: Further feedback (name to initial value) that a rule's schedule may read.
        metrics_every: Steps between two measurements of "after_step" rules; None: rarely, see `is_looked_at`.
        on_nonfinite: What a step does whose gradients are not all finite. None: what the inner optimizer
            does, which mostly makes every weight NaN; "skip": nothing but to be counted, in the metric
            `skipped_updates`; "raise": it ends the training with `TrainingStopped`, in a model's own training
            and in eager loops (in a graph of your own it is skipped until `stop_if_nonfinite` is called).
        name: The optimizer's name.

    Raises:
        ValueError: If `inner` keeps its own EMA or scales the loss, or if two rules have one name.

    Examples:
        >>> optimizer = InterventionOptimizer(keras.optimizers.Adam(1e-3), [])
        >>> optimizer
        InterventionOptimizer(Adam)
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        interventions: Sequence[Intervention] = (),
        *,
        feedback: Mapping[str, Any] | None = None,
        metrics_every: int | None = None,
        on_nonfinite: str | None = None,
        name: str | None = None,
    ):
        super().__init__(learning_rate=0.0, name=name)
        refuse_inner(inner)
        names = [rule.name for rule in interventions]
        doubles = sorted({each for each in names if names.count(each) > 1})
        if doubles:
            raise ValueError(
                f"two rules are named {doubles[0]!r}; give one of them another `name`, it names the metrics"
            )
        self.inner = inner
        self.interventions = tuple(interventions)
        self.extra_feedback = dict(feedback or {})
        self.metrics_every = cadence.checked(metrics_every)
        nonfinite.refuse(on_nonfinite)
        self.on_nonfinite = on_nonfinite
        self._skipped: Any = None
        self.feedback = FeedbackBoard(self.add_variable)
        self.attached = self.ends_clean = False
        self._began = False
        self._began_by_itself = False
        self._held = Exchange()
        self._saved_paths: Sequence[str] = ()
        self._saved_selections: Sequence[Sequence[int]] = ()
        self.masks = Masks(self.interventions)
        """The entries that rules hold where they are."""
        self._gradients: dict[int, Any] = {}

    # Building -------------------------------------------------------------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        """Creates all state: the inner optimizer's, the rules', and the clean copies. Call it early.

        Raises:
            ValueError: If a rule selects nothing (the message lists all paths), or if the weights have no
                values yet.
        """
        if self.built or not variables:  # legacy HDF5 files ask with none
            return
        replicas.refuse(self, variables)
        if not keras_internals.restore_paths(variables, self._saved_paths):
            self._saved_selections = ()
        with backend.building(self):
            if self.interventions and not all(map(backend.has_value, variables)):
                raise ValueError(
                    "the model's weights have no values yet, and rules need to see them: begin the model "
                    "with `keras.Input(shape)`, or call it on a batch, before `fit`."
                )
            self.inner.build(variables)
            super().build(variables)
            self._create_state(list(variables))
            if self.waiting_weights is not None:
                self.set_weights(self.waiting_weights)
                self.waiting_weights = None
            if self._began:
                self.begin_iteration()

    def _create_state(self, variables: list[Any]) -> None:
        for name, initial in self.extra_feedback.items():
            self.feedback.bind(Feedback(name, initial))
        if self.on_nonfinite is not None:
            self._skipped = self.add_variable(shape=(), dtype="int", name="skipped_updates")
        self.anatomy = Anatomy(variables)
        self.kept = Slots(self.inner)
        """What the inner optimizer keeps of each weight."""
        if any(rule.touches_slots for rule in self.interventions):
            self.kept.keep_beginnings()
        chosen = self._saved_selections or [None] * len(self.interventions)
        for rule, indices in zip(self.interventions, chosen, strict=True):
            rule.bind(self, variables, indices)
        composition.warn(self.interventions)
        self._offsets = Offsets(self, self.interventions, variables)

    @property
    def variables(self) -> list[Any]:
        """All state: this wrapper's and its rules', then the inner optimizer's."""
        return super().variables + self.inner.variables

    def slots(self, variable: Variable) -> list[Variable]:
        """Returns the inner optimizer's per-weight state of `variable` (moments, ...).

        Raises:
            KeyError: If the optimizer was built without it.
        """
        return self.kept.of(variable)

    def gradient_of(self, variable: Variable) -> Tensor:
        """Returns the gradient that the step under way was given for `variable`; zero where it was none.

        Raises:
            ValueError: If no step has a gradient of its own, or each replica has another one.
        """
        if self.inner.gradient_accumulation_steps or backend.replicas(self) > 1:
            raise ValueError(
                "gradients are read where each step has one of its own: without "
                "`gradient_accumulation_steps`, and outside of strategies of several replicas"
            )
        gradient = self._gradients.get(id(variable))
        return (
            ops.zeros(variable.shape, variable.dtype) if gradient is None else ops.convert_to_tensor(gradient)
        )

    # One optimizer step ---------------------------------------------------------------------------

    @rewrites_weights
    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable] | None = None) -> None:
        """Restores clean weights, steps, applies the "after_step" rules, and puts the offsets back."""
        if not self.built:
            if trainable_variables is None:
                raise ValueError("Call `optimizer.build(variables)` before `apply(gradients)`.")
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        self._demand_iterations()
        for rule in self.interventions:
            if rule.owner is not self:
                raise RuntimeError(
                    f"{rule.name} belongs to another optimizer by now: a rule has state, so give each "
                    f"optimizer one of its own"
                )
        if self._skipped is None:
            self._step(grads, trainable_variables)
            return
        nonfinite.guarded(lambda: self._step(grads, trainable_variables), grads, self._skipped)
        if backend.runs_at_once():
            self.stop_if_nonfinite()

    def stop_if_nonfinite(self) -> None:
        """Ends training where `on_nonfinite` is "raise" and a step was not finite; outside of graphs.

        Raises:
            TrainingStopped: If there was one; the weights are those before it.
        """
        if self.on_nonfinite == "raise" and self._skipped is not None:
            nonfinite.stop_training(self._skipped)

    def _step(self, grads: Sequence[Tensor], trainable_variables: list[Variable] | None) -> None:
        step = ops.copy(self.inner.iterations)
        self._offsets.restore()
        weights = trainable_variables or keras_internals.trainable_variables(self)
        before = self.masks.values(weights)
        self.inner.apply(self.masks.gradients(weights, grads), trainable_variables)
        self.masks.hold(weights, before)
        given = None if trainable_variables is None else {id(v) for v in trainable_variables}

        def rewrite() -> None:
            self._gradients = {id(v): g for v, g in zip(weights, grads, strict=False) if g is not None}
            try:
                for rule in self._placed("after_step"):
                    rule.apply(step, given)
            finally:
                self._gradients = {}

        if self.inner.gradient_accumulation_steps:  # a micro batch is no step: nothing was updated
            ahead = ops.copy(self.inner.iterations)
            only_if(ops.not_equal(ahead, step), rewrite)
        else:
            ahead = step + 1
            rewrite()
        kept, looked_at = self._offsets.keep(), cadence.is_looked_at(ahead, self.metrics_every)
        self._offsets.draw("during_gradient", ahead, looked_at)
        if not self.ends_clean:
            self._offsets.put_back(kept)

    def _placed(self, placement: str) -> list[Intervention]:
        return [rule for rule in self.interventions if rule.placement == placement]

    def attach(self, ends_clean: bool = False) -> None:
        """Lets a model put live weights in for its steps only, of which one `apply` may be the clean end."""
        if not self.attached and self._under_way:
            self.restore_clean()
        self.attached, self.ends_clean = True, ends_clean

    @rewrites_weights
    def enter_step(self) -> None:
        """Puts the live weights in, in the graph, at the beginning of an attached model's step."""
        if self.built:  # what is in the weights now is clean, whatever wrote it
            self._offsets.put_back(self._offsets.keep())

    @rewrites_weights
    def leave_step(self) -> None:
        """Puts the clean weights in, in the graph, at the end of an attached model's step."""
        if self.built:
            self._offsets.restore()

    def _demand_iterations(self) -> None:
        if self._began:
            return
        if waiting := [r for r in self.interventions if r.placement in _BETWEEN_BEGIN_AND_END]:
            raise RuntimeError(
                f"{waiting[0].name} is placed {waiting[0].placement!r} and no iteration has begun: pass "
                f"`callbacks=[rlweights.WeightMonitor()]` to `fit`, or call `optimizer.begin_iteration()` "
                f"and `optimizer.end_iteration()` in a loop of your own."
            )
        if self._offsets.variables:
            self._began = self._began_by_itself = True
            self._offsets.activate()

    def _demand_attachment(self) -> None:
        """Refuses to train in Keras' own loop while nothing takes the noise out of the weights again."""
        if self.on_nonfinite == "raise" and not self.attached:
            raise RuntimeError(
                "on_nonfinite='raise' cannot end a graph that Keras runs: pass "
                "`callbacks=[rlweights.WeightMonitor()]` to `fit`, or call `rlweights.attach(model)` once"
            )
        waiting = [r for r in self.interventions if r.placement != "after_step"]
        if waiting and not self.attached and (self._began_by_itself or not self._began):
            raise RuntimeError(
                f"{waiting[0].name} is placed {waiting[0].placement!r}, and Keras trains without knowing "
                f"when weights are noisy: no iteration has begun. Pass "
                f"`callbacks=[rlweights.WeightMonitor()]` to `fit`, or call `rlweights.attach(model)` once "
                f"before `train_on_batch`."
            )

    # Iterations -----------------------------------------------------------------------------------

    @property
    def _under_way(self) -> bool:
        return self.built and self._offsets.active

    @rewrites_weights
    def begin_iteration(self) -> None:
        """Begins an iteration: rules adapt, and the undone ones draw their offsets.

        From then on the model's own weights are live between two steps, unless it is attached (see
        `rlweights.attach`): then they are live within its steps only. Rules placed "during_gradient" need no
        iteration: without one they begin with the first step, whose own gradient is still the clean one.
        Before `build` this takes effect in `build`: Keras builds while it traces the first step of `fit`.
        """
        self.release()
        self._began = True
        if not self.built:
            return
        step = ops.copy(self.inner.iterations)

        def adapt() -> None:
            for rule in self.interventions:
                rule.begin_iteration(step)

        self._offsets.begin(step, adapt)
        if not self.attached:
            self._offsets.put_back()

    @property
    def needs_beginning(self) -> bool:
        """Whether the next step must begin an iteration: nobody did, and no rule asks that somebody does."""
        return not self._began and all(r.placement not in _BETWEEN_BEGIN_AND_END for r in self.interventions)

    @rewrites_weights
    def abandon_iteration(self) -> None:
        """Ends an iteration that was interrupted: the weights are clean, and no rule acts; not in a graph."""
        self.release()
        self._began = False
        if self._under_way:
            self._offsets.end()

    @rewrites_weights
    def end_iteration(self) -> None:
        """Ends an iteration: the weights are clean again, and the "after_iteration" rules act on them."""
        self.release()
        if not self.built:
            self._began = False
            return
        self._offsets.end()
        step = ops.copy(self.inner.iterations)
        for rule in self._placed("after_iteration"):
            rule.apply(step)
        self._offsets.keep()

    @rewrites_weights
    def restore_clean(self) -> None:
        """Puts the clean weights in, for a look at them in the graph; `put_back` ends the look."""
        self._offsets.restore()

    @rewrites_weights
    def put_back(self) -> None:
        """Puts the live weights in again: the clean ones plus the same offsets, nothing is redrawn.

        Under XLA they may differ in the last bit from those that were drawn, with a fused multiply-add.
        """
        self._offsets.put_back()

    # Looking from outside -------------------------------------------------------------------------

    def metrics(self) -> dict[str, Any]:
        """The rules' scalars, by "<rule>/<metric>": tensors in a graph, readable outside of it."""
        found = {} if self._skipped is None else {"skipped_updates": ops.copy(self._skipped)}
        of_rules = {f"{r.name}/{name}": each for r in self.interventions for name, each in r.metrics.items()}
        return found | {name: ops.copy(variable) for name, variable in of_rules.items()}

    # The contract of a wrapping optimizer ---------------------------------------------------------

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Delegates to the inner optimizer.

        Raises:
            RuntimeError: If a rule is undone, and nothing undoes it: Keras' own training calls this.
        """
        self._demand_attachment()
        return self.inner.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Ends an iteration that is still under way, so that a finished `fit` leaves clean weights.

        Raises:
            RuntimeError: If no iteration has begun in a `fit` whose rules needed one.
        """
        if self._under_way:
            self.end_iteration()
        self._demand_attachment()  # again: a second `fit` need not trace, and so need not scale the loss
        self._began = self._began_by_itself = False
        self.inner.finalize_variable_values(var_list)

    def save_own_variables(self, store: Any) -> None:
        """Saves all state; while others are held in the weights, their own values, too."""
        super().save_own_variables(store)
        own = self._held.own_values()
        for i, variable in enumerate(keras_internals.trainable_variables(self)):
            if id(variable) in own:
                store[f"{_OWN_VALUE}{i}"] = own[id(variable)]

    def load_own_variables(self, store: Any) -> None:
        """Takes over saved state, that of version 0.1, too."""
        store = {key: store[key] for key in store.keys()}  # noqa: SIM118  (of HDF5, which is no mapping)
        variables = keras_internals.trainable_variables(self)
        own = {i: store.pop(f"{_OWN_VALUE}{i}", None) for i in range(len(variables))}
        held = [i for i, value in own.items() if value is not None]
        self._held.resume([variables[i] for i in held], [own[i] for i in held])
        store = self._offsets.adopted(store, self.variables) if self.built else store
        super().load_own_variables(store)

    def of_this_version(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Returns state by path that may be of version 0.1."""
        return self._offsets.repacked(state)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration of the inner optimizer and of every rule, and the weights' paths."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "inner": serialize(self.inner),
            "interventions": [serialize(rule) for rule in self.interventions],
            "metrics_every": self.metrics_every,
            **({} if self.on_nonfinite is None else {"on_nonfinite": self.on_nonfinite}),
            "feedback": {k: np.asarray(v).tolist() for k, v in self.extra_feedback.items()},
            "selections": self._selections(),
            "paths": [v.path for v in keras_internals.trainable_variables(self)] or list(self._saved_paths),
        }

    def _selections(self) -> list[list[int]]:
        """The indices of the weights that each rule selects; none before `build`."""
        if not self.built:
            return [list(each) for each in self._saved_selections]
        places = {id(v): i for i, v in enumerate(keras_internals.trainable_variables(self))}
        return [[places[id(v)] for v in rule.variables] for rule in self.interventions]

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> "InterventionOptimizer":
        """Makes the optimizer that `get_config` described."""
        config = dict(config)

        def deserialize(each: Any) -> Any:
            return keras.saving.deserialize_keras_object(each, custom_objects=custom_objects)

        inner = deserialize(config.pop("inner"))
        rules = [deserialize(rule) for rule in config.pop("interventions")]
        paths, selections = config.pop("paths", ()), config.pop("selections", ())
        optimizer = cls(inner, rules, **config)
        optimizer._saved_paths, optimizer._saved_selections = tuple(paths), tuple(selections)
        return optimizer

    def __repr__(self):
        chain = " -> ".join([type(self.inner).__name__, *map(repr, self.interventions)])
        return f"InterventionOptimizer({chain})"
