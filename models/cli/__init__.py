"""The command line: one file for each command. `main` is in models.cli.main; nothing is imported here."""
