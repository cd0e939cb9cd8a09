"""Training, evaluation and what a run keeps."""
