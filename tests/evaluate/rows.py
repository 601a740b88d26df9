"""Thirty rows of our own in the layouts of GSM8K and BBH."""

import json

PROBLEMS = [
    ("Mia picks 4 apples and then 3 more. How many apples does she have?", "She has 4 + 3 = 7 apples.", 7),
    ("A box holds 6 eggs. How many eggs are in 5 boxes?", "There are 5 * 6 = 30 eggs.", 30),
    ("Noah had 12 cards and gave 5 away. How many are left?", "12 - 5 = 7 are left.", 7),
    ("A train has 8 cars with 10 seats each. How many seats are there?", "8 * 10 = 80 seats.", 80),
    ("Ella reads 9 pages a day. How many pages does she read in 4 days?", "4 * 9 = 36 pages.", 36),
    ("20 cookies are shared by 4 children. How many does each get?", "20 / 4 = 5 cookies.", 5),
    ("A shirt costs 15 dollars and a hat 8. What do both cost?", "15 + 8 = 23 dollars.", 23),
    ("Ben runs 3 miles every day for a week. How many miles is that?", "7 * 3 = 21 miles.", 21),
    ("There are 50 sheets and 18 are used. How many remain?", "50 - 18 = 32 remain.", 32),
    ("A farmer plants 6 rows of 7 trees. How many trees is that?", "6 * 7 = 42 trees.", 42),
    ("Ida has 2 dollars and earns 9 more. How much has she now?", "2 + 9 = 11 dollars.", 11),
    ("A tank loses 4 liters an hour. How many does it lose in 6 hours?", "6 * 4 = 24 liters.", 24),
    ("36 pencils go into 9 cups equally. How many per cup?", "36 / 9 = 4 pencils.", 4),
    ("Leo is 14 and his sister is 5 years younger. How old is she?", "14 - 5 = 9 years.", 9),
    ("A book of 100 pages is half read. How many pages are left?", "100 / 2 = 50 pages.", 50),
]
EXPRESSIONS = [
    ("not True or True is", True),
    ("True and not False is", True),
    ("not ( False ) is", True),
    ("False or ( False ) is", False),
    ("not True and True is", False),
    ("True and ( True ) is", True),
    ("not not False is", False),
    ("False and not False is", False),
    ("( True or False ) is", True),
    ("not ( True or True ) is", False),
    ("False or not False is", True),
    ("True and False or True is", True),
    ("not ( not True ) is", True),
    ("False and ( True or True ) is", False),
    ("not False and False is", False),
]


def write_data(folder):
    """``gsm8k/test-15.jsonl`` and ``bbh/boolean_expressions.json`` in a folder."""
    lines = [json.dumps({"question": q, "answer": f"{why}\n#### {answer}"}) for q, why, answer in PROBLEMS]
    (folder / "gsm8k").mkdir(parents=True)
    (folder / "gsm8k" / "test-15.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    examples = [{"input": text, "target": str(value)} for text, value in EXPRESSIONS]
    (folder / "bbh").mkdir()
    (folder / "bbh" / "boolean_expressions.json").write_text(json.dumps({"examples": examples}), encoding="utf-8")
    return folder


INSTRUCTIONS = [
    ("Name three colours and use no commas at all.", ["punctuation:no_comma"], [{}]),
    (
        "Say hello in lower case and use the word sun at least twice.",
        ["change_case:english_lowercase", "keywords:frequency"],
        [{}, {"keyword": "sun", "frequency": 2, "relation": "at least"}],
    ),
    (
        "Write two bullet points about rain and end with the words all done.",
        ["detectable_format:number_bullet_lists", "startend:end_checker"],
        [{"num_bullets": 2}, {"end_phrase": "all done"}],
    ),
    (
        "Write at least two sentences about a boat.",
        ["length_constraints:number_sentences"],
        [{"num_sentences": 2, "relation": "at least"}],
    ),
]
PASSAGE = (
    "The lighthouse at Vik was built in 1904 by Anna Holm. It is 21 metres high and its lamp is seen from far away."
)
QUESTIONS = [
    ("When was the lighthouse built?", "1904"),
    ("Who built the lighthouse?", "Anna Holm"),
    ("How high is it?", "21 metres"),
]
PUNKT = ("sent_starters.txt", "abbrev_types.txt", "collocations.tab", "ortho_context.tab")


def write_more(folder):
    """The layouts of ifeval, xquad, squad_completion and mbpp, and tables of a sentence splitter that knows nothing."""
    rows = {
        "ifeval/some.jsonl": [
            {"key": i, "prompt": text, "instruction_id_list": ids, "kwargs": kwargs}
            for i, (text, ids, kwargs) in enumerate(INSTRUCTIONS)
        ],
        "xquad/some.jsonl": [
            {"id": str(i), "context": PASSAGE, "question": q, "answers": {"text": [a], "answer_start": [0]}}
            for i, (q, a) in enumerate(QUESTIONS)
        ],
        "squad_completion/some.jsonl": [
            {"text": f"{PASSAGE} The lighthouse was built in", "value": " 1904 "},
            {"text": f"{PASSAGE} It was built by", "value": "Anna Holm"},
        ],
        "mbpp/some.jsonl": [
            {
                "task_id": 1,
                "text": "Add two numbers.",
                "code": "def add(a, b): return a + b",
                "test_list": ["assert 1"] * 3,
            }
        ],
    }
    for name, found in rows.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    splitter = folder / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    splitter.mkdir(parents=True, exist_ok=True)
    for name in PUNKT:
        (splitter / name).write_text("", encoding="utf-8")
    return folder
