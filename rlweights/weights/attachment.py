"""Rules in a Keras model's own training: its weights are clean whenever none of its steps runs."""

from collections.abc import Callable, Iterator
from typing import Any

import keras

from rlweights.weights import backend
from rlweights.weights.keras_internals import layers_of, set_compiled_optimizer
from rlweights.weights.optimizer import InterventionOptimizer


def optimizers_of(model: Any) -> dict[str, InterventionOptimizer]:
    """Returns every `InterventionOptimizer` that a model holds, by the attribute that holds it.

    That is `model.optimizer` first, then any attribute of a model with several (the two optimizers of a GAN),
    and in each the optimizers inside a `LossScaleOptimizer` or a `MultiOptimizer`.
    """
    attributes = {"optimizer": getattr(model, "optimizer", None), **vars(model)}
    found: dict[str, InterventionOptimizer] = {}
    for name, value in attributes.items():
        if isinstance(value, keras.optimizers.Optimizer):
            inside = [each for each in _inside(value) if each not in found.values()]
            for i, each in enumerate(inside):
                found[name.lstrip("_") if len(inside) == 1 else f"{name.lstrip('_')}_{i}"] = each
    return found


def _inside(optimizer: Any) -> Iterator[InterventionOptimizer]:
    if isinstance(optimizer, InterventionOptimizer):
        yield optimizer
    for each in [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())]:
        if each is not None:
            yield from _inside(each)


def attach(model: Any) -> None:
    """Makes a compiled model keep its own weights clean whenever none of its training steps runs.

    The live weights are put in at the beginning of `train_step` and taken out at its end, inside of the
    compiled step. So callbacks, in any order, see clean weights, and so does what comes after an error or an
    interrupt: nothing else need know about rules. `WeightMonitor` calls this; call it once yourself before
    `train_on_batch`. A model may be attached twice, compiled again, and given another optimizer.

    Args:
        model: A Keras model that is compiled with an `InterventionOptimizer`, or holds several.

    Raises:
        ValueError: If it holds none, or on JAX one that is not `model.optimizer`.
    """
    optimizers = _demanded(model).values()
    if backend.THREADS_STATE and (others := set(optimizers) - set(_inside(model.optimizer))):
        raise ValueError(
            f"{others.pop().name} is not `model.optimizer`: on JAX Keras' training carries the state of that "
            f"one alone, so a model with several optimizers needs a loop of your own there"
        )
    step, make = model.train_step, model.make_train_function
    attached = getattr(step, "puts_live_weights_in", False)
    own = step.is_own if attached else getattr(step, "__func__", None) is keras.Model.train_step
    for each in optimizers:
        # Keras' own step ends with one update. That of a guard or of a loss scale need not be made.
        each.attach(ends_clean=own and each is model.optimizer and each.on_nonfinite is None)
    if attached:
        return

    def enter() -> None:
        for each in optimizers_of(model).values():
            each.enter_step()

    def leave() -> None:
        for each in optimizers_of(model).values():
            each.leave_step()

    def end() -> None:
        for each in optimizers_of(model).values():
            if not each.ends_clean:
                each.leave_step()

    def make_train_function(force: bool = False) -> Any:
        if force or model.train_function is None:
            make(force)
            model.train_function = backend.guarded_steps(model, model.train_function, before, after, leave)
        return model.train_function

    def before() -> list[Callable[[], Any]]:
        build_early(model)
        due: list[Callable[[], Any]] = []
        for each in optimizers_of(model).values():
            if each.holds:
                due.append(each.release)
            if each.needs_beginning:  # noise of single gradients, which needs no iteration
                due.append(each.begin_iteration)
        return due

    def after() -> list[Callable[[], Any]]:
        found = optimizers_of(model).values()
        return [each.stop_if_nonfinite for each in found if each.on_nonfinite == "raise"]

    train_step: Any = backend.around_step(model, step, enter, end)
    train_step.puts_live_weights_in, train_step.is_own = True, own
    model.train_step, model.make_train_function = train_step, make_train_function
    model.make_train_function(force=True)  # what was traced before knows nothing of this


def _demanded(model: Any) -> dict[str, InterventionOptimizer]:
    if found := optimizers_of(model):
        return found
    kind = type(getattr(model, "optimizer", None)).__name__
    raise ValueError(
        f"the model's optimizer carries no interventions; compile it with "
        f"`InterventionOptimizer(inner, rules)`. Found: {kind}"
    )


def strip(model: Any) -> Any:
    """Ends training with rules: the model keeps what evaluations see of it, and the inner optimizer alone.

    Averages, pruned, rounded or slow weights are the model's own from then on, for `save`, `export` and
    `quantize`; what is saved loads without rlweights. The model can be trained on, without rules.

    Args:
        model: A Keras model that is compiled with an `InterventionOptimizer`, or holds several.

    Returns:
        The same model.

    Raises:
        ValueError: If it holds none.
    """
    found = _demanded(model)
    for each in found.values():
        each.abandon_iteration()
        each.hold()
        each.keep_held()
    for name, value in {"optimizer": model.optimizer, **vars(model)}.items():
        if isinstance(value, keras.optimizers.Optimizer):
            setattr(model, name, _without_rules(value))
    set_compiled_optimizer(model, model.optimizer)
    for name in ("train_step", "make_train_function"):
        vars(model).pop(name, None)
    model.train_function = None
    return model


def _without_rules(optimizer: Any) -> Any:
    if isinstance(optimizer, InterventionOptimizer):
        return optimizer.inner
    if isinstance(inner := getattr(optimizer, "inner_optimizer", None), InterventionOptimizer):
        optimizer.inner_optimizer = inner.inner
    elif several := getattr(optimizer, "optimizers", None):
        optimizer.optimizers = [_without_rules(each) for each in several]
    return optimizer


def build_early(model: Any) -> None:
    """Builds the optimizer of a built model, so that offsets can be drawn before its first step is traced."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built and all(layer.built for layer in layers_of(model)):
        optimizer.build(model.trainable_variables)
