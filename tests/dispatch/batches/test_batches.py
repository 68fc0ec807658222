"""Batch mode from end to end: one run submits, another collects."""

from __future__ import annotations

import asyncio
import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving
from PIL import Image

import batchgen
from batchgen import InputError, queries, runner
from batchgen.dispatch import Failure
from batchgen.dispatch.api.client import Client
from batchgen.dispatch.batches import client, collect, input_file
from batchgen.job import with_mode
from batchgen.report import describe_dollars
from batchgen.simulator import BatchInfo, Fate, RequestInfo, Settings, Simulator

AT_ONCE = Settings(batch_speed=0)
DIFFERS = ("elapsed_s", "answered_at", "request_id", "run", "cost")


class Fates:
    """The fates of batches in their order, the last one for all further ones; keeps what was
    created."""

    def __init__(self, *fates: Fate) -> None:
        self.fates = fates
        self.created: list[BatchInfo] = []

    def __call__(self, batch: BatchInfo) -> Fate:
        self.created.append(batch)
        return self.fates[min(batch.n, len(self.fates)) - 1] if self.fates else Fate()

    @property
    def lines(self) -> int:
        return sum(batch.lines for batch in self.created)


def alike(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """A table without the columns that differ between two runs of a job."""
    return [{name: cell for name, cell in row.items() if name not in DIFFERS} for row in rows]


def paid(api: Simulator) -> int:
    """How many requests were executed, in batches or one by one."""
    return api.requests.lines + api.requests.by_path["/v1/chat/completions"]


def until_done(lab: Lab, job: Path, runs: int = 6, **options: Any) -> list[int]:
    """Run a job until it no longer ends with 6; returns the exit codes."""
    codes = []
    for _ in range(runs):
        codes.append(lab.go(job, **options).exit_code)
        if codes[-1] != 6:
            break
    return codes


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches and fetches do not wait."""
    monkeypatch.setattr(client, "BETWEEN_SEARCHES", 0.0)
    monkeypatch.setattr(collect, "BETWEEN_FETCHES", 0.0)


def test_a_batch_job_gives_the_table_of_an_online_one(lab: Lab) -> None:
    """P12 A thousand rows give the same table in batch mode and online: the run that submits ends
    with 6, the next one collects and ends with 0, and a third calls nothing."""
    fates = Fates()
    with serving(AT_ONCE, fate=fates) as api:
        online = lab.job(api.url, name="online", rows=1000)
        lab.go(online)
        job = lab.job(api.url, rows=None, mode="batch")
        first = lab.go(job)
        assert (first.exit_code, first.run.calls, first.in_batches, len(first.batches)) == (
            6,
            0,
            1000,
            1,
        )
        assert first.rows == {"pending": 1000}
        second = lab.go(job)
        assert (second.exit_code, second.run.calls, second.in_batches, len(second.batches)) == (
            0,
            1000,
            0,
            0,
        )
        asked = api.requests.received
        assert lab.go(job).exit_code == 0
        assert api.requests.received == asked
    assert alike(lab.table()) == alike(lab.table("online"))
    assert [(batch.lines, batch.metadata["job"]) for batch in fates.created] == [(1000, "job")]
    assert not list(lab.output().glob(".*.tmp"))


def test_what_a_batch_did_not_answer_goes_out_again_and_nothing_else(lab: Lab) -> None:
    """P12 Batches that expired half-way keep their answers; further runs send only the rest."""
    half = Fate(ends="expired", answers=0.5)
    fates = Fates(half, half, Fate())
    with serving(AT_ONCE, fate=fates) as api:
        job = lab.job(api.url, rows=40, mode="batch")
        assert until_done(lab, job) == [6, 6, 6, 0]
        assert paid(api) == 40
    assert [batch.lines for batch in fates.created] == [40, 20, 10]
    assert [row["output"] for row in lab.table()] == [f"answer {n}" for n in range(1, 41)]


def test_a_batch_that_failed_as_a_whole(lab: Lab) -> None:
    """P23 A batch that fails after it was accepted stops the run with 4 and the server's message;
    its rows are pending, and the next run sends them again."""
    fates = Fates(Fate(ends="failed", code="billing_hard_limit_reached"), Fate())
    with serving(AT_ONCE, fate=fates) as api:
        job = lab.job(api.url, mode="batch")
        assert lab.go(job).exit_code == 6
        stopped = lab.go(job)
        assert (stopped.exit_code, stopped.rows, stopped.batches) == (4, {"pending": 5}, ())
        assert "failed on purpose" in (stopped.stopped or "")
        assert until_done(lab, job) == [6, 0]
    assert [batch.lines for batch in fates.created] == [5, 5]


def test_lines_fail_like_calls(lab: Lab) -> None:
    """P12 P18 The error of a line is classified like that of a call: a bad request fails its row,
    further batches retry passing failures, and no other row is sent again."""
    seen: Counter[str] = Counter()

    def script(request: RequestInfo) -> str | None:
        text = json.dumps(request.body)
        which = next((name for name in ("wrong", "busy", "broken") if name in text), "")
        seen[which] += request.path.endswith("/chat/completions")
        return (
            {"wrong": "400_policy", "busy": "429", "broken": "500"}.get(which)
            if seen[which] < 3 or which == "wrong"
            else None
        )

    fates = Fates()
    with serving(AT_ONCE, script, fate=fates) as api:
        with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
            rows = [
                ("a", "ECHO:one"),
                ("b", "wrong"),
                ("c", "busy"),
                ("d", "broken"),
                ("e", "ECHO:five"),
            ]
            csv.writer(file).writerows([("id", "text"), *rows])
        job = lab.job(api.url, rows=None, mode="batch")
        codes = until_done(lab, job)
    assert codes == [6, 6, 6, 3]
    assert [batch.lines for batch in fates.created] == [5, 2, 2]
    assert [row["status"] for row in lab.table()] == [
        "succeeded",
        "failed",
        "succeeded",
        "succeeded",
        "succeeded",
    ]
    assert [
        (row["id"], row["reason"], row["http_status"]) for row in lab.table(which="errors")
    ] == [("b", "policy", "400")]


def test_half_a_character_in_an_answer_is_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P18 Half of a surrogate pair, which JSON can hold and UTF-8 cannot, does not end a
    collection: the answer is recorded as it came, and shown with a replacement character."""
    download = Client.download

    def spoil(path: Path) -> None:
        results = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for result in results:
            result["response"]["body"]["choices"][0]["message"]["content"] = "\ud83d"
        path.write_text("".join(f"{json.dumps(result)}\n" for result in results), encoding="utf-8")

    async def spoiled(client: Client, endpoint: str, path: Path, *, idle: float) -> Failure | None:
        failure = await download(client, endpoint, path, idle=idle)
        await asyncio.to_thread(spoil, path)
        return failure

    monkeypatch.setattr(Client, "download", spoiled)
    with serving(AT_ONCE) as api:
        assert until_done(lab, lab.job(api.url, mode="batch")) == [6, 0]
    assert [row["output"] for row in lab.table()] == ["\N{REPLACEMENT CHARACTER}"] * 5


@pytest.mark.parametrize("fault", ["reset_body", "truncated", "500", "reset"])
def test_an_orphan_is_adopted(lab: Lab, fault: str) -> None:
    """P12 A create whose reply is lost leaves exactly one batch, whether it worked or not: before a
    retry, the list is searched for the tag."""
    tried: list[str] = []

    def script(request: RequestInfo) -> str | None:
        if request.method == "POST" and request.path == "/v1/batches":
            tried.append(fault)
            return fault if len(tried) == 1 else None
        return None

    fates = Fates()
    with serving(AT_ONCE, script, fate=fates) as api:
        job = lab.job(api.url, mode="batch", retry={"max_wait": 0.01})
        assert until_done(lab, job) == [6, 0]
        assert paid(api) == 5
    assert [batch.lines for batch in fates.created] == [5]


def test_unknown_statuses_are_polled_again(lab: Lab) -> None:
    """P12 An unknown status does not end a batch: it stays open, `status` shows the word, and
    nothing is sent."""
    fates = Fates(Fate(shows=("validating", "scheduling", "paused", "scheduling")))
    with serving(AT_ONCE, fate=fates) as api:
        job = lab.job(api.url, mode="batch")
        assert lab.go(job).exit_code == 6
        words = []
        while lab.go(job).exit_code == 6:
            words += [batch["status"] for batch in queries.status(lab.load(job))["batches"]]
    assert words == ["validating", "scheduling", "paused", "scheduling"]
    assert fates.lines == 5


def test_cancel_and_the_rest_online(lab: Lab) -> None:
    """P12 `cancel` keeps what its batches answered; the fingerprint does not depend on the mode, so
    that --mode online then sends only what is left."""
    fates = Fates(Fate(ends="in_progress", answers=0.5))
    with serving(AT_ONCE, fate=fates) as api:
        job = lab.job(api.url, rows=20, mode="batch")
        assert lab.go(job).exit_code == 6
        assert lab.go(job).exit_code == 6
        online = with_mode(lab.load(job), "online")
        waiting = batchgen.run(online)
        assert (waiting.exit_code, waiting.run.calls, waiting.in_batches) == (6, 0, 20)
        ended = runner.cancel(lab.load(job))
        assert (ended.exit_code, ended.rows, ended.batches) == (
            0,
            {"succeeded": 10, "pending": 10},
            (),
        )
        done = batchgen.run(online)
        assert (done.exit_code, done.run.calls) == (0, 10)
        assert paid(api) == 20
    assert [row["output"] for row in lab.table()] == [f"answer {n}" for n in range(1, 21)]


def test_cancel_of_what_has_ended_meanwhile(lab: Lab) -> None:
    """P12 `cancel` of a batch that ended since the last poll (409) collects it as a run does, with
    exit code 0."""
    with serving(AT_ONCE, fate=Fates()) as api:
        job = lab.job(api.url, mode="batch")
        assert lab.go(job).exit_code == 6
        ended = runner.cancel(lab.load(job))
        assert (ended.exit_code, ended.rows, ended.batches) == (0, {"succeeded": 5}, ())
        # One call for the list, and one create.
        assert api.requests.by_path["/v1/batches"] == 2
        assert paid(api) == 5


def test_a_batch_that_somebody_else_cancelled(lab: Lab) -> None:
    """P12 A batch that somebody cancelled at the server is not sent again by the run that notices:
    it stops with 4, and the next one sends the rest."""
    import httpx2

    with serving(AT_ONCE, fate=Fates(Fate(ends="in_progress", answers=0.5), Fate())) as api:
        job = lab.job(api.url, rows=10, mode="batch")
        lab.go(job)
        lab.go(job)
        (batch,) = queries.status(lab.load(job))["batches"]
        httpx2.post(
            f"{api.url}/batches/{batch['id']}/cancel", headers={"Authorization": "Bearer sk-x"}
        )
        noticed = lab.go(job)
        assert (noticed.exit_code, noticed.rows) == (4, {"succeeded": 5, "pending": 5})
        assert until_done(lab, job) == [6, 0]
        assert paid(api) == 10


def test_a_job_is_cut_into_input_files(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 An input file has bounded requests and bytes, one model and one endpoint; each row is in
    exactly one."""
    monkeypatch.setattr(input_file, "MOST_REQUESTS", 7)
    fates = Fates()
    with serving(AT_ONCE, fate=fates) as api:
        job = lab.job(
            api.url,
            rows=10,
            mode="batch",
            matrix={"model": ["gpt-5.6-luna", "gpt-6-sol"]},
            request={
                "model": "{{ model }}",
                "messages": [{"role": "user", "content": "{{ text }}"}],
            },
        )
        assert until_done(lab, job) == [6, 0]
    assert Counter((batch.model, batch.lines) for batch in fates.created) == Counter(
        {("gpt-5.6-luna", 7): 1, ("gpt-5.6-luna", 3): 1, ("gpt-6-sol", 7): 1, ("gpt-6-sol", 3): 1}
    )
    monkeypatch.setattr(input_file, "MOST_BYTES", 500)
    bytes_apart = Fates()
    with serving(AT_ONCE, fate=bytes_apart) as api:
        job = lab.job(api.url, name="bytes", rows=6, mode="batch")
        assert until_done(lab, job) == [6, 0]
    assert [batch.lines for batch in bytes_apart.created] == [2, 2, 2]


def test_a_full_queue_is_waited_out(lab: Lab) -> None:
    """P12 A batch that exceeds its model's queue is cut smaller, until all rows are answered."""
    fates = Fates()
    with serving(Settings(batch_speed=0, batch_tokens=60), fate=fates) as api:
        job = lab.job(api.url, rows=40, mode="batch")
        codes = until_done(lab, job, runs=40)
        assert codes[-1] == 0
        assert paid(api) == 40
    assert [row["status"] for row in lab.table()] == ["succeeded"] * 40


def test_requests_of_several_endpoints_go_in_batches_of_their_own(lab: Lab) -> None:
    """P12 A file of requests may mix endpoints in batch mode too: each has its batch, and the table
    has the order of the file."""
    chat = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "ECHO:one"}]}
    lines = [
        ("a", "/v1/chat/completions", chat),
        ("b", "/v1/embeddings", {"model": "text-embedding-3-small", "input": ["x", "y"]}),
        ("c", "/v1/moderations", {"input": ["fine", "good"]}),
        ("d", "/v1/responses", {"model": "gpt-5.6-luna", "input": "ECHO:four"}),
        ("e", "/v1/chat/completions", {**chat, "n": 2}),
    ]
    tasks = [
        {"custom_id": name, "method": "POST", "url": url, "body": body} for name, url, body in lines
    ]
    (lab.folder / "requests.jsonl").write_text("\n".join(map(json.dumps, tasks)), encoding="utf-8")
    prompts = {"path": "requests.jsonl", "format": "openai-batch"}
    fates = Fates()
    with serving(AT_ONCE, fate=fates) as api:
        for name, mode in (("online", "online"), ("job", "batch")):
            job = {
                "prompts": prompts,
                "mode": mode,
                "provider": {"base_url": api.url},
                "output": {"tables": ["csv", "openai-batch"]},
            }
            path = lab.folder / f"{name}.yaml"
            path.write_text(json.dumps(job), encoding="utf-8")
            assert until_done(lab, path)[-1] == 0
    assert sorted((batch.endpoint, batch.lines) for batch in fates.created) == [
        ("/v1/chat/completions", 2),
        ("/v1/embeddings", 1),
        ("/v1/moderations", 1),
        ("/v1/responses", 1),
    ]
    assert alike(lab.table()) == alike(lab.table("online"))


