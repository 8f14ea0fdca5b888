"""Prefect flows: thin orchestration over the coordinator."""
