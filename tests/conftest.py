"""The hooks and fixtures of all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fast import FAST, FEW, SLOW
from hypothesis import settings
from lab import Lab, serving

from batchgen.requests import Renderer, Request
from batchgen.simulator import Simulator

# No test is timed: machines are shared, and a slow one proves nothing.
settings.register_profile("untimed", deadline=None, max_examples=50)
settings.register_profile("fast", deadline=None, max_examples=FEW)


def is_fast(path: Path) -> bool:
    """Whether a test file is in FAST, itself or with its folder."""
    parts = path.relative_to(Path(__file__).parent).parts
    return any("/".join(parts[:length]) in FAST for length in range(1, len(parts) + 1))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the other files for `-m fast`: that alone takes seconds."""
    other = collection_path.name.startswith("test_") and not is_fast(collection_path)
    return True if other and config.getoption("markexpr") == "fast" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the fast tests, so that no test has to say it of itself."""
    for item in items:
        if getattr(item, "originalname", item.name) not in SLOW and is_fast(item.path):
            item.add_marker(pytest.mark.fast)


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples are drawn, and restore signals that are ignored.

    SIGINT is ignored in the background of a script, and the runs that tests start would inherit it.
    """
    settings.load_profile("fast" if config.getoption("markexpr") == "fast" else "untimed")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs remember of limits for all jobs of a user, they remember for one test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state") / "home"))


@pytest.fixture
def renderings(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Grows by the key of each request that is rendered in this process, but for the page, which
    shows requests when a run has ended.
    """
    monkeypatch.setattr("batchgen.session.session.write_page", lambda *_: None)
    made: list[bytes] = []
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
