"""One file a command, imported when called.

Each module offers `app`, a `typer.Typer` made by `lumen_cli.output.command()`: with one command in it that
command is `lumen NAME`, with several (or a callback) it is the group `lumen NAME …`. The table in
`lumen_cli.main.COMMANDS` lists them. A command raises `lumen_cli.errors.CliError` (or a `LumenError`) to
fail and never prints a traceback. Heavy imports (Rich, YAML, HTTP) stand inside the function that needs them.
"""
