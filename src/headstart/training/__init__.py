"""The trainings of a run and the order of its stages (paper 3.2 to 3.5)."""
