"""What `tensorlib COMMAND` does: for each a function, whose arguments and docstring are its options and its help."""
