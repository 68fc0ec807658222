"""The hooks and fixtures of all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving

from batchgen.requests import Renderer, Request
from batchgen.simulator import Simulator


def pytest_configure() -> None:
    """Runs that the tests start inherit what is ignored here, and in the background of a script SIGINT is."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs remember of limits for all jobs of a user, they remember for one test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state") / "home"))


@pytest.fixture
def renderings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by the key of each request that is rendered in this process."""
    made: list[str] = []
    render = Renderer.request

    def counting(self: Renderer, *args: Any, **kwargs: Any) -> Request:
        request = render(self, *args, **kwargs)
        made.append(request.fingerprint)
        return request

    monkeypatch.setattr(Renderer, "request", counting)
    return made


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty folder to run jobs in."""
    return Lab(tmp_path)


@pytest.fixture
def api() -> Iterator[Simulator]:
    """A simulated API without faults or limits."""
    with serving() as simulator:
        yield simulator
