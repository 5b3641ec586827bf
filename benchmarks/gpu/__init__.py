"""The day a GPU is there: one command measures everything that waited for one."""
