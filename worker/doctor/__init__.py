"""`check.py doctor`: what an installation needs, looked at one by one; each line says what is found and how to mend it."""
