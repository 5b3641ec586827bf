"""PPO on one or several games of MinAtar, with experts in the actor and the critic."""
