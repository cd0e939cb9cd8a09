"""What people see while it runs: log, progress, tables."""
