"""Studies: functions that make many chains and read their records."""
