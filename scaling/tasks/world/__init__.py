"""A small world of rooms, doors and things, told in words: rules, plans, texts, and a model that acts in it."""
