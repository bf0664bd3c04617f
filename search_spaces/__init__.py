"""Search spaces and ablation plans as data, and their loader."""

from search_spaces.parameters import Parameter, SpaceError
from search_spaces.space import Space, list_spaces, load_space

__all__ = ["Parameter", "Space", "SpaceError", "list_spaces", "load_space"]
