"""Prompts whose answer stands in them and has to be copied: what calibration texts of other kinds lack."""

from __future__ import annotations

import random

# fmt: off
NAMES = [
    "Amir", "Bella", "Carlos", "Dina", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jana", "Karim", "Lena", "Marco",
    "Nadia", "Oskar", "Petra", "Quentin", "Rosa", "Stefan", "Tara", "Umar", "Vera", "Wanda", "Xenia", "Yusuf", "Zoe",
]
# fmt: on
THINGS = (
    ("The access code of {name} is {value}.", "What is the access code of {name}?"),
    ("{name}: {value}", "Give the number that is listed for {name}."),
    ("{name} has the ticket {value} today.", "Which ticket does {name} have?"),
    ("Parcel {value} is addressed to {name}.", "Which parcel is addressed to {name}? Answer with its number."),
)
FILLERS = (
    "",
    "The weather was mild that week, and the office closed early on Friday.",
    "Nobody else had asked for a change, so the list stayed as it was.",
    "Please keep this list in a safe place. Coffee is on the second floor.",
)


def copying(count: int, seed: int = 0) -> list[str]:
    """Lists of names with numbers of 4 to 9 digits, between sentences that do not matter, and a question for one."""
    draw = random.Random(seed)
    return [_prompt(draw) for _ in range(count)]


def _prompt(draw: random.Random) -> str:
    fact, question = draw.choice(THINGS)
    filler = draw.choice(FILLERS)
    digits = draw.randint(4, 9)
    names = draw.sample(NAMES, draw.randint(3, len(NAMES)))
    lines = [
        line
        for name in names
        for line in (fact.format(name=name, value=_number(draw, digits)), filler)
        if line
    ]  # fmt: skip
    asked = question.format(name=draw.choice(names))
    return "\n".join([*lines, "", asked] if draw.random() < 0.5 else [asked, "", *lines])


def _number(draw: random.Random, digits: int) -> str:
    return str(draw.randrange(10 ** (digits - 1), 10**digits))
