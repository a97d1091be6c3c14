"""Runs notebooks headless: order, what is up to date, here or on other machines. Uses all that lies below."""
