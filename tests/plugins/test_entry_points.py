"""Installed plug-ins: loaded lazily and one by one; a broken one is named and stops nothing."""

import json
from pathlib import Path

import pytest

from .distributions import command, distribution, python, schedule_code

REGISTRY = """
    import json
    import depthsched as ds
    registry = ds.registry()
    print(json.dumps({
        "schedules": {name: str(entry.origin) for name, entry in registry.schedules.items()},
        "failures": registry.failures,
    }))
"""


def test_importing_depthsched_loads_no_plug_in(tmp_path: Path) -> None:
    distribution(tmp_path, "loud-plugin", schedule_code("Loud", "loud"))
    loaded = python(
        """
        import json, sys
        import depthsched as ds
        before = "loud_plugin" in sys.modules
        ds.registry()
        print(json.dumps([before, "loud_plugin" in sys.modules]))
        """,
        tmp_path,
    )
    assert loaded == [False, True]


def test_a_plug_in_is_used_like_a_built_in(tmp_path: Path) -> None:
    distribution(tmp_path, "good-plugin", schedule_code("Good", "good"), version="2.5")
    assert python(REGISTRY, tmp_path)["schedules"]["good"] == "good-plugin 2.5"
    depths = python(
        """
        import depthsched as ds
        print(list(ds.plan("good:start=2", num_layers=8, horizon=4).depths))
        """,
        tmp_path,
    )
    assert depths == [8, 8, 4, 4]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module_at_all", ["ModuleNotFoundError", "no_such_module_at_all"]),
        ("def broken(:", ["SyntaxError"]),
        ("raise SystemExit('bye')", ["SystemExit", "bye"]),
        (
            """
            import depthsched as ds
            @ds.hookimpl
            def register_schedules(register):
                raise RuntimeError("out of order")
            """,
            ["register_schedules failed", "RuntimeError: out of order"],
        ),
        (
            """
            import depthsched as ds
            @ds.hookimpl
            def register_schedules(register):
                register("a string")
            """,
            ["register_schedules failed", "'a string' is not a DepthSchedule class"],
        ),
        (
            """
            import depthsched as ds
            class Loose(ds.DepthSchedule):
                share: float = 0.5
            @ds.hookimpl
            def register_schedules(register):
                register(Loose)
            """,
            ["a_broken_plugin.py, line 3", "class Loose has settings (share)", "write @dataclass(frozen=True)"],
        ),
        (
            """
            import depthsched as ds
            class Loose(ds.LayerOrder):
                def __init__(self, head=2):
                    self.head = head
            @ds.hookimpl
            def register_orders(register):
                register(Loose)
            """,
            ["a_broken_plugin.py, line 3", "class Loose has an __init__", "such as head: int = 2"],
        ),
        (
            """
            import dataclasses
            import depthsched as ds
            @dataclasses.dataclass
            class Loose(ds.DepthSchedule):
                share: float = 0.5
            """,
            ["a_broken_plugin.py, line 4", "class Loose is a dataclass that is not frozen"],
        ),
        (
            """
            import depthsched as ds
            @ds.hookimpl
            def register_schedule(register):
                pass
            """,
            ["there is no hook 'register_schedule'; did you mean 'register_schedules'?"],
        ),
        (
            """
            import depthsched as ds
            @ds.hookimpl
            def register_schedules(add):
                pass
            """,
            ["PluginValidationError", "add"],
        ),
    ],
    ids=[
        *("import", "syntax", "exit", "hook raises", "no class", "no decorator", "own init", "not frozen"),
        *("unknown hook", "wrong argument"),
    ],
)
def test_a_broken_plug_in_is_named_and_the_rest_work(tmp_path: Path, code: str, words: list[str]) -> None:
    distribution(tmp_path, "a-broken-plugin", code)
    distribution(tmp_path, "b-good-plugin", schedule_code("Good", "good"))
    listed = command("list", "--json", folders=(tmp_path,))
    assert listed.returncode == 0
    found = json.loads(listed.stdout)
    ((name, failure),) = ((one["plugin"], one["error"]) for one in found["failures"])
    assert name == "a-broken-plugin"
    for word in words:
        assert word in failure
    schedules = {row["name"]: row["plugin"] for row in found["rows"] if row["kind"] == "schedule"}
    assert schedules["good"] == "b-good-plugin"
    assert {"d3", "full"} <= set(schedules)
    unknown = command("show", "missing", "--layers", "8", folders=(tmp_path,))
    assert unknown.returncode == 2
    assert "a-broken-plugin" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


