"""Pass 1: the prompts file becomes the journal's rows."""
