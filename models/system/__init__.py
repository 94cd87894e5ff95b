"""The operating system's side: files, signals, the terminal, errors of the user."""
