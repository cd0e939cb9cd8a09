"""Detectors for deployment: static graph, ONNX."""
