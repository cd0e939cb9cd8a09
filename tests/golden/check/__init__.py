"""Runs ppkd's losses and detectors on golden fixtures: `tools/check_golden.py`."""
