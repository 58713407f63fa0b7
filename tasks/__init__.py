"""How one step is operated: a name, a policy, one library call. Never imports flows."""
