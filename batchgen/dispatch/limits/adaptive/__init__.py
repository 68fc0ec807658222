"""How fast the server allows a job to go, learned from its replies."""
