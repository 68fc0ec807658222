"""Requests sent through the Batch API."""
