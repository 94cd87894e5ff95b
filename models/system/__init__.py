"""Files and locks, signals, the terminal, numbers, and errors made by the user."""
