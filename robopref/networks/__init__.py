"""Modules that know shapes and nothing of preferences."""
