"""Pictures from wherever people have them, as one `Images` object."""

from headstart.data.images import Images, open_images

__all__ = ["Images", "open_images"]
