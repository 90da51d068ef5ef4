"""Which weights: selectors over the variables of a model.

A selector is built from a few leaves and combined with ``&``, ``|`` and ``~``; its ``repr`` is the
expression that made it, and the same text works in an agent file:

>>> kind("kernel") & ~path("value/.*")
kind('kernel') & ~path('value/.*')
>>> select("kind('kernel') & ~path('value/.*')")
kind('kernel') & ~path('value/.*')
"""

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from rlweights.weights.arrays import Variable


class Selector:
    """A subset of a list of variables. Combine selectors with ``&``, ``|`` and ``~``."""

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        """Tells for each of `variables` whether it is selected."""
        raise NotImplementedError

    def __call__(self, variables: Sequence[Variable]) -> list[Variable]:
        """Returns the selected ones of `variables`, in their order.

        Raises:
            ValueError: If it or a part of it selects nothing. The message lists every path, so that
                a typing error shows itself at once instead of training without the rule.
        """
        paths = ", ".join(v.path for v in variables)
        chosen = [v for v, yes in zip(variables, self.mask(variables), strict=True) if yes]
        if not chosen:
            raise ValueError(f"{self!r} selects none of the weights: {paths}")
        for leaf in self.leaves():
            if not any(leaf.mask(variables)):
                raise ValueError(f"{leaf!r}, a part of {self!r}, selects none of the weights: {paths}")
        return chosen

    def leaves(self) -> list["Selector"]:
        """Returns the parts each of which must select something; a predicate may well say no."""
        return [self]

    def expression(self) -> str:
        """Returns the expression that is saved: as `repr`, but layers by the paths of their weights."""
        return repr(self)

    def __and__(self, other: Any):
        return _Both(self, select(other))

    def __or__(self, other: Any):
        return _Either(self, select(other))

    def __invert__(self):
        return _Not(self)


@dataclass(frozen=True, repr=False)
class _Both(Selector):
    left: Selector
    right: Selector

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        pairs = zip(self.left.mask(variables), self.right.mask(variables), strict=True)
        return [a and b for a, b in pairs]

    def leaves(self) -> list[Selector]:
        return [*self.left.leaves(), *self.right.leaves()]

    def expression(self) -> str:
        return self._joined(lambda each: each.expression())

    def _joined(self, text: Callable[[Selector], str]) -> str:
        parts = (f"({text(s)})" if isinstance(s, _Either) else text(s) for s in (self.left, self.right))
        return " & ".join(parts)

    def __repr__(self):
        return self._joined(repr)


@dataclass(frozen=True, repr=False)
class _Either(Selector):
    left: Selector
    right: Selector

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        pairs = zip(self.left.mask(variables), self.right.mask(variables), strict=True)
        return [a or b for a, b in pairs]

    def leaves(self) -> list[Selector]:
        return [*self.left.leaves(), *self.right.leaves()]

    def expression(self) -> str:
        return f"{self.left.expression()} | {self.right.expression()}"

    def __repr__(self):
        return f"{self.left!r} | {self.right!r}"


@dataclass(frozen=True, repr=False)
class _Not(Selector):
    inner: Selector

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        return [not yes for yes in self.inner.mask(variables)]

    def leaves(self) -> list[Selector]:
        return self.inner.leaves()

    def expression(self) -> str:
        return self._negated(self.inner.expression())

    def _negated(self, text: str) -> str:
        return f"~({text})" if isinstance(self.inner, _Both | _Either) else f"~{text}"

    def __repr__(self):
        return self._negated(repr(self.inner))


@dataclass(frozen=True)
class _Everything(Selector):
    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        return [True] * len(variables)

    def __repr__(self):
        return "everything()"


@dataclass(frozen=True)
class _Path(Selector):
    pattern: str

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        return [any(re.fullmatch(self.pattern, end) for end in _ends(v.path)) for v in variables]

    def __repr__(self):
        return f"path({self.pattern!r})"


@dataclass(frozen=True)
class _Kind(Selector):
    names: tuple[str, ...]

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        return [v.name in self.names for v in variables]

    def __repr__(self):
        return f"kind({', '.join(map(repr, self.names))})"


@dataclass(frozen=True)
class _Family(Selector):
    """Weights by what their layers name them, in one word."""

    word: str
    names: tuple[str, ...]

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        return [v.name in self.names for v in variables]

    def __repr__(self):
        return f"{self.word}()"


@dataclass(frozen=True, eq=False)
class _Layers(Selector):
    layers: tuple[Any, ...]  # keras layers, or names of layers

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        owned = {id(w) for each in self.layers if not isinstance(each, str) for w in each.weights}
        names = [each.strip("/") for each in self.layers if isinstance(each, str)]

        def inside(variable: Variable) -> bool:
            owner = f"/{owner_of(variable)}/"
            return id(variable) in owned or any(f"/{name}/" in owner for name in names)

        return [inside(v) for v in variables]

    def leaves(self) -> list[Selector]:
        return [_Layers((each,)) for each in self.layers]

    def expression(self) -> str:
        def text(each: Any) -> str:
            if isinstance(each, str) or not each.weights:
                return repr(_Layers((each,)))
            return repr(_Path("|".join(re.escape(w.path) for w in each.weights)))

        return " | ".join(text(each) for each in self.layers)

    def __repr__(self):
        names = (each if isinstance(each, str) else (each.path or each.name) for each in self.layers)
        return f"layers({', '.join(map(repr, names))})"


