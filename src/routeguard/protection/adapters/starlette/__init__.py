"""Starlette: its routes, and those of FastAPI, which are made of them."""
