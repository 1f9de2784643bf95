"""The ladder: plan, train, evaluate, collect, fit, predict, report."""
