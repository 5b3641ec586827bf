"""What training costs in time: a law of measured training speed, and the speeds by name."""