@pytest.mark.parametrize("kind", ["image", "image_edit"])
def test_pictures_come_out_of_batches(lab: Lab, kind: str) -> None:
    """P12 P37 Batches draw and edit pictures as online calls do: pictures to edit are in the input
    file."""
    Image.new("RGB", (8, 8), "red").save(lab.folder / "red.png")
    mask = Image.new("RGBA", (8, 8))
    mask.save(lab.folder / "mask.png")
    edit = {"image": ["red.png", "red.png"], "mask": "mask.png"} if kind == "image_edit" else {}
    request = {"model": "gpt-image-2", "prompt": "{{ text }}", "size": "1024x1024", **edit}
    fates = Fates()
    with serving(AT_ONCE, fate=fates) as api:
        for name, mode in (("online", "online"), ("job", "batch")):
            job = lab.job(api.url, name=name, rows=3, kind=kind, mode=mode, request=request)
            assert until_done(lab, job)[-1] == 0
        assert batchgen.run(with_mode(lab.load(job), "online")).run.calls == 0
    assert alike(lab.table()) == alike(lab.table("online"))
    drawn = [
        sorted(path.read_bytes() for path in (lab.output(name) / "images").iterdir())
        for name in ("online", "job")
    ]
    assert len(drawn[0]) == 3
    assert drawn[0] == drawn[1]


