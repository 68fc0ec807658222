"""The main path from end to end: a job, a server on a socket, a table."""

from __future__ import annotations

import gc

from lab import Lab, serving

from batchgen.simulator import Simulator


def test_a_job_ends_in_a_table(lab: Lab, api: Simulator) -> None:
    """Every row's answer stands in the table, in the file's order, beside its own columns."""
    done = lab.run("run", lab.job(api.url))
    assert done.returncode == 0, done.stderr
    assert [(row["id"], row["status"], row["output"]) for row in lab.table()] == [
        (f"r{n}", "succeeded", f"answer {n}") for n in range(1, 6)
    ]
    assert lab.table(which="errors") == []


def test_the_same_command_again_calls_nothing(lab: Lab, api: Simulator) -> None:
    """P07 The same command twice: the second makes no call and says so."""
    job = lab.job(api.url)
    lab.run("run", job)
    called = api.requests.received
    again = lab.run("run", job)
    assert (again.returncode, api.requests.received) == (0, called)
    assert "no call made" in again.stdout


def test_a_fault_is_tried_again(lab: Lab) -> None:
    """A passing fault costs a retry, not a row, and the audit has both attempts."""
    with serving(script=lambda request: "500" if request.n == 1 else None) as api:
        done = lab.run("run", lab.job(api.url))
    assert done.returncode == 0, done.stderr
    assert sorted(row["attempts"] for row in lab.table()) == ["1", "1", "1", "1", "2"]


def test_the_callers_garbage_collector_is_as_it_was(lab: Lab, api: Simulator) -> None:
    """P31 A run keeps the collector from looking again and again at what was there before, and
    leaves it as it found it."""
    assert gc.get_freeze_count() == 0
    lab.go(lab.job(api.url))
    assert gc.get_freeze_count() == 0
    gc.freeze()
    try:
        lab.go(lab.job(api.url, name="again"))
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_a_simulated_answer_is_labelled_as_simulated(lab: Lab) -> None:
    """What the simulated API answers says so, in the table too: nothing on its way takes the label
    off."""
    job = lab.job(
        request={"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "{{ text }}?"}]}
    )
    (lab.folder / "prompts.csv").write_text("id,text\na,What is this\n", encoding="utf-8")
    lab.go(job, simulate=True)
    assert lab.table(simulated=True)[0]["output"].startswith("[simulated]")
