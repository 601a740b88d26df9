"""The studio: a local page that draws plans and runs them beside full depth. Needs the extra ``studio``."""
