"""The report of a study as a PDF: the decision first, then the evidence. It computes nothing; it lays out."""
