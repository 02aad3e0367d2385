"""The small run on real picture files."""

from tests.shapes import photos, run

__all__ = ["photos", "run"]