def test_conversations_are_refused(lab: Lab) -> None:
    """P30 A conversation cannot be in a batch: the job file's error names its line, and `--mode
    batch` fails before anything is read."""
    job = lab.job("http://127.0.0.1:9/v1", conversation={"id": "id"})
    with pytest.raises(
        InputError, match=r"job.yaml:\d+:\d+: conversation: a batch cannot hold a conversation"
    ):
        with_mode(lab.load(job), "batch")
    lab.job("http://127.0.0.1:9/v1", conversation={"id": "id"}, mode="batch")
    for command in ("plan", "run"):
        done = lab.run(command, job)
        assert done.returncode == 2
        assert "mode: online" in done.stderr


def test_money_in_batches_counts_as_spent(lab: Lab) -> None:
    """P25 The money for requests in batches is reserved until they are answered: the cap holds over
    runs."""
    pricing = {"gpt-5.6-luna": {"input": 1000, "output": 2000}}
    with serving(AT_ONCE) as api:
        job = lab.job(api.url, rows=10, mode="batch", pricing=pricing, limits={"max_cost": 0.5})
        planned = batchgen.plan(lab.load(job))
        assert planned.cost_at_most is not None
        assert planned.cost_at_most > 0.5
        first = lab.go(job)
        assert (first.exit_code, first.run.calls) == (6, 0)
        assert 0 < first.in_batches < 10
        assert first.held > 0
        online: Any = batchgen.run(with_mode(lab.load(job), "online")).run
        assert online.cost <= 0.5
        while lab.go(job).exit_code in (5, 6):
            report: Any = lab.go(job)
            assert report.job.totals.cost <= 0.5
        assert {row["status"] for row in lab.table()} <= {"succeeded", "pending"}


