"""The two YAML files and -o become a plan in plain values."""

from ppkd.recipe.recipe import load_recipe

__all__ = ["load_recipe"]
