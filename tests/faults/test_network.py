"""No network but loopback, and proxies that are not there."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from lab import Lab
from scenes import write_job

from batchgen.simulator import Simulator

DEAD = dict.fromkeys(
    ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"
)


def test_a_simulated_run_without_a_network(lab: Lab) -> None:
    """A simulated run needs only loopback, and no key: it works in a network namespace of its
    own.
    """
    job = write_job(lab, "https://api.openai.com/v1", "image", rows=3)
    script = "ip link set lo up && exec " + f"{sys.executable} -m batchgen run {job} --simulate"
    if (
        shutil.which("ip") is None
        or subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no network namespace can be made here")
    env = lab.environ()
    del env["OPENAI_API_KEY"]
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        cwd=lab.folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(lab.table(simulated=True)) == 3


def test_a_dead_proxy_and_a_simulated_run(lab: Lab) -> None:
    """A proxy in the environment is not asked for the simulated API."""
    done = lab.run("run", lab.job(rows=3), "--simulate", env=lab.environ(**DEAD))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("spared", ["127.0.0.1", "*"])
def test_a_dead_proxy_and_no_proxy(lab: Lab, api: Simulator, spared: str) -> None:
    """NO_PROXY is honoured: a local server is reached whatever the proxy is."""
    done = lab.run(
        "run", lab.job(api.url, rows=3), env=lab.environ(**DEAD, NO_PROXY=spared, no_proxy=spared)
    )
    assert done.returncode == 0, done.stderr
    assert api.requests.answered == 3
