"""Requests sent one by one."""
