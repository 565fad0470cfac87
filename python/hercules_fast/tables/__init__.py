"""The plain data between rooms: service tables, efficiency tables, scheduling configurations."""

from hercules_fast.tables.config import SchedulingConfig
from hercules_fast.tables.efficiency import Choices, EfficiencyRow, EfficiencyTable, Estimate
from hercules_fast.tables.files import read_arrays, write_atomically
from hercules_fast.tables.measurements import MeasuredPoint, Place, dips, measured_table, pooled, read_service_csv
from hercules_fast.tables.records import RecordFile
from hercules_fast.tables.rows import CsvRows, read_csv_rows
from hercules_fast.tables.service import ServiceTable, TableGroupSpec, TableStage, TableVariant

__all__ = [
    "Choices",
    "CsvRows",
    "EfficiencyRow",
    "EfficiencyTable",
    "Estimate",
    "MeasuredPoint",
    "Place",
    "RecordFile",
    "SchedulingConfig",
    "ServiceTable",
    "TableGroupSpec",
    "TableStage",
    "TableVariant",
    "dips",
    "measured_table",
    "pooled",
    "read_arrays",
    "read_csv_rows",
    "read_service_csv",
    "write_atomically",
]
