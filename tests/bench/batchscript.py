"""The cost of batches by hand: a script with the openai client, json and csv that keeps only its
files.

`python batchscript.py URL PROMPTS.csv` writes the rows into files of 50,000 requests, uploads them,
creates the batches, fetches the answers and writes a table in the order of the prompts. It prints
{"submit": seconds, "collect": seconds} of CPU without imports: of the first two steps, and of the
last two.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from itertools import count, islice
from pathlib import Path

import openai
from yardsticks import KEY, bodies

MOST = 50_000


def submit(client: openai.OpenAI, prompts: Path) -> list[str]:
    """The ids of the batches."""
    batches: list[str] = []
    left, numbers = bodies(prompts), count(1)
    path = prompts.with_name("tasks.jsonl")
    while True:
        tasks = 0
        with path.open("w", encoding="utf-8") as file:
            for body in islice(left, MOST):
                task = {
                    "custom_id": str(next(numbers)),
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": body,
                }
                file.write(json.dumps(task) + "\n")
                tasks += 1
        if not tasks:
            return batches
        with path.open("rb") as upload:
            sent = client.files.create(file=upload, purpose="batch")
        order = client.batches.create(
            input_file_id=sent.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        batches.append(order.id)


def collect(client: openai.OpenAI, batches: list[str], prompts: Path) -> None:
    """A table of number, answer, tokens, finish reason."""
    with prompts.with_name("answers.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        for batch in batches:
            file = client.batches.retrieve(batch).output_file_id
            assert file is not None
            answers = {}
            for line in client.files.content(file).iter_lines():
                result = json.loads(line)
                body = result["response"]["body"]
                choice = body["choices"][0]
                tokens = body["usage"]["completion_tokens"]
                answers[int(result["custom_id"])] = (
                    choice["message"]["content"],
                    tokens,
                    choice["finish_reason"],
                )
            writer.writerows((number, *answers[number]) for number in sorted(answers))


def main(url: str, prompts: Path) -> None:
    """Submit, collect, and say what it took."""
    client = openai.OpenAI(api_key=KEY, base_url=url)
    began = time.process_time()
    batches = submit(client, prompts)
    submitted = time.process_time()
    collect(client, batches, prompts)
    print(json.dumps({"submit": submitted - began, "collect": time.process_time() - submitted}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