def test_a_batch_without_a_price_has_no_cost(lab: Lab) -> None:
    """P45 A model without a price in a batch: what it may cost, and what it cost, is null and never
    0."""
    body = {"model": "home-made", "messages": [{"role": "user", "content": "{{ text }}"}]}
    with serving(AT_ONCE) as api:
        job = lab.job(api.url, rows=2, mode="batch", request=body)
        assert (lab.go(job).committed, batchgen.plan(lab.load(job)).set_aside) == (None, None)
        collected = lab.go(job)
        assert (collected.exit_code, collected.run.unpriced, collected.run.cost) == (0, 2, None)


def test_several_jobs_are_all_sent_before_one_is_waited_for(lab: Lab) -> None:
    """P25 --wait sends the batches of all jobs before it waits for the first, and money that one
    job has put into batches is not left for the next."""
    order: list[str] = []

    def script(request: RequestInfo) -> None:
        if request.path.startswith("/v1/batches"):
            order.append(request.method)

    with serving(AT_ONCE, script) as api:
        pricing = {"gpt-5.6-luna": {"input": 10, "output": 20}}
        jobs = [
            lab.job(api.url, name=name, mode="batch", pricing=pricing) for name in ("one", "two")
        ]
        done = lab.run("run", *jobs, "--wait", "--json", "--max-cost", "1")
        assert done.returncode == 0, done.stderr
        assert [job["run"]["exit_code"] for job in json.loads(done.stdout)["jobs"]] == [0, 0]
        # Each first checks that the server lists its batches.
        assert order[:4] == ["GET", "POST", "GET", "POST"]
        third = lab.job(api.url, name="three", mode="batch", pricing=pricing)
        summary = json.loads(lab.run("run", third, "--json").stdout)["jobs"][0]["run"]
        fourth = [
            lab.job(api.url, name=name, mode="batch", pricing=pricing) for name in ("four", "five")
        ]
        capped = lab.run("run", *fourth, "--json", "--max-cost", str(summary["committed"] * 1.5))
        ends = json.loads(capped.stdout)["jobs"]
        assert [job["run"]["exit_code"] for job in ends] == [6, 6]
        assert 0 < ends[1]["run"]["in_batches"] < 5


