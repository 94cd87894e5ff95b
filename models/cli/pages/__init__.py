"""HTML pages that commands write: each is a single file that works offline."""
