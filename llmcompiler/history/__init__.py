"""Past runs: state, replay, resume, fork, what-if, diff, save, cost."""
