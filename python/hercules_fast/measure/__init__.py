"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""

from hercules_fast.measure.service import Energy, ServiceMeasurement, ServicePoint, measure_service

__all__ = ["Energy", "ServiceMeasurement", "ServicePoint", "measure_service"]
