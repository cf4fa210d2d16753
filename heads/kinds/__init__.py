"""Kinds of heads: what each is as arrays, and how a whole grid of it is fitted."""
