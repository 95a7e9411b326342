"""`check.py init`: an installation's two files, and what starts its passes; from answers, and from what can be found out."""
