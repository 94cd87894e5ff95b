"""Raw arrays, below the engine: backends, random numbers, threads, memory, and helpers on shapes."""
