"""Files, signals, the terminal, limits of numbers, and errors made by the user."""
