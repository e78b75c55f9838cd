"""The HTTP API, over a unix socket for the command line."""
