"""The commands of `homeranker`, a file for each person who types them; flows/cli.py joins them."""
