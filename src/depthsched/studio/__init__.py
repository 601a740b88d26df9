"""The studio: a local page on which plans are drawn, run beside full depth, and compared. Needs the extra ``studio``."""
