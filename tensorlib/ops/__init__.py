"""The ops, a file for each family. Each op is a Function, next to the public function that applies it."""
