"""`naiad models`: what the repository holds, what is served, and changing that; one module for each group of verbs."""

import typer

from naiad.cli.models import checking, listing, serving

app = typer.Typer(help="List, inspect, verify, promote and roll back the models of a repository.", no_args_is_help=True)
app.command("list")(listing.list_)
app.command()(listing.show)
app.command()(serving.promote)
app.command()(serving.rollback)
app.command()(checking.verify)
