"""Lists the agents that come with rlweights: `rlweights agents`."""

import textwrap

import typer


def agents() -> None:
    """List the shipped agents."""
    from rlweights.backend import configure

    configure()
    from rlweights.running.config import agent_file
    from rlweights.running.saving.run_folder import pretrained

    agents = {name: agent_file.load(path) for name, path in agent_file.shipped().items()}
    rows = [("agent", "environment", "trained by", "steps", "expected")]
    rows += [
        (
            name,
            agent.environment.id,
            agent.algorithm.name + (", xla" if agent.environment.backend == "tensorflow" else ""),
            f"{agent.budget.total_timesteps:,}",
            f"{agent.expect.mean_reward:g}" if agent.expect else "-",
        )
        for name, agent in agents.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, agent in zip(rows, [None, *agents.values()], strict=True):
        justified = [str.ljust] * 3 + [str.rjust] * 2
        typer.echo(" ".join(j(text, width) for j, text, width in zip(justified, row, widths, strict=True)))
        if agent is not None and agent.interventions:
            typer.echo(f"    with {', '.join(rule.rule for rule in agent.interventions)}")
    told = f"pretrained, for play, evaluate, export and --from: {', '.join(pretrained())}"
    for line in textwrap.wrap(told, 79, subsequent_indent="    "):
        typer.echo(line)


if __name__ == "__main__":
    typer.run(agents)
