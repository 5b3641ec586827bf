"""Training, evaluation and measurement of models."""
