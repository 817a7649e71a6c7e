"""Pure routing policies, one file each."""