def test_a_list_for_people_says_what_was_not_loaded(tmp_path: Path) -> None:
    distribution(tmp_path, "a-broken-plugin", "import no_such_module_at_all")
    listed = command("list", folders=(tmp_path,))
    assert listed.returncode == 0
    assert "a-broken-plugin" in listed.stderr


def test_two_plug_ins_with_one_name_are_both_named(tmp_path: Path) -> None:
    distribution(tmp_path, "first-plugin", schedule_code("Good", "good"), version="1.1")
    distribution(tmp_path, "second-plugin", schedule_code("Good", "good"), version="1.2")
    message = python(
        """
        import json
        import depthsched as ds
        try:
            ds.registry()
        except ds.errors.PluginError as error:
            print(json.dumps(str(error)))
        """,
        tmp_path,
    )
    assert "two plug-ins register the schedule 'good'" in message
    assert "first-plugin 1.1" in message
    assert "second-plugin 1.2" in message
    shown = command("list", folders=(tmp_path,))
    assert (shown.returncode, len(shown.stderr.splitlines())) == (2, 1)
    assert "first-plugin" in shown.stderr
    assert "second-plugin" in shown.stderr


def test_the_name_of_a_built_in_is_taken(tmp_path: Path) -> None:
    distribution(tmp_path, "greedy-plugin", schedule_code("Mine", "d3"))
    shown = command("list", folders=(tmp_path,))
    assert shown.returncode == 2
    assert "two plug-ins register the schedule 'd3'" in shown.stderr
    assert "greedy-plugin 1.0" in shown.stderr


@pytest.mark.parametrize(("value", "loaded"), [("1", False), ("0", True), ("", True)])
def test_a_variable_turns_autoloading_off(tmp_path: Path, value: str, loaded: bool) -> None:
    distribution(tmp_path, "good-plugin", schedule_code("Good", "good"))
    found = python(REGISTRY, tmp_path, DEPTHSCHED_DISABLE_PLUGINS=value)
    assert ("good" in found["schedules"]) is loaded
    assert "d3" in found["schedules"]


def test_a_plug_in_can_add_an_adapter(tmp_path: Path) -> None:
    distribution(
        tmp_path,
        "adapter-plugin",
        """
        import depthsched as ds

        @ds.hookimpl
        def register_adapters(register):
            from depthsched.adapters import Adapter

            class Tower(Adapter):
                '''Models of the tower family.'''
                name = "tower"
                families = {"tower": "made up"}

            register(Tower)
        """,
    )
    rows = json.loads(command("list", "--json", folders=(tmp_path,)).stdout)["rows"]
    assert {
        "kind": "adapter",
        "name": "tower",
        "plugin": "adapter-plugin",
        "version": "1.0",
        "summary": "Models of the tower family.",
    } in rows


def test_a_plug_in_can_add_a_command(tmp_path: Path) -> None:
    distribution(
        tmp_path,
        "command-plugin",
        """
        import depthsched as ds

        @ds.hookimpl
        def register_commands(app):
            @app.command("greet")
            def greet(name: str) -> None:
                '''Say hello.'''
                print(f"hello {name}")
        """,
    )
    said = command("greet", "depth", folders=(tmp_path,))
    assert (said.returncode, said.stdout) == (0, "hello depth\n")
    assert "Say hello." in command("--help", folders=(tmp_path,)).stdout
    assert command("greet", "depth").returncode == 2


def test_a_command_hook_that_raises_leaves_the_command_line_working(tmp_path: Path) -> None:
    distribution(
        tmp_path,
        "command-plugin",
        """
        import depthsched as ds

        @ds.hookimpl
        def register_commands(app):
            raise RuntimeError("out of order")
        """,
    )
    listed = command("list", "--json", folders=(tmp_path,))
    assert listed.returncode == 0
    failures = json.loads(listed.stdout)["failures"]
    assert [failure["plugin"] for failure in failures] == ["command-plugin"]
    assert "out of order" in failures[0]["error"]
