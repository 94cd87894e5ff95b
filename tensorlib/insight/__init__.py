"""Looking at what was recorded: the graph as data, as a picture."""
