"""Values that leave the engine and enter it: NumPy, DLPack, pickle, files."""
