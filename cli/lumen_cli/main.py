"""The `lumen` command: a table of commands, each imported only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from lumen_cli import choice, examples
from lumen_cli.errors import FAILED, USAGE, CliError, debugging, tell

# name → (module in lumen_cli.commands, help in one line); the order is the order of `lumen --help`.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Start the gateway and its engines, and wait until they answer."),
    "down": ("down", "Stop the gateway after the requests in flight have ended."),
    "status": ("status", "What runs: models, replicas, requests."),
    "top": ("top", "What goes on, live: speed, cost, targets, requests, engines."),
    "logs": ("logs", "The log of the gateway or of one model."),
    "restart": ("restart", "Restart the gateway, or one model of it."),
    "sleep": ("sleep", "Send a local model to sleep: its device memory is free, the next request wakes it."),
    "wake": ("wake", "Load a local model before it is asked for."),
    "chat": ("chat", "Talk to a model in the terminal."),
    "models": ("models", "The models that are configured or kept on this disk, and how they are served."),
    "pull": ("pull", "Fetch a model from the hub, a URL or a path."),
    "ls": ("ls", "The model files on this disk."),
    "show": ("show", "What a model file is: size, architecture, template."),
    "rm": ("rm", "Remove a model file from this disk."),
    "engine": ("engine", "Install, list and remove engines that bring packages of their own."),
    "fit": ("fit", "What a model takes of this machine, and which form of it fits where."),
    "gpu": ("gpu", "Cards and memory: how full, whose; which models may use which cards."),
    "provider": ("provider", "Add, list, test and remove providers and their keys."),
    "route": ("route", "Set, list, show and remove routes."),
    "shadow": ("shadow", "Ask another target as well, in the dark, and compare."),
    "canary": ("canary", "Shift a route to another target step by step, guarded."),
    "feedback": ("feedback", "Say how good an answer was."),
    "target": ("target", "How targets stand; take one out or back by hand."),
    "key": ("key", "Add, change, list and revoke keys."),
    "usage": ("usage", "What was used and what it cost, by key, route, model, provider or day."),
    "invoice": ("invoice", "A month's statement over all providers and this machine."),
    "login": ("login", "Sign on at a gateway elsewhere."),
    "logout": ("logout", "Forget a gateway elsewhere, and end the sign-on there."),
    "whoami": ("whoami", "Who you are at a gateway elsewhere, and what you may do there."),
    "audit": ("audit", "Who changed what, and whether that record is whole."),
    "export": ("export", "Requests and answers that routes keep, as JSON lines or CSV."),
    "backup": ("backup", "Ledger, configuration and keys' hashes in one file, also while it runs."),
    "restore": ("restore", "Put a backup back, while no gateway runs."),
    "config": ("config", "Check, show and locate the configuration."),
    "doctor": ("doctor", "Find what is wrong on this machine and how to mend it."),
}

# What can be asked of a gateway elsewhere; everything else is about this machine.
AFAR = frozenset(
    {"status", "top", "target", "route", "canary", "feedback", "sleep", "wake", "restart", "usage", "key", "audit",
     "login", "logout", "whoami"}
)  # fmt: skip


class LazyGroup(TyperGroup):
    """Lists commands from the table and imports one only when it is called or completed into."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = self.commands.get(cmd_name)
        if found is None and cmd_name in COMMANDS:
            module, short = COMMANDS[cmd_name]
            found = get_command(import_module(f"lumen_cli.commands.{module}").app)
            found.name, found.short_help = cmd_name, short
            examples.equip(found, cmd_name)
            self.commands[cmd_name] = found
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, 1)
            hint = f" (did you mean `{near[0]}`?)" if near else ""
            ctx.fail(f"there is no command `{name}`{hint}")
        return super().resolve_command(ctx, args)


def _version(value: bool) -> None:
    if value:
        from lumen import __version__

        typer.echo(f"lumen {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="lumen",
    cls=LazyGroup,
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog=examples.ROOT,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show version."),
    url: str | None = typer.Option(
        None,
        envvar="LUMEN_URL",
        show_envvar=False,
        help="A gateway elsewhere, once you signed on there (`lumen login`).",
    ),
) -> None:
    """One OpenAI-compatible endpoint over local engines and remote providers."""
    choice.choose(url)
    ctx.call_on_close(choice.forget)  # `whoami --url` chooses too
    if url and ctx.invoked_subcommand is not None and ctx.invoked_subcommand not in AFAR:
        raise CliError(
            f"`lumen {ctx.invoked_subcommand}` is about this machine", "leave --url and LUMEN_URL out", code=USAGE
        )
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(argv: list[str] | None = None) -> int:
    """Run one command line. Returns the exit code: 0 done, 1 failed, 2 called wrongly, 130 interrupted."""
    try:
        code = app(args=argv, prog_name="lumen", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else FAILED
    except CliError as error:
        _raise_if_debugging()
        for line in error.lines:
            sys.stderr.write(f"  | {line}\n")
        tell(error.what, error.hint)
        return error.code
    except typer.TyperException as error:
        return _usage(error)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`lumen logs | head`): there is nobody left to tell.
        sys.stderr.close()
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last resort of a program that shows no traceback
        _raise_if_debugging()
        return _unexpected(error)


def _raise_if_debugging() -> None:
    """Inside an `except`: let the traceback out where LUMEN_DEBUG asks for it."""
    if debugging():
        raise


def _usage(error: typer.TyperException) -> int:
    ctx = getattr(error, "ctx", None)
    asked = ctx.command_path if ctx is not None else "lumen"
    tell(error.format_message(), f"see `{asked} --help`")
    return error.exit_code


def _unexpected(error: Exception) -> int:
    """Errors of the lower parts say what is wrong themselves; anything else is our own fault and says so."""
    from lumen.core.errors import LumenError

    if isinstance(error, LumenError):
        tell(error.message)
    elif isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        tell(f"{where}{error.strerror}", "run `lumen doctor` to see what is wrong")
    else:
        tell(
            f"internal error: {type(error).__name__}: {error}",
            "run again with LUMEN_DEBUG=1 to see where, and report it",
        )
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
