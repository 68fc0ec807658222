"""What dispatch needs of the journal and the picture folder."""
