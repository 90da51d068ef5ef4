"""The schema of agent files: their tables, keys, types and defaults."""

from typing import Annotated, Any, Literal

import tomlkit
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.types import FiniteFloat

from rlweights.learning.algorithms import A2C, PPO, Reinforce
from rlweights.learning.algorithms.base import Count
from rlweights.running.config import checks

UNSET = "none"
"""The value of a setting that is off: TOML has no null, and leaving the key out takes the default."""


Seed = Annotated[int, Field(ge=0, lt=2**31)]
Units = Annotated[int, Field(ge=1, le=65_536)]


class Section(BaseModel):
    """A table of an agent file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Wrapper(BaseModel):
    """One wrapper of the environment: its name, and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = Field(description="Gymnasium's wrapper, package.module:Class, or file.py:Class.")


class EnvironmentSection(Section):
    """The environment that the agent acts in."""

    id: str = Field(description="Gymnasium id, module:Id, module:Class, or file.py:Class.")
    backend: Literal["gymnasium", "envpool", "tensorflow"] = Field(
        default="gymnasium", description="What steps the environments; tensorflow: one program with the rest."
    )
    num_envs: Count = Field(default=8, description="Environments that are stepped side by side.")
    vectorization_mode: Literal["sync", "async", "vector_entry_point"] | None = Field(
        default=None,
        description="Gymnasium's: this process, a process for each, or the environment's own vector version; "
        "left out: the vector version where there is one and no wrapper, else sync.",
    )
    num_threads: Annotated[int, Field(ge=0, le=1_024)] = Field(
        default=0, description="Threads of envpool; 0: one for each environment, up to the number of cores."
    )
    kwargs: dict[str, Any] = Field(default={}, description="Arguments of the environment itself.")
    folder: str | None = Field(
        default=None, description="Where modules of the environment lie; a run remembers it by itself."
    )
    render_mode: str | None = Field(
        default=None, description="Given to the environment, for wrappers that make observations of pixels."
    )
    timeout: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        default=None, description="Seconds to wait for a process of vectorization_mode 'async'; unset: 600."
    )
    on_error: Literal["stop", "recreate"] = Field(
        default="stop", description="What a step or reset that raises does: end the run, or make it anew."
    )
    max_recreations: Count = Field(
        default=10, description="How often each environment is made anew at most, with 'recreate'."
    )
    wrappers: list[str | Wrapper] = Field(
        default=[], description="Wrappers, innermost first: a name, or a table of name and arguments."
    )
    action_mask: Literal["auto", "info", "method", "observation", "none"] = Field(
        default="auto",
        description="Where masks of allowed actions come from: info['action_mask'], a method action_masks(), "
        "a key action_mask of the observation, or nowhere; auto: what the environment offers.",
    )
    normalize_observations: bool = Field(
        default=False, description="Normalize by running statistics, in the graph."
    )
    rescale_actions: bool = Field(
        default=True,
        description="Whether the policy works in half ranges around the middle of bounded float actions.",
    )
    encoding: Literal[1, 2] = Field(
        default=2,
        description="How observations become numbers; 1: as version 0.1 did, bytes by 255 and no images in "
        "dicts, small ones or of floats.",
    )
    normalize_rewards: bool = Field(
        default=False, description="Scale by the running deviation of the return."
    )


class Network(Section):
    """The policy and value networks."""

    hidden_sizes: list[Units] = Field(default=[64, 64], description="Units of each hidden layer.")
    value_hidden_sizes: list[Units] | None = Field(
        default=None, description="Those of the value network, if others."
    )
    activation: str = Field(default="tanh", description="Name of a Keras activation.")
    layer_norm: bool = Field(default=False, description="Layer norm before each activation.")
    shared: bool = Field(default=False, description="Whether both networks share one trunk.")
    log_std_init: FiniteFloat = Field(
        default=0.0, description="Initial log standard deviation of continuous actions."
    )
    policy_gain: FiniteFloat = Field(default=0.01, description="Gain of the policy's last layer.")
    flatten_images: bool = Field(
        default=False, description="Whether images become flat vectors instead of going through convolutions."
    )
    model: str | None = Field(
        default=None, description="file.py:Name that builds your own hidden layers instead."
    )


class Optimizer(BaseModel):
    """The inner Keras optimizer: its name, and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str | None = Field(
        default=None, description="Lower-case name of a Keras optimizer; unset: the algorithm's."
    )


class Rule(BaseModel):
    """One intervention: its name (or file.py:Class), and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    rule: str = Field(description="Name of a built-in rule, or file.py:Class for your own.")
    placement: Literal["after_step", "during_gradient", "during_iteration", "after_iteration"] | None = Field(
        default=None, description="When the weights change; unset: the rule's own."
    )
    name: str | None = Field(default=None, description="Names the metrics; unset: the rule's name.")
    seed: Seed | None = Field(default=None, description="Seed of its draws; unset: the agent's.")


