"""FastAPI: what it has beyond Starlette: its errors, its description, its dependencies."""
