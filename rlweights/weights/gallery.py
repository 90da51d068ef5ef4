"""The gallery of rules: a card of each, made of its class."""

import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from rlweights.weights.interventions import RULES, Intervention, get

SUBJECTS = {
    "Bounds and norms": ("clipping", "projection", "spectral_norm", "orthogonal"),
    "Gradients somewhere else": ("noise", "adaptive_noise", "drop_connect", "sharpness_aware", "increment"),
    "Small models": ("pruning", "quantization", "binarization", "clustering"),
    "Other weights for evaluation": ("averaging", "lookahead", "hare_and_tortoise", "schedule_free"),
    "Data that changes": ("shrinkage", "recycling", "continual_backpropagation", "freezing"),
}
"""The rules by what they are for, as the gallery shows them."""

PLACED = {
    "after_step": "after each optimizer step, and kept",
    "during_gradient": "while one loss and its gradient are computed, and undone",
    "during_iteration": "during an iteration, by one draw, and undone",
    "after_iteration": "once between two iterations, and kept",
}


class Card:
    """What there is to say of one rule.

    Args:
        name: The rule's name in agent files.

    Raises:
        ValueError: If there is no rule of that name; the message names the nearest.
    """

    def __init__(self, name: str):
        self.name = name
        self.rule: type[Intervention] = get(name)
        self._parts = (inspect.getdoc(self.rule) or "").split("\n\n")

    @property
    def summary(self) -> str:
        """The first sentence."""
        return self._parts[0].replace("\n", " ")

    @property
    def equation(self) -> str:
        """The indented lines that say what happens to a weight."""
        arguments = next(i for i, part in enumerate(self._parts) if part.startswith("Args:"))
        return textwrap.dedent(next(part for part in self._parts[1:arguments] if part.startswith("    ")))

    @property
    def source(self) -> str:
        """The papers, or nothing."""
        found = [part for part in self._parts if re.match("References?:", part)]
        return re.sub(r"\s+", " ", found[0].partition(":")[2]).strip() if found else ""

    @property
    def placement(self) -> str:
        """When it acts, and at which other placements it may."""
        others = [each for each in self.rule.placements if each != self.rule.placement]
        also = f"; also {', '.join(f'`{each}`' for each in others)}" if others else ""
        return f"`{self.rule.placement}`: {PLACED[self.rule.placement]}{also}"

    def made(self) -> Intervention:
        """Returns the rule of the example."""
        return eval(f"rules.{self.rule.example}", {"rules": _Rules()})

    @property
    def code(self) -> str:
        """The example in `fit`."""
        return (
            f"rules = [rw.{self.rule.example}]\n"
            f"optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.01, momentum=0.9), rules)\n"
            f'model.compile(optimizer, "mse")\n'
            f"model.fit(x, y, verbose=0, callbacks=[rw.WeightMonitor(probe=x)])\n"
            f"rw.strip(model)"
        )

    @property
    def toml(self) -> str:
        """The example in an agent file."""
        given = self.made().arguments
        lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
        return "\n".join(["[[interventions]]", f'rule = "{self.name}"', *lines])

    def markdown(self, cost: str = "", picture: str = "") -> str:
        """Returns the card as a section of a page.

        Args:
            cost: What a step costs, in words; left out if empty.
            picture: Path of a picture of what becomes of a weight; left out if empty.
        """
        lines = [f"### {self.rule.__name__}", "", self.summary, "", f"**For** {_lower(self.rule.when)}", ""]
        lines += ["```text", self.equation, "```", "", f"**Acts** {self.placement}."]
        metrics = ("relative_change", *self.rule.metric_names)
        lines += [f"**Metrics**: {', '.join(f'`{each}`' for each in metrics)}."]
        lines += [f"**Cost**: {cost}."] if cost else []
        for study, found in self.rule.evidence:
            lines += ["", f"**Measured**: {found} ([{study}](studies/{study}/table.md))."]
        lines += ["", "```python", self.code, "```", "", "```toml", self.toml, "```"]
        lines += ["", f"![What {self.rule.__name__} makes of a kernel]({picture})"] if picture else []
        lines += ["", f"**Source**: {self.source}"] if self.source else []
        return "\n".join(lines)


class _Rules:
    """The classes of all rules, as attributes."""

    def __getattr__(self, name: str) -> Any:
        return next(rule for rule in RULES.values() if rule.__name__ == name)


def page(costs: Mapping[str, str], pictures: Mapping[str, str]) -> str:
    """Returns the gallery as a page.

    Args:
        costs: What a step costs with a rule, in words, by the rule's name.
        pictures: Paths of pictures by the rule's name.
    """
    parts = [_HEAD.rstrip()]
    for subject, names in SUBJECTS.items():
        parts.append(f"## {subject}")
        parts += [Card(name).markdown(costs.get(name, ""), pictures.get(name, "")) for name in names]
    return "\n\n".join([*parts, _together()]) + "\n"


def rows() -> list[tuple[str, str, str]]:
    """Returns name, placement and summary of each rule, by subject."""
    return [
        (name, Card(name).rule.placement, Card(name).summary)
        for name in itertools.chain.from_iterable(SUBJECTS.values())
    ]


def _together() -> str:
    """What a rule's promise becomes behind the others."""
    made = {name: Card(name).made() for name in itertools.chain.from_iterable(SUBJECTS.values())}
    kept = {name: rule for name, rule in made.items() if rule.placement == "after_step"}
    lines = [_TOGETHER.rstrip(), "", "| promise | of | survives | broken by |", "|---|---|---|---|"]
    for name, rule in kept.items():
        if rule.promise:
            others = [other for other in kept if other != name]
            good = [each for each in others if kept[each].preserves(rule.promise)]
            bad = [each for each in others if each not in good]
            lines.append(f"| {rule.promise} | {name} | {', '.join(good)} | {', '.join(bad) or 'none'} |")
    return "\n".join(lines)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


_HEAD = """# The catalogue of rules

One sentence carries all of them: *loss and gradient at the live weights, the step on the clean ones, rules
around it, other weights for evaluation.* A card says what a rule does, what it is for, and who published it;
`python -m rlweights.rules` prints the list, `python -m rlweights.rules pruning` one card.
[Reference](reference.md) has all arguments. This page is made of the classes by `python -m rlweights.rules
--page`; its code is executed by a test, on

```python
import keras
import numpy as np

import rlweights as rw

x = np.random.normal(size=(64, 8)).astype("float32")
y = np.random.normal(size=(64, 1)).astype("float32")
layers = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(1, name="head")]
model = keras.Sequential([keras.Input((8,)), *layers], name="model")
```

The last line of each example, `strip`, leaves a plain Keras model of the weights that evaluations see. The
pictures show a kernel in the order that its entries have without the rule: without it (grey), with it as
evaluations see it (blue), and as losses see it, where that is something else (dots). A rule of your own has a
dozen lines: `examples/sign_flip.py`.
"""

_TOGETHER = """## Rules together

Zeros of `Pruning` and weights of `Freezing` hold whatever the order of the rules: nothing that writes weights
gets past them. Evaluations see first the last average (`Averaging`, `Lookahead`, `HareAndTortoise`,
`ScheduleFree`), then its rounded form (`Quantization`, `Binarization`, `Clustering`), then the zeros. What is
undone leaves everything as it was. Of rules that are kept and act behind one that promises something, this
holds; who builds an order that breaks a promise is warned by name. An average of bounded weights is bounded
where `Averaging` stands behind `Clipping`; an average keeps no norm.
"""
