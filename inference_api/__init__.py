"""Serves what training published (FastAPI, port 4343). Needs an ONNX runtime, no training framework."""
