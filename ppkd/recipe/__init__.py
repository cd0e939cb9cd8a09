"""The two YAML files and -o become a plan in plain values."""
