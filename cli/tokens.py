"""`maskwright token make | list | revoke`: who else may come in, without a service running."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contracts.tokens import Scope, Tokens
from docker_sdk_api.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Who else may come in: docs/security.md.")


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    scope: Annotated[Scope, typer.Option(help="read, infer, train or admin; each may what those before it may.")] = "read",
    days: Annotated[float | None, typer.Option(help="Ends after so many days; never where not given.")] = None,
) -> None:
    """Make a token and print it. It cannot be printed again."""
    print(_tokens().make(name, scope, days).token)


@app.command("list")
def list_() -> None:
    """Every named token, without what opens."""
    table = Table("name", "scope", "made", "ends")
    for row in _tokens().all():
        ends = f"{row.until:%Y-%m-%d %H:%M}" if row.until else "never"
        table.add_row(row.name, row.scope, f"{row.created:%Y-%m-%d}", f"{ends} (over)" if row.ended else ends)
    Console().print(table)


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """It opens nothing from now on."""
    _tokens().revoke(name)


def _tokens() -> Tokens:
    return Tokens(Settings().checkpoints)
