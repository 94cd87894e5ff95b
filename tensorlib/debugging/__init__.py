"""Why a value or a gradient is what it is: `debug` and `explain`."""
