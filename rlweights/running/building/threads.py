"""How many threads the operations of an agent are worth."""

from collections.abc import Sequence
from itertools import pairwise

from rlweights.backend import cores
from rlweights.learning.parts import ObservationPart, first_inputs
from rlweights.learning.tables import WIDTH
from rlweights.running.config.schema import Agent

LARGE = 2**21
"""Multiplications of one matrix product from which on a second thread pays.

Measured on two cores, CartPole as one program, 64 x 64 units: with batches of 128 (2^19) a second thread
gains nothing and costs steadiness (225 to 294 thousand steps a second; with one thread 251 to 265); with
batches of 2,048 (2^23) it pays. This is the middle.
"""


def threads_for(agent: Agent, parts: Sequence[ObservationPart], own_layers: bool = False) -> int:
    """Returns 1 where the products of an update are small; as many as there are cores elsewhere.

    Args:
        agent: The configuration.
        parts: What an observation consists of. Convolutions are worth all cores.
        own_layers: Whether the layers are the user's own, of which nothing is known: they get all cores.
    """
    if own_layers or any(part.kind == "image" for part in parts):
        return cores()
    network, batch = agent.network, agent.algorithm.batch_size or agent.steps_per_iteration
    inputs = first_inputs(parts, WIDTH)
    layers = (network.hidden_sizes, network.value_hidden_sizes or [])
    largest = max(a * b for hidden in layers for a, b in pairwise([inputs, *hidden, 1]))
    return cores() if batch * largest >= LARGE else 1
