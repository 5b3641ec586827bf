"""From a fit and a question to a recommendation: which E, which size, how many tokens, at what cost."""
