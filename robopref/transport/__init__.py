"""Pure functions of cost matrices: plans and costs (optimal transport)."""
