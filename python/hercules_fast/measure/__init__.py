"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""

from hercules_fast.measure.descriptor import server_descriptor
from hercules_fast.measure.load import LoadRun, Pool, Spin, Worker, run_load

__all__ = ["LoadRun", "Pool", "Spin", "Worker", "run_load", "server_descriptor"]
