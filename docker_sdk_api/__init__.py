"""Starts, follows and stops training jobs (FastAPI, port 4222)."""
