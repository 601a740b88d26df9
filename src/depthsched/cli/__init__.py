"""The command line: parse, call the library, print."""

from .app import build_app, main

__all__ = ["build_app", "main"]
