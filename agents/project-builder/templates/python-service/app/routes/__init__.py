"""The routes of all resources: one import and one entry for each."""

from app.routing import Route

ROUTES: list[Route] = [
]
