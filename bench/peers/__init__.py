"""The steps in other libraries, each in its own file so that one can be missing."""
