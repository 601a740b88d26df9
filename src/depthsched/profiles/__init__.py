"""Where profiles come from and go to: folders, registered names, the hub, cards and smaller copies."""

from .find import find_profile, from_folder

__all__ = ["find_profile", "from_folder"]
