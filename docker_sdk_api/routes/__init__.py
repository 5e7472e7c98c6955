"""The routes, one module a noun: /v1/datasets is in datasets.py."""
