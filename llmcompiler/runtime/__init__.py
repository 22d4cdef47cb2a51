"""The machinery of one run: scheduler, engine, binding, results, approval, budgets, model calls."""
