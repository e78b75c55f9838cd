"""The command line.

Owns the commands' names and options, and their exit codes: 0 done, 1 it failed (the reason is on
stderr), 2 the arguments were wrong. Modules are imported by the command that needs them, so that
`restorefs status` and completion stay quick.
"""

from restorefs.cli.commands import main

__all__ = ["main"]
