"""The report of a study or an answer as a PDF: the decision first, then the evidence. It only lays out."""
