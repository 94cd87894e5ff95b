"""The ops, a file for each family. Each op is a Function and, beside it, the public function that applies it."""
