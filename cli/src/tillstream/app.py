"""The command line: each command is a module of its own, imported when it is asked for."""

import io
import sys
from importlib import import_module

import typer

COMMANDS = (
    "demo",
    "up",
    "live",
    "setup",
    "verify",
    "trace",
    "query",
    "export",
    "replay",
    "rebuild",
    "dead-letters",
    "lag",
)


def main() -> None:
    """Runs the command that the arguments name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a product's name must not end a command in a locale without UTF-8
    app = typer.Typer(
        help="Tillstream: live sales numbers that can be proved.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback()(_no_options)  # without it typer takes a lone command for the whole program
    wanted = [name for name in COMMANDS if name == sys.argv[1]] if len(sys.argv) > 1 else []
    for name in wanted or COMMANDS:
        word = name.replace("-", "_")
        command = getattr(import_module(f"tillstream.{word}"), word)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    app(prog_name="tillstream")


def _no_options() -> None:
    pass
