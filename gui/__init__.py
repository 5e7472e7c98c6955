"""The pages: server-rendered HTML over the two APIs, usable without JavaScript and livelier with it (FastAPI + Jinja2, port 4200)."""
