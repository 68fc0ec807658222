"""kill -9 at every step of replacing a picture: the journal and the folder go on telling one
story."""

from __future__ import annotations

from itertools import count

from children import killed_at
from lab import KEY, Lab
from scenes import run, write_job

from batchgen import maintenance
from batchgen.simulator import Simulator


def test_killed_at_every_step_of_a_redone_picture(lab: Lab, api: Simulator) -> None:
    """P01 P33 Whenever a run dies that draws a row's picture again, the journal and the folder are
    sound, and the next run leaves the current picture under its plain name and none in between.
    """
    job = write_job(lab, api.url, "image", rows=2, concurrency=1)
    run(job)
    images = lab.output() / "images"
    other = (images / "r2.png").read_bytes()
    drawn = {(images / "r1.png").read_bytes()}
    for step in count(1):
        assert maintenance.redo(lab.load(job), ["r1"]) == 1
        code = killed_at(step, job, key=KEY)
        assert maintenance.verify(lab.load(job)) == []
        run(job)
        assert maintenance.verify(lab.load(job)) == []
        assert {each.name for each in images.iterdir()} == {"r1.png", "r2.png", "replaced"}
        assert (images / "r2.png").read_bytes() == other
        drawn.add((images / "r1.png").read_bytes())
        assert {each.read_bytes() for each in (images / "replaced").iterdir()} <= drawn
        if code == 0:
            break
    assert step > 8, "it was killed at each step"
