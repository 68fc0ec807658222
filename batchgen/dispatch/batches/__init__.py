"""The Batch API: requests go out in files, and a later poll or run fetches the answers.

What happens to a batch, in this order. A step starts when what it needs is on record:

```text
step     what it does                                     on record before it starts
-------  -----------------------------------------------  ----------------------------------
begin    gives the batch a number and a tag               -
members  writes requests to the input file, and records   the batch, with its tag
         them as members of the batch, page by page
upload   sends the input file; the server gives it an id  all members
create   creates the batch, with the tag in its           the file id
         metadata; the server gives it an id
         (here the run may end, and another goes on)
poll     fetches the status; validating, in_progress,     the batch id
         finalizing or an unknown one is polled again
collect  fetches the result files of a completed, failed, the last status, and the ids of
         expired or cancelled batch; records the answers  the result files
close    makes members without an answer pending again    every answer that the files have
delete   asks the server to delete the batch's files      the end of the batch
```

If the files have fewer answers than the server counts, the batch stays open for a while, and each
poll fetches them again. A line without an answer is a request without one, and is not waited for.

Nothing costs money before `create`. If a run dies before the file id is on record, the next run
forgets the batch, and its requests are pending again. If a run dies between the file id and the
batch id, the next run searches the server's list for the tag. It adopts the batch that it finds. If
the server certainly has none, it forgets the one on record; if that cannot be known, it stops.

```text
records.py      Batch, Member, MemberResult; BatchRecorder, which makes them durable
retrying.py     RetryingClient: a call is retried until it works or certainly cannot
client.py       BatchClient: the calls of the Batch API
input_file.py   BatchInputFile: requests -> the file of a batch
result_file.py  a result file -> what it says of each request
file_counts.py  FileCounts: the result files, compared with what the server counts
registry.py     BatchRegistry: the batches of a job, and what the server last said of them
queue_limit.py  how much the queue of a model takes
submit.py       Submitter: requests -> batches at the server
collect.py      Collector: an ended batch -> outcomes
poll.py         Poller: each open batch from create to close
backend.py      BatchBackend: what a run calls
```
"""
