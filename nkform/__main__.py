"""`python -m nkform`."""

from nkform.cli.main import run

run()
