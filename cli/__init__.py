"""The command line: words in, words out. One file a command, all registered in `cli.app`; nobody imports this."""

__all__: list[str] = []
