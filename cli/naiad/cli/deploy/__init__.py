"""`naiad deploy`: a service from its description; one module for each group of verbs."""

import typer

from naiad.cli.deploy import certificates, describing, keys, secrets, status

app = typer.Typer(
    help="Describe a service, render the files of its containers, look after its keys and certificates, watch it.",
    no_args_is_help=True,
)
key = typer.Typer(help="Make, list and revoke the API keys by which the gateway knows who calls.", no_args_is_help=True)
certificate = typer.Typer(
    help="Renew, install and show the gateway's certificate; issue certificates to callers.", no_args_is_help=True
)

app.command()(describing.init)
app.command()(describing.check)
app.command()(describing.render)
app.command("secrets")(secrets.secrets)
app.add_typer(key, name="key")
app.add_typer(certificate, name="certificate")
app.command("status")(status.status)

key.command("add")(keys.add)
key.command("list")(keys.list_)
key.command("revoke")(keys.revoke)

certificate.command("show")(certificates.show)
certificate.command("renew")(certificates.renew)
certificate.command("install")(certificates.install)
certificate.command("issue")(certificates.issue)
