"""Files of anyone, read safely and written whole: YAML, weights, downloads, converters."""
