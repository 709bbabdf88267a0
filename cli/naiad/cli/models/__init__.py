"""`naiad models`: what the repository holds, what is served, and changing that; one module for each group of verbs."""

import typer

from naiad.cli.models import checking, comparing, configuring, history, linting, listing, pruning, serving, signing

app = typer.Typer(
    help="List, compare, verify, promote, roll back, configure, sign and prune the models of a repository.",
    no_args_is_help=True,
)
app.command("list")(listing.list_)
app.command()(listing.show)
app.command()(comparing.diff)
app.command()(checking.verify)
app.command()(linting.lint)
app.command()(serving.promote)
app.command()(serving.rollback)
app.command()(configuring.configure)
app.command()(pruning.prune)
app.command()(signing.keygen)
app.command()(signing.sign)
app.command()(history.log)