@pytest.mark.parametrize(
    ("server", "model", "share"),
    [
        ("https://api.openai.com/v1", "gpt-5.6-luna", 0.5),
        ("https://api.openai.com/v1", "own", 0.5),
        ("https://api.x.ai/v1", "grok-4.3", 0.8),
        ("https://api.x.ai/v1", "own", 1),
    ],
)
def test_the_price_is_that_of_the_provider(lab: Lab, server: str, model: str, share: float) -> None:
    """P25 A batch costs what its provider takes for batches: in the plan, which shows the saving,
    in what is said before a run, and on record.
    """
    request = {
        "model": model,
        "messages": [{"role": "user", "content": "{{ text }}"}],
        "max_completion_tokens": 100,
    }
    parts: dict[str, Any] = {"pricing": {"own": {"input": 100, "output": 200}}, "request": request}
    online = lab.job(server, name="online", **parts)
    job = lab.job(server, mode="batch", **parts)
    plain, batch = batchgen.plan(lab.load(online)), batchgen.plan(lab.load(job))
    assert plain.cost is not None
    assert plain.cost_at_most is not None
    assert batch.cost == pytest.approx(plain.cost * share)
    assert batch.saves == pytest.approx(plain.cost * (1 - share))
    assert batch.cost_at_most is not None
    assert batch.cost_at_most <= plain.cost_at_most * share + 1e-9
    assert (batch.shards, plain.shards) == (1, 0)
    for path in (online, job):
        assert lab.run("run", path, "--simulate").returncode == 0
    costs = [
        [float(row["cost"]) for row in lab.table(f"{name}.simulated")] for name in ("online", "job")
    ]
    assert costs[1] == pytest.approx([cost * share for cost in costs[0]])
    request["temperature"] = 1
    job = lab.job(server, mode="batch", **parts)
    planned = batchgen.plan(lab.load(job), simulate=True)
    message = lab.run("run", job, "--simulate").stderr
    assert planned.cost is not None
    assert f"about {describe_dollars(planned.cost)}" in message