class Budget(Section):
    """How long to train."""

    total_timesteps: Count = Field(
        default=100_000, description="Environment steps of all environments, rounded down to whole rollouts."
    )


class Evaluation(Section):
    """How the agent is evaluated: whole episodes on clean weights in the real environment."""

    every: Annotated[int, Field(ge=0)] = Field(
        default=20_000, description="Steps between two; 0: only at the end."
    )
    episodes: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Episodes of each evaluation while training; 0: none is made."
    )
    final_episodes: Annotated[int, Field(ge=0)] = Field(
        default=100, description="Episodes of the last evaluation; 0: there is none."
    )
    num_envs: Count = Field(
        default=10, description="Environments that are evaluated side by side, at most one an episode."
    )
    max_episode_steps: Count = Field(
        default=10_000, description="Where episodes are cut off that the environment itself does not limit."
    )
    max_steps: Count | None = Field(
        default=None,
        description="Steps of one evaluation, all episodes together; unset: 100,000 where the environment "
        "does not limit its episodes, else as many as they take.",
    )
    kwargs: dict[str, Any] = Field(
        default={}, description="Arguments of the environment in evaluations, where they are others."
    )
    phase: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Where tasks change by phases: the phase to evaluate in; left out: the first one.",
    )
    deterministic: bool = Field(
        default=True,
        description="Whether to take the most likely action, in films too, rather than to sample.",
    )
    film_every: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Evaluations between two filmed episodes; 0: only the last one has one."
    )
    film_frames: Annotated[int, Field(ge=0)] = Field(
        default=150, description="Frames of a film at most, 2 or more; 0: no films."
    )


class Checkpoint(Section):
    """When the whole state is saved."""

    every: Annotated[int, Field(ge=0)] = Field(
        default=20_000, description="Steps between two; 0: only at the end."
    )
    keep: Count = Field(default=3, description="Number of newest checkpoints to keep.")


class Logging(Section):
    """What is recorded, and how often."""

    every: Count = Field(
        default=2_048, description="Steps between two rows of scalars; at least one iteration."
    )
    alarms: bool = Field(default=True, description="Whether to say when the run begins to look sick.")
    info: list[str] = Field(
        default=[], description="Scalars of the environment's infos to record as means over an episode."
    )
    diagnostics_every: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Rows between two measurements of weights and plasticity, beside those before training "
        "and at its end; 0: none at all; left out: as many as make 24 in a run.",
    )
    histograms_every: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Rows between two histograms of weights and gradients; 0: never."
    )
    trackers: list[Literal["wandb", "mlflow"]] = Field(
        default=[], description="Where else scalars go; each is an extra of its name, and loaded only then."
    )
    solved_return: FiniteFloat | None = Field(
        default=None,
        description="Where tasks change by phases: the mean return of 20 episodes that solves a task.",
    )


class GuardSection(Section):
    """The treatment of updates that are not finite."""

    on_nonfinite: Literal["skip", "stop", "rollback"] = Field(
        default="skip", description="Skip the step; stop at the first; or go back to the last checkpoint."
    )
    patience: Count = Field(default=20, description="Skipped steps in a row after which the run stops.")


class Expect(Section):
    """The agent's claim."""

    mean_reward: FiniteFloat = Field(description="Mean return of the final evaluation.")
    seeds: list[Seed] = Field(default=[0, 1, 2, 3, 4], description="Seeds for which it was measured.")


class Agent(Section):
    """One agent file. A setting that may be off is switched off by "none": `max_grad_norm = "none"`."""

    description: str = Field(default="", description="The agent in one line.")
    seed: Seed = Field(default=0, description="Seed of everything that is random.")
    environment: EnvironmentSection
    algorithm: Annotated[PPO | A2C | Reinforce, Discriminator("name")] = PPO()
    optimizer: Optimizer = Optimizer()
    network: Network = Network()
    interventions: list[Rule] = []
    budget: Budget = Budget()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
    guard: GuardSection = GuardSection()
    expect: Expect | None = None

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one rollout."""
        return self.algorithm.n_steps * self.environment.num_envs

    @property
    def total_iterations(self) -> int:
        """Rollouts that fit into the budget."""
        return self.budget.total_timesteps // self.steps_per_iteration

    def to_toml(self) -> str:
        """Returns the file that repeats this configuration, defaults included."""
        return tomlkit.dumps(self.model_dump(by_alias=True, exclude_none=True))

    @model_serializer(mode="wrap")
    def _with_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Writes "none" where leaving the key out would mean a default that is something else."""
        data = handler(self)
        for name, field in type(self.algorithm).model_fields.items():
            if getattr(self.algorithm, name) is None and field.default is not None:
                data["algorithm"][name] = UNSET
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Agent":
        checks.check(self)
        return self
