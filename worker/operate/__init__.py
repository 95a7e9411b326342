"""What the operator's verbs do: look at jobs (status, show, explain) and ask for something to be done with them."""
