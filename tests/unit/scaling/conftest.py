import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # for `invented`, which is no package of the product
