"""Fuzzing: random cone programs whose solutions are known, to find answers that are silently wrong."""
