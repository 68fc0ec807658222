"""`batchgen schema` and `batchgen simulate`: tools for other programs, without a job."""

from __future__ import annotations

import json

import click

from batchgen.cli.serving import until_signalled
from batchgen.cli.terminal import print_message, print_result


@click.command()
def schema() -> None:
    """Print the JSON Schema of a job file."""
    from batchgen.job import json_schema

    print_result(json.dumps(json_schema(), indent=2))


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="Port on 127.0.0.1.",
)
@click.option(
    "--latency",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Seconds per answer.",
)
@click.option(
    "--faults",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of faulty answers.",
)
@click.option("--rpm", type=click.FloatRange(0, min_open=True), help="Allowed requests per minute.")
@click.option("--tpm", type=click.FloatRange(0, min_open=True), help="Allowed tokens per minute.")
@click.option(
    "--batch-speed", type=click.FloatRange(0), help="Seconds per batch; by default 5 to 15."
)
def simulate(
    port: int,
    latency: float,
    faults: float,
    rpm: float | None,
    tpm: float | None,
    batch_speed: float | None,
) -> None:
    """Serve the simulated API.

    Serves this machine only, until interrupted. Every answer is labelled as simulated.
    """
    import asyncio

    from batchgen.simulator import Settings, serve

    settings = Settings(latency=latency, faults=faults, rpm=rpm, tpm=tpm, batch_speed=batch_speed)
    asyncio.run(until_signalled(serve(settings, port, _announce)))


def _announce(url: str) -> None:
    print_message(f"the simulated API is at {url} (Ctrl-C ends it)")
