"""Lists the agents that come with rlweights: `rlweights agents`."""

import typer
from rich.console import Console
from rich.table import Table


def agents() -> None:
    """List the shipped agents."""
    from rlweights.backend import configure

    configure()
    from rlweights.running.config import agent_file

    table = Table(box=None, pad_edge=False)
    for column in ("agent", "environment", "algorithm", "rules", "expected"):
        table.add_column(column, no_wrap=True)
    for name, path in agent_file.shipped().items():
        agent = agent_file.load(path)
        table.add_row(
            name,
            agent.environment.id + (" (xla)" if agent.environment.backend == "tensorflow" else ""),
            agent.algorithm.name,
            ", ".join(rule.rule for rule in agent.interventions) or "none",
            f"{agent.expect.mean_reward:g}" if agent.expect else "-",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(agents)
