"""What a conformance check found, and how it is found: Hypothesis behind one plain message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException, Unsatisfiable

from ..text import one_line

T = TypeVar("T")

SETTINGS = "settings"


class Finding(AssertionError):
    """A broken rule. ``check`` names the check whose rule it is, which may not be the one that met it."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


class Note(Finding):
    """What the author should know although no rule is broken: the check passes."""


@dataclass(frozen=True)
class CheckResult:
    """One check of one schedule, order or ranker."""

    name: str
    """Such as ``monotone``."""
    passed: bool
    message: str
    """One line: what was tried, expected and found, and what to do. Empty, or a note, when it passed."""


@dataclass(frozen=True)
class CheckReport:
    """Every check of one schedule, order or ranker."""

    subject: str
    """Name or spec of what was checked."""
    kind: str
    """``schedule``, ``order``, ``ranker`` or ``adapter``."""
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(result.passed for result in self.results)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that did not pass."""
        return tuple(result for result in self.results if not result.passed)

    def to_json(self) -> dict[str, Any]:
        """A JSON object: subject, kind, passed and the list of results."""
        return {
            "subject": self.subject,
            "kind": self.kind,
            "passed": self.passed,
            "results": [asdict(result) for result in self.results],
        }


def smallest_finding(
    check: Callable[[T], None], drawn: st.SearchStrategy[T], *, name: str, max_examples: int
) -> Finding | None:
    """Try a check on drawn values; the finding for the smallest value that breaks it, or None."""
    last: list[Finding] = []

    # No database and no random seed: the same class gives the same answer on every machine.
    @settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        derandomize=True,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(drawn)
    def probe(value: T) -> None:
        try:
            check(value)
        except HypothesisException:
            raise
        except Finding as finding:
            last.append(finding)
            raise
        except Exception as error:
            last.append(Finding(name, f"{name}: failed with {type(error).__name__}: {one_line(error, 160)}"))
            raise last[-1] from error

    try:
        probe()
    except Unsatisfiable:
        return Finding(
            SETTINGS, "no settings were found that the class accepts; give its fields ranges with setting(low=, high=)"
        )
    except (Finding, HypothesisException, BaseExceptionGroup):
        # Hypothesis runs its smallest example last. A check that fails only sometimes ends in an error of
        # Hypothesis' own; what it met is what the author needs to read.
        if not last:
            raise
        return last[-1]
    except Exception as error:  # before the check: the class itself fails on settings that its fields allow
        return Finding(SETTINGS, f"cannot be made from its settings: {type(error).__name__}: {one_line(error, 160)}")
    return None


def run_checks(subject: str, kind: str, finders: dict[str, Callable[[], Finding | None]]) -> CheckReport:
    """Run named checks in order. One that met another check's finding is not repeated, only referred to."""
    found: dict[str, Finding | None] = {}
    for name, find in finders.items():
        unmade = found.get(SETTINGS)
        found[name] = Finding(SETTINGS, str(unmade)) if unmade is not None else find()
    results = [
        CheckResult(name, finding is None or isinstance(finding, Note), _message(name, finding, found))
        for name, finding in found.items()
    ]
    return CheckReport(subject, kind, tuple(results))


def _message(name: str, finding: Finding | None, found: dict[str, Finding | None]) -> str:
    if finding is None:
        return ""
    owner = found.get(finding.check)
    if finding.check != name and owner is not None and owner.check == finding.check:
        return f"not checked, because {finding.check} failed; fix that first"
    return str(finding)
