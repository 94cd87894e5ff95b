"""What `benchmarks/gpu.sh` runs: parts that test and measure on a GPU, each in its own process with its own time limit.

`parts.py` lists the parts, `running.py` runs them, `report.py` and `goals.py` write the table. Each part is a file with
a function ``run(turn)``; the sides that are compared run in processes of their own (`sides.py`, `worker.py`).
"""
