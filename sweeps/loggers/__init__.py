"""Loggers: what a sweep tells TensorBoard, Weights & Biases or MLflow of its cells, while they train and at their end.

The driver reads the live files of the study and hands them on; workers know nothing of it.
"""
