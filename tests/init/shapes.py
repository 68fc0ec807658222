"""Small prompts files of the shapes that public data sets have, each with what `init` should see.

`content` is one object a line for .jsonl; `job` is what the job must have, by dotted keys; `found`
are words that the findings must have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A file, and what is right for it."""

    name: str
    content: bytes
    job: dict[str, Any] = field(default_factory=dict)
    found: tuple[str, ...] = ()
    user: str | None = None


def jsonl(*rows: dict[str, Any]) -> bytes:
    """Rows as JSONL."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def says(role: str, content: Any, **more: Any) -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": content, **more}


def shared(sender: str, value: str) -> dict[str, str]:
    """A message as ShareGPT has it."""
    return {"from": sender, "value": value}


TOOL = {"type": "function", "function": {"name": "sky", "parameters": {"type": "object"}}}
CHAT = [says("system", "Be brief."), says("user", "Why?"), says("assistant", "So.")]
LAST_OFF = "{{ messages[:-1] }}"

SHAPES = {
    "batch requests": Shape(
        "night.jsonl",
        jsonl(
            {
                "custom_id": "a",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "gpt-5.6-luna", "messages": [says("user", "Hi")]},
            }
        ),
        {"prompts.format": "openai-batch", "kind": None, "request": None},
        ("as the Batch API has them",),
    ),
    "fine-tuning": Shape(
        "tune.jsonl",
        jsonl({"messages": CHAT}, {"messages": [*CHAT[:2], {**CHAT[2], "weight": 0}]}),
        {"request.messages": LAST_OFF, "output": None},
        ("the assistant's last reply is left off",),
        "Why?",
    ),
    "fine-tuning with weights inside": Shape(
        "tune.jsonl",
        jsonl({"messages": [CHAT[1], {**CHAT[2], "weight": 0}, CHAT[1], CHAT[2]]}),
        {"request.messages": "{{ (messages | messages)[:-1] }}"},
    ),
    "fine-tuning with tools": Shape(
        "tools.jsonl",
        jsonl(
            {"messages": CHAT, "tools": [TOOL], "parallel_tool_calls": False},
            {"messages": CHAT, "tools": [], "parallel_tool_calls": True},
        ),
        {"request.tools": "{{ tools or none }}", "request.messages": LAST_OFF},
        ("passed on tools, parallel_tool_calls",),
    ),
    "replies in some rows": Shape(
        "some.jsonl",
        jsonl({"messages": CHAT}, {"messages": CHAT[:2]}, {"messages": [CHAT[2]]}),
        {"conversation": None},
        ("the assistant's last reply is left off where there is one",),
        "Why?",
    ),
    "evals": Shape(
        "samples.jsonl",
        jsonl(
            {
                "input": [says("system", "Q", name="example_user"), says("user", "A?")],
                "ideal": ["x"],
            }
        ),
        {"request.messages": "{{ input }}"},
        ("not used  ideal",),
    ),
    "preferences": Shape(
        "dpo.jsonl",
        jsonl({"prompt": "Why?", "chosen": CHAT, "rejected": CHAT, "score": 0.5}),
        {},
        ("prompt    prompt, by its name",),
        "Why?",
    ),
    "ShareGPT": Shape(
        "share.jsonl",
        jsonl(
            {"id": "c1", "conversations": [shared("human", "Who?"), shared("gpt", "I.")]},
            {"id": "c2", "conversations": [shared("system", "S"), shared("human", "Who?")]},
        ),
        {"prompts.id": "id"},
        ("in another form, made messages", "where there is one"),
        "Who?",
    ),
    "ShareGPT that ends in replies": Shape(
        "share.jsonl",
        jsonl({"conversations": [shared("human", "Who?"), shared("gpt", "I.")]}),
        {"request.messages": "{{ (conversations | messages)[:-1] }}"},
        user="Who?",
    ),
    "senders of other names": Shape(
        "odd.jsonl",
        jsonl({"conversations": [shared("alien", "Who?"), shared("gpt", "I.")]}),
        {},
        ("not sure  conversations holds lists or objects, which are shown as JSON",),
    ),
    "Alpaca": Shape(
        "alpaca.jsonl",
        jsonl(
            {"instruction": "Name one.", "input": "", "output": "Red."},
            {"instruction": "Translate.", "input": "bread", "output": "Brot"},
        ),
        {"output.prefix": "bg_"},
        ("instruction, and input where it is filled", "not used  output"),
        "Name one.",
    ),
    "Alpaca without some inputs": Shape(
        "alpaca.jsonl",
        jsonl({"instruction": "Name one.", "input": None}, {"instruction": "Translate."}),
        {},
        (),
        "Name one.",
    ),
    "Dolly": Shape(
        "dolly.jsonl",
        jsonl(
            {"instruction": "When?", "context": "In 1969.", "response": "1969", "category": "qa"}
        ),
        {"output": None},
        ("instruction, and context where it is filled",),
        "When?\n\nIn 1969.",
    ),
    "MT-bench": Shape(
        "bench.jsonl",
        jsonl(
            {"question_id": 81, "category": "x", "turns": ["a", "b"], "reference": ["c"]},
            {"question_id": 82, "category": "x", "turns": ["d"]},
        ),
        {"conversation.turns": "turns", "prompts.id": "question_id"},
        ("the user's turns",),
        "a",
    ),
    "tags beside a prompt": Shape(
        "tags.jsonl",
        jsonl({"id": "p1", "prompt": "Describe it.", "tags": ["x", "y"]}),
        {"conversation": None},
        ("not used  tags",),
        "Describe it.",
    ),
    "tags beside no prompt": Shape(
        "tags.jsonl",
        jsonl({"id": "p1", "title": "Kettle", "tags": ["x", "y"]}),
        {"conversation": None},
        ("tags holds lists or objects",),
        'title: Kettle\ntags: ["x", "y"]',
    ),
    "a conversation of plain texts": Shape(
        "lima.jsonl", jsonl({"conversations": ["q", "a"]}), {"conversation": None}
    ),
    "pictures beside messages": Shape(
        "mllm.jsonl",
        jsonl({"messages": CHAT[:2], "images": ["a.jpg", "b.jpg"]}),
        {"conversation": None, "request.messages": "{{ messages }}"},
        ("not sure  images: not sent",),
    ),
    "seeds": Shape(
        "seed.jsonl",
        jsonl({"id": "s1", "instruction": "Say hi.", "instances": [{"input": "", "output": "x"}]}),
        {"prompts.id": "id"},
        ("not used  instances",),
        "Say hi.",
    ),
    "a code benchmark": Shape(
        "code.jsonl",
        jsonl({"task_id": "T/0", "prompt": "def f():", "entry_point": "f", "test": "x"}),
        {"prompts.id": "task_id"},
        (),
        "def f():",
    ),
    "questions with answers": Shape(
        "qa.jsonl",
        jsonl({"question": "How many?", "answer": "5 #### 5"}),
        {"prompts.id": None},
        ("id        none", "after an edit it is a new row"),
        "How many?",
    ),
    "reading": Shape(
        "squad.jsonl",
        jsonl({"id": "5a", "question": "Who?", "context": "She did.", "answers": {"text": ["S"]}}),
        {},
        (),
        "Who?\n\nShe did.",
    ),
    "a system column": Shape(
        "system.jsonl",
        jsonl({"system": "Be a pirate.", "question": "Who?"}),
        {},
        ("system is the system message",),
        "Who?",
    ),
    "promptfoo": Shape(
        "tests.csv",
        b"topic,__expected1,__metadata:tags[]\nbees,contains: hive,a\nants,contains: hill,b\n",
        {},
        ("not used  __expected1, __metadata:tags[]",),
        "bees",
    ),
    "promptfoo's prompts without a header": Shape(
        "prompts.csv",
        b'"Tell me about {{topic}}"\n"Explain {{topic}}"\n',
        {},
        ("not sure  the first line looks like a row",),
    ),
    "products of which most have no description": Shape(
        "woo.csv",
        b'SKU,Name,Description\n1,Shirt,"Cotton, blue"\n1-S,Shirt S,\n1-M,Shirt M,\n',
        {"prompts.id": "SKU", "prompts.empty": None},
        ("Description may be empty (Description is, in 2 of 3 rows)", "where: Description"),
        "Name: Shirt\nDescription: Cotton, blue",
    ),
    "a prompt that few rows lack": Shape(
        "few.csv",
        b"id,prompt\n1,a\n2,\n3,c\n",
        {"prompts.empty": "skip"},
        ("left out  1 of 3 rows, whose prompt is empty",),
        "a",
    ),
    "messages that few rows lack": Shape(
        "few.jsonl",
        jsonl({"messages": CHAT}, {"messages": []}, {"messages": None}, {"messages": CHAT}),
        {"prompts.empty": "skip"},
        ("left out  2 of 4 rows",),
    ),
    "Shopify": Shape(
        "export.csv",
        b"Handle,Title,Body (HTML),Variant SKU,Image Src\n"
        b"mug,Mug,<p>Blue</p>,M-1,https://x.example/m.png\nmug,,,M-2,\n",
        {"prompts.id": "Variant SKU"},
        ("Image Src names pictures, but not in every row",),
    ),
    "a survey": Shape(
        "survey.csv",
        b"RespondentID,Start Date,Q1 answer\n114,2024-01-05,Too slow\n115,2024-01-05,Fine\n",
        {"prompts.id": "RespondentID"},
        ("Start Date, Q1 answer, a line for each",),
    ),
    "an article list in German": Shape(
        "artikel.csv",
        "Artikelnr;Bezeichnung;Preis\nK-1;Kännchen;12,99\nK-2;Brett;9,50\n".encode("utf-8-sig"),
        {"prompts.id": "Artikelnr"},
        ("CSV with semicolons",),
    ),
    "EANs": Shape(
        "ean.csv",
        b"name,EAN,text\nMug,4006381333931,a\nMug,4006381333948,b\n",
        {"prompts.id": "EAN"},
    ),
    "ASINs": Shape("amazon.tsv", b"asin\ttitle\nB000A\tMug\nB000B\tMug\n", {"prompts.id": "asin"}),
    "codes under an unknown header": Shape(
        "codes.csv", b"Bohrer,Farbe\nX-17,rot\nX-18,blau\n", {"prompts.id": "Bohrer"}
    ),
    "prices are no ids": Shape(
        "prices.csv", b"ware,preis\nMug,9.50\nMug,8.50\n", {"prompts.id": None}
    ),
    "image prompts": Shape(
        "parti.tsv",
        b"Prompt\tCategory\tChallenge\nbond\tAbstract\tBasic\nbond\tAbstract\tBasic\n",
        {"prompts.id": None},
        ("not used  Category, Challenge",),
        "bond",
    ),
    "picture URLs": Shape(
        "urls.csv",
        b"id,image_url,question\n1,https://x.example/a.jpg,What is it?\n",
        {},
        ("with the picture in image_url",),
    ),
    "pictures that are not here": Shape(
        "metadata.jsonl",
        jsonl({"file_name": "0001.png", "text": "A goldfinch."}),
        {"prompts.id": "file_name"},
        ("file_name names pictures that cannot be read",),
        "A goldfinch.",
    ),
    "one column": Shape("words.csv", b"Palabra\nperro\ngato\n", {}, (), "perro"),
    "keys that differ": Shape(
        "differ.jsonl",
        jsonl({"q": 1, "text": "a"}, {"text": "b"}, {"text": "c", "z": {}}),
        {},
        (),
        "a",
    ),
    "a table of batchgen": Shape(
        "results.csv",
        b"sku,text,status,output,answered_by,finish_reason,request_id,run\n"
        b"A,x,succeeded,Old answer,m,stop,req_1,1\nB,y,failed,,m,,req_2,1\n",
        {"prompts.id": "sku", "prompts.empty": "skip", "output.prefix": "bg_"},
        ("this is a results table of batchgen",),
        "Old answer",
    ),
}
