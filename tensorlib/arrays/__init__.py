"""Arrays below the engine: which library holds them, where, and how kernels share the work."""
