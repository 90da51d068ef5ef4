"""How well each task of a changing environment was learned, from the episodes that belong to its phase.

A phase is the time in which the task stays the same (`Environment.phase`, `info["phase"]`). It is closed once
no running episode belongs to it any more; episodes that outlive a whole phase beyond their own do not count.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlweights.learning.batch import Episodes

PHASE_WINDOW = 20
"""Episodes over which the return in a phase is a mean: few, since a phase may hold no more than a hundred."""


@dataclass
class PhaseMeter:
    """Measures phases as they come and go.

    Attributes:
        open: What is known of the phases that are not closed yet, by number.
        closed: How many are closed.
        solved: How many of those were solved.
    """

    open: dict[int, "PhaseRecord"] = field(default_factory=dict)
    closed: int = 0
    solved: int = 0

    def add(
        self, episodes: Episodes, before: int, after: int, solved_return: float | None = None
    ) -> dict[str, float]:
        """Adds the episodes of one iteration.

        Args:
            episodes: Those that ended in it.
            before: Environment steps before it.
            after: Environment steps after it.
            solved_return: The mean return of PHASE_WINDOW episodes that solves a task; None: nothing does.

        Returns:
            The scalars of the phase that this iteration has closed, by tag; of several, those of the newest.
            Returns are means over the newest iterations that hold PHASE_WINDOW episodes of the phase: at its
            end, and the best; `mean_return` is that of all its episodes. Steps until solved are environment
            steps since the phase began.
        """
        if episodes.running_phases is None:
            return {}
        oldest, newest = episodes.running_phases
        for number in (*episodes.phases, newest):
            if number not in self.open and (not self.open or number > max(self.open)):
                self.open[number] = PhaseRecord(before)
        for number, (count, total) in episodes.phases.items():
            if number in self.open:
                self.open[number].add(count, total, after, solved_return)
        scalars: dict[str, float] = {}
        for number in sorted(self.open):
            if number < oldest:
                scalars = self._closed(number, self.open.pop(number), solved_return is not None)
        return scalars

    def _closed(self, number: int, record: "PhaseRecord", judged: bool) -> dict[str, float]:
        self.closed += 1
        scalars = {"rollout/phase/number": float(number)}
        if record.count and record.best is not None:
            scalars["rollout/phase/end_return"] = record.newest_return
            scalars["rollout/phase/best_return"] = record.best
            scalars["rollout/phase/mean_return"] = record.total / record.count
        if judged:
            solved = record.solved_after is not None
            self.solved += solved
            scalars["rollout/phase/solved"] = float(solved)
            scalars["rollout/phase/solved_share"] = self.solved / self.closed
            if record.solved_after is not None:
                scalars["rollout/phase/steps_until_solved"] = float(record.solved_after)
        return scalars

    def state(self) -> list[Any]:
        """Returns all that is known, as JSON can hold it."""
        return [self.closed, self.solved, [[n, *record.state()] for n, record in self.open.items()]]

    @classmethod
    def of(cls, state: Sequence[Any]) -> "PhaseMeter":
        """Returns the meter that `state` described."""
        closed, solved, records = state
        return cls({number: PhaseRecord.of(rest) for number, *rest in records}, closed, solved)


@dataclass
class PhaseRecord:
    """What is known of one phase.

    Attributes:
        began: Environment steps before the iteration in which it began.
        count: Its episodes so far.
        total: The sum of their returns.
        best: The best mean return of a window.
        solved_after: Environment steps from its beginning until it was solved.
        window: (episodes, sum of their returns) of the newest iterations that hold PHASE_WINDOW episodes.
    """

    began: int
    count: int = 0
    total: float = 0.0
    best: float | None = None
    solved_after: int | None = None
    window: deque[tuple[int, float]] = field(default_factory=deque)

    @property
    def newest_return(self) -> float:
        """Mean return of the window."""
        return sum(total for _, total in self.window) / sum(count for count, _ in self.window)

    def add(self, count: int, total: float, after: int, solved_return: float | None) -> None:
        """Adds the episodes of one iteration; returns that are not finite do not count."""
        if not count or total - total != 0.0:
            return
        self.count += count
        self.total += total
        self.window.append((count, total))
        held = sum(n for n, _ in self.window)
        while held - self.window[0][0] >= PHASE_WINDOW:
            held -= self.window.popleft()[0]
        present = self.newest_return
        # Before the window is full, its mean is a matter of luck: it stands in for a best, no more.
        full_before = self.count - count >= PHASE_WINDOW
        self.best = max(self.best, present) if full_before and self.best is not None else present
        solves = held >= PHASE_WINDOW and solved_return is not None and present >= solved_return
        if solves and self.solved_after is None:
            self.solved_after = after - self.began

    def state(self) -> list[Any]:
        """Returns all that is known, as JSON can hold it."""
        window = [list(each) for each in self.window]
        return [self.began, self.count, self.total, self.best, self.solved_after, window]

    @classmethod
    def of(cls, state: Sequence[Any]) -> "PhaseRecord":
        """Returns the record that `state` described."""
        began, count, total, best, solved_after, window = state
        return cls(began, count, total, best, solved_after, deque((n, each) for n, each in window))
