"""`naiad serve`: embedded Tritons in the foreground, alone or several behind the gateway."""

from naiad.cli.serve.command import serve as serve
