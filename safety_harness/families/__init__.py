"""Model families that ship with the package: prompts, small weights, and the recipes that made them."""
