"""Where the files of `cluster/` are, and those of one kind."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
CLUSTER = REPOSITORY / "cluster"


def text_files() -> list[Path]:
    """Return every file of the folder, all of them text, but the secrets that a user put beside compose.yaml."""
    return sorted(path for path in CLUSTER.rglob("*") if path.is_file() and "secrets" not in path.parts)


def shell_scripts() -> list[Path]:
    return [path for path in text_files() if path.suffix in (".sh", ".sbatch")]


def logical_lines(path: Path) -> list[str]:
    """Return a script's lines, those that end in a backslash joined with the next."""
    return path.read_text().replace("\\\n", " ").splitlines()
