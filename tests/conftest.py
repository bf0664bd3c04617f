"""What holds for all tests."""

from hypothesis import settings

# No test fails for being slow: the machine may do other things beside it.
settings.register_profile("s4", deadline=None)
settings.load_profile("s4")
