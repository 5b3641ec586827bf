"""What the commands print: each answer as a page, and progress."""
