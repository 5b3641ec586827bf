"""The figures of the report: a study in, panels out."""
