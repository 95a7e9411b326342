"""What runs on the login node: claim, submit, reconcile, and the judge that decides. Shares only files with the job's side."""
