"""The operating system's side: files, signals, the terminal, and errors made by the user."""
