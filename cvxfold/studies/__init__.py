"""Studies of layers: analysis, comparison, fuzzing, the demo."""
