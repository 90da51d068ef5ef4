"""The base class of policy-gradient algorithms: hyper-parameters and a loss."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.types import FiniteFloat

from rlweights.learning.batch import Minibatch
from rlweights.weights.arrays import Scalar, Tensor

Positive = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Fraction = Annotated[FiniteFloat, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Linear(BaseModel):
    """A value that changes linearly over the whole budget: `{ from = 1e-3, to = 0.0 }`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    start: FiniteFloat = Field(alias="from")
    end: FiniteFloat = Field(alias="to")


def at(value: float | Linear, progress: Scalar) -> Scalar:
    """Returns the value of a number or `Linear` at a progress in [0, 1] (a float or a tensor)."""
    if isinstance(value, Linear):
        return value.start + (value.end - value.start) * progress
    return value


class Algorithm(BaseModel):
    """Hyper-parameters under Stable-Baselines3's names, and one loss.

    Subclasses set defaults and implement `policy_loss`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    default_optimizer: ClassVar[dict[str, Any]] = {"name": "adam", "epsilon": 1e-5}

    n_steps: Count = Field(default=128, description="Steps of each environment in one rollout.")
    gamma: Fraction = Field(default=0.99, description="Discount factor.")
    gae_lambda: Fraction = Field(default=0.95, description="Lambda of generalized advantage estimation.")
    learning_rate: Positive | Linear = Field(default=3e-4, description="Learning rate.")
    n_epochs: Count = Field(default=1, description="Passes over a rollout.")
    batch_size: Count | None = Field(
        default=None, description="Size of a minibatch; the whole rollout if unset."
    )
    normalize_advantage: bool = Field(default=True, description="Normalize the advantages of each minibatch.")
    ent_coef: NonNegative | Linear = Field(default=0.0, description="Weight of the entropy bonus.")
    vf_coef: NonNegative = Field(default=0.5, description="Weight of the value loss.")
    max_grad_norm: Positive | None = Field(
        default=0.5, description="Gradients are scaled to this norm at most."
    )

    @property
    def target_divergence(self) -> float | None:
        """The approximate KL divergence beyond which the rest of an update is skipped; None: no limit."""
        return None

    def policy_loss(
        self, log_prob: Tensor, batch: Minibatch, progress: Scalar
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the per-sample policy loss [B] and per-sample statistics, to be averaged over `valid`.

        Args:
            log_prob: Log-probabilities [B] of the actions under the current policy.
            batch: The minibatch; its advantages are already normalized if `normalize_advantage` is on.
            progress: Scalar in [0, 1], the part of the budget that is used up.
        """
        raise NotImplementedError

    def value_loss(self, values: Tensor, batch: Minibatch, progress: Scalar) -> Tensor:
        """Returns the per-sample value loss [B]: the squared error, as in Stable-Baselines3."""
        difference = batch.returns - values
        return difference * difference