@dataclass(frozen=True)
class _Depth(Selector):
    indices: tuple[int, ...]

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        owners = list(dict.fromkeys(owner_of(v) for v in variables))
        wanted = {owners[i] for i in self.indices if -len(owners) <= i < len(owners)}
        return [owner_of(v) in wanted for v in variables]

    def __repr__(self):
        return f"depth({', '.join(map(repr, self.indices))})"


@dataclass(frozen=True)
class _Predicate(Selector):
    function: Callable[[Variable], bool]

    def mask(self, variables: Sequence[Variable]) -> list[bool]:
        return [bool(self.function(v)) for v in variables]

    def leaves(self) -> list[Selector]:
        return []

    def __repr__(self):
        return f"predicate({getattr(self.function, '__qualname__', self.function)})"


def owner_of(variable: Variable) -> str:
    """The path of the layer that owns `variable`: its own path without the last part."""
    return variable.path.rpartition("/")[0]


def _ends(path: str) -> list[str]:
    """A path, and what is behind each of its slashes."""
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


KERNEL_NAMES = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
ADAPTER_NAMES = ("lora_kernel_a", "lora_kernel_b")


def kernels() -> Selector:
    """Selects the kernels of all layers: dense, convolutional, recurrent, attention; not LoRA's factors."""
    return _Family("kernels", KERNEL_NAMES)


def kernels_and_biases() -> Selector:
    """Selects kernels, LoRA's factors of kernels, and biases; no embeddings, no normalization."""
    return _Family("kernels_and_biases", (*KERNEL_NAMES, *ADAPTER_NAMES, "bias"))


def everything() -> Selector:
    """Selects every trainable weight."""
    return _Everything()


def path(pattern: str) -> Selector:
    """Selects by a regular expression that must match the whole `variable.path`, or it from any slash on.

    Raises:
        ValueError: If `pattern` is no valid regular expression.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a valid regular expression: {error}") from None
    return _Path(pattern)


def kind(*names: str) -> Selector:
    """Selects by role, the variable's own name: "kernel", "bias", "gamma", ..."""
    return _Kind(names)


def layers(*layers: Any) -> Selector:
    """Selects the weights of layers, given as objects or as names or path parts ("policy/head")."""
    return _Layers(layers)


def depth(*indices: int) -> Selector:
    """Selects by the index of the owning layer, counted in build order; negative ones from the end."""
    return _Depth(indices)


_LEAVES = {
    "everything": everything,
    "path": path,
    "kind": kind,
    "kernels": kernels,
    "kernels_and_biases": kernels_and_biases,
    "layers": layers,
    "depth": depth,
}


def select(on: Any = None) -> Selector:
    """Makes a selector of whatever a user may write.

    Args:
        on: None (every weight), a selector, an expression or a regular expression on the whole path
            (str), a layer, the index of a layer (int), a predicate on variables, or a list or tuple
            of these, of which any may match.

    Raises:
        TypeError: If `on` is none of these.
        ValueError: If a string is neither a valid expression nor a valid regular expression.
    """
    if on is None:
        return everything()
    if isinstance(on, Selector):
        return on
    if isinstance(on, str):
        return _parse(on)
    if isinstance(on, keras.layers.Layer):
        return layers(on)
    if isinstance(on, int) and not isinstance(on, bool):
        return depth(on)
    if isinstance(on, list | tuple) and on:
        chosen = select(on[0])
        for other in on[1:]:
            chosen = chosen | select(other)
        return chosen
    if callable(on):
        return _Predicate(on)
    raise TypeError(
        f"`on` takes a regular expression, a selector expression such as \"kind('kernel')\", a layer, "
        f"a layer index or a predicate. Received: {on!r}"
    )


def _parse(text: str) -> Selector:
    """Reads a selector expression; any other text is a regular expression on the path."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return path(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if not any(isinstance(c.func, ast.Name) and c.func.id in _LEAVES for c in calls):
        return path(text)
    return _evaluate(tree, text)


def _evaluate(node: ast.AST, text: str) -> Selector:
    match node:
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return _evaluate(left, text) & _evaluate(right, text)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _evaluate(left, text) | _evaluate(right, text)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ~_evaluate(operand, text)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _LEAVES:
            try:
                values = [ast.literal_eval(each) for each in arguments]
                return _LEAVES[name](*values)
            except (TypeError, ValueError) as error:
                raise ValueError(f"in the selector {text!r}: {error}") from None
    raise ValueError(
        f"the selector {text!r} may only combine {', '.join(_LEAVES)} with &, | and ~; "
        f"{ast.unparse(node)!r} is none of these"  # pyright: ignore[reportArgumentType]
    )
