"""The application: built-in commands, plug-in commands, and one line for every error."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from typing import Annotated, Any

import typer

from .. import plugins
from ..errors import DepthschedError, DepthschedWarning, RankError, WorkError
from ..parallel import launch
from ..text import one_line
from . import (
    bench,
    calibrate,
    chat,
    check,
    compile,
    demo,
    doctor,
    eval,
    gallery,
    generate,
    new,
    oracle,
    predict,
    profile,
    ranks,
    report,
    score,
    show,
    studio,
    sweep,
)
from . import list as list_command

DEBUG = "DEPTHSCHED_DEBUG"


def build_app() -> typer.Typer:
    """The Typer application with every built-in and plug-in command."""
    app = typer.Typer(
        name="depthsched",
        help="Depth schedules: how many and which decoder layers an LLM runs for each generated token.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback(invoke_without_command=True)(_root)
    for module in (
        demo,
        generate,
        chat,
        studio,
        list_command,
        show,
        check,
        bench,
        predict,
        score,
        oracle,
        calibrate,
        profile,
        eval,
        sweep,
        gallery,
        report,
        new,
        doctor,
        compile,
    ):
        module.add_to(app)
    plugins.registry().call("register_commands", lambda _: app, argument="app")
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"depthsched {plugins.version()}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(args: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 done, 1 our fault, 2 the input was wrong, 130 interrupted."""
    sys.exit(_run(args))


def _run(args: list[str] | None) -> int:
    if launch.world() > 1:
        ranks.prepare()
    log = logging.getLogger("depthsched")
    handler = _LogHandler()
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once", DepthschedWarning)
            warnings.showwarning = _show  # type: ignore[assignment]
            if launch.world() > 1:
                ranks.refuse_others(sys.argv[1:] if args is None else args)
            code = typer.main.get_command(build_app()).main(args, prog_name="depthsched", standalone_mode=False)
            return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing more to say
        return 0
    except (RankError, WorkError) as error:
        return _fail(str(error), 1)
    except DepthschedError as error:
        return _fail(str(error), 2)
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong options and arguments, as click reports them
            return _fail(f"{error.format_message()} (see depthsched --help)", 2)
        if os.environ.get(DEBUG):
            traceback.print_exc()
        if ranks.lost_rank(error):
            return _fail(ranks.lost(error), 1)
        return _fail(f"internal error: {type(error).__name__}: {error} (set {DEBUG}=1 for the traceback)", 1)
    finally:
        log.removeHandler(handler)


class _LogHandler(logging.Handler):
    """Log lines as lines on stderr, wherever that goes at the moment: above a spinner where one turns."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"depthsched: {one_line(record.getMessage(), 5000)}", file=sys.stderr)


def _show(message: Warning | str, *where: Any) -> None:
    print(f"depthsched: warning: {one_line(str(message), 5000)}", file=sys.stderr)


def _fail(message: Any, code: int) -> int:
    if launch.world() > 1:
        ranks.fail(one_line(message, 5000))
    else:
        print(f"depthsched: {one_line(message, 5000)}", file=sys.stderr)
    return code
