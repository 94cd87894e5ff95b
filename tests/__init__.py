"""The tests, in folders with the names of the rooms that they test."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
