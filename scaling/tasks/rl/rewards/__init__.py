"""What a learner is rewarded for beside the environment's own reward: shaping, bonuses and reward programs."""
