"""How a run ended."""

from dataclasses import dataclass, field
from pathlib import Path

from rlweights.learning.evaluation import Result
from rlweights.running.records.throughput import Rate


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: The run folder.
        evaluation: The last evaluation; None if there was none.
        finished: Whether this session has used up the budget.
        env_steps: Environment steps of the whole run.
        seconds: How long this session of it took.
        signal: The signal that ended it, if one did.
        resumes_at: The step of the newest checkpoint, 0 if there is none.
        made: Environment steps of this session.
        stopped: By which callback it was stopped before the end of its budget, and why; else nothing.
        rate: How fast it trained, and how long it trained and evaluated.
        sampled: Mean return of the newest training episodes, whose actions are sampled; None: none has ended.
    """

    folder: Path
    evaluation: Result | None
    env_steps: int
    seconds: float
    signal: int | None = None
    resumes_at: int = 0
    made: int = 0
    stopped: str = ""
    finished: bool = False
    rate: Rate = field(default_factory=Rate)
    sampled: float | None = None
