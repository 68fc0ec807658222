"""The circuit breaker alone."""

from __future__ import annotations

from batchgen.dispatch.limits.adaptive.circuit import FAILURES, LAST_INTERVAL, Circuit


def down(circuit: Circuit, now: float, *, probe: bool = False) -> None:
    circuit.record_failure(now, None, probe=probe, answered=False)


def test_failures_in_a_row_open_it() -> None:
    """P24 Eight failures in a row are an outage, and one response between them is none."""
    circuit = Circuit()
    circuit.record_response()
    for _ in range(FAILURES - 1):
        down(circuit, 0.0)
    circuit.record_response()
    for _ in range(FAILURES - 1):
        down(circuit, 0.0)
    assert not circuit.is_open
    down(circuit, 0.0)
    assert circuit.is_open


def test_a_host_that_never_answered_opens_it_at_once() -> None:
    """P24 A misspelt host is probed gently from the first failure on."""
    circuit = Circuit()
    down(circuit, 0.0)
    assert circuit.is_open
    assert not circuit.answered


def test_probes_come_at_growing_intervals() -> None:
    """P24 Each failed probe doubles the interval, up to half a minute; failures that are no probe
    change nothing.
    """
    circuit, now, intervals = Circuit(), 0.0, []
    down(circuit, now)
    for _ in range(8):
        intervals.append(circuit.probe_at - now)
        now = circuit.probe_at
        down(circuit, now)
        assert circuit.probe_at == now
        down(circuit, now, probe=True)
    assert intervals == [1, 2, 4, 8, 16, 30, 30, 30]
    assert LAST_INTERVAL == 30


def test_retry_after_is_a_floor_of_the_interval() -> None:
    """P22 A server that is down and says for how long is not probed before."""
    circuit = Circuit()
    circuit.record_failure(10.0, 120.0, probe=False, answered=True)
    circuit.record_failure(10.0, 120.0, probe=False, answered=True)
    assert not circuit.is_open
    for _ in range(FAILURES):
        circuit.record_failure(10.0, 120.0, probe=False, answered=True)
    assert circuit.probe_at == 130.0


def test_any_response_closes_it() -> None:
    """P24 The first response closes it, and the next outage starts with the shortest interval."""
    circuit = Circuit()
    down(circuit, 0.0)
    down(circuit, 5.0, probe=True)
    assert circuit.record_response()
    assert (circuit.is_open, circuit.probing, circuit.probe_at) == (False, False, 0.0)
    assert not circuit.record_response()
    for _ in range(FAILURES):
        down(circuit, 7.0)
    assert circuit.probe_at == 8.0
