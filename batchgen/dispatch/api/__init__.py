"""One exchange with the API, and what it means."""
